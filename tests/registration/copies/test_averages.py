"""Averaged models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import paramdesc
from tests.helpers import (
    chain_of,
    linear,
    train_step,
)
from tests.registration.copies.models import INPUTS


@pytest.mark.parametrize("use_buffers", [False, True])
def test_averaged_model_averages_the_originals(use_buffers: bool) -> None:
    model = nn.Sequential(linear(), nn.BatchNorm1d(3))
    averaged: Any = AveragedModel(model, use_buffers=use_buffers)
    originals = []
    for _ in range(3):
        train_step(model[0])
        originals.append(chain_of(model[0]).original.detach().clone())
        averaged.update_parameters(model)
    torch.testing.assert_close(averaged.module[0].weight, 2 * torch.stack(originals).mean(0))
    assert not averaged.module[0].weight.equal(model[0].weight)


def test_averaged_model_evaluates_with_the_averages_in_a_scope() -> None:
    layer = linear()
    averaged = AveragedModel(layer, avg_fn=lambda mean, new, count: (mean + new) / 2)
    averaged.update_parameters(layer)
    with paramdesc.cached():
        before = averaged(INPUTS)
        train_step(layer)
        averaged.update_parameters(layer)
        assert not averaged(INPUTS).equal(before)
        assert not averaged(INPUTS).equal(layer(INPUTS))
