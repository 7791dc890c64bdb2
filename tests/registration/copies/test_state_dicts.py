"""Checkpoints: between the engines, in a scope, and with names that do not fit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations as torch_maps

import paramdesc
from paramdesc.parametrizations import SpectralNorm
from tests.helpers import (
    Shift,
    linear,
    torch_linear,
)
from tests.registration.copies.models import SAME_MAPS, change


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("make_map", SAME_MAPS)
def test_checkpoints_go_both_ways_between_the_engines(
    make_map: type[nn.Module], assign: bool
) -> None:
    ours = linear(make_map())
    theirs = torch_linear(make_map())
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()), assign=assign)
    assert theirs.weight.equal(ours.weight)
    change(theirs)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()), assign=assign)
    assert ours.weight.equal(theirs.weight)


def test_checkpoint_of_torchs_spectral_norm_loads_into_ours() -> None:
    theirs: Any = torch_maps.spectral_norm(nn.Linear(3, 3)).eval()
    ours = linear(SpectralNorm()).eval()
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours.weight, theirs.weight)


@pytest.mark.parametrize("assign", [False, True])
def test_loading_in_a_scope_shows_at_once(assign: bool) -> None:
    ours, source = linear(Shift()), linear(Shift())
    with paramdesc.cached():
        assert not ours.weight.equal(source.weight)
        ours.load_state_dict(source.state_dict(), assign=assign)
        assert ours.weight.equal(source.weight)


def test_strict_false_tells_the_names_that_do_not_fit() -> None:
    plain, ours = nn.Linear(3, 3), linear()
    before = ours.weight
    state = {"weights": plain.weight, "bias": plain.bias}
    told = ours.load_state_dict(state, strict=False)
    assert told.missing_keys == ["parametrizations.weight.original"]
    assert told.unexpected_keys == ["weights"]
    assert ours.weight.equal(before)
    assert ours.bias.equal(plain.bias)
