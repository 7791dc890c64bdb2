"""Patterns, types and submodules choose tensors of a model."""

from __future__ import annotations

import pytest
from torch import nn

import paramdesc as P
from paramdesc.errors import SelectionError
from paramdesc.models.selection import Selector, iterate_places, make_test
from paramdesc.models.unmatched import refuse_unmatched
from paramdesc.parametrizations import Symmetric


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 3), nn.LSTM(3, 3), nn.Sequential(nn.Linear(3, 3)))


def chosen(selector: Selector, model: nn.Module) -> list[str]:
    test = make_test(selector)
    return [place.path for place in iterate_places(model) if test(place)]


@pytest.mark.parametrize(
    ("selector", "paths"),
    [
        ("0.weight", ["0.weight"]),
        ("bias", ["0.bias", "2.0.bias"]),
        ("2*", ["2.0.weight", "2.0.bias"]),
        ("*.weight_?h*", ["1.weight_ih_l0", "1.weight_hh_l0"]),
        (nn.Linear, ["0.weight", "2.0.weight"]),
        (nn.LSTM, ["1.weight_ih_l0", "1.weight_hh_l0"]),
        (("0.bias", (nn.LSTM, "none")), ["0.bias", "1.weight_ih_l0", "1.weight_hh_l0"]),
    ],
)
def test_selectors(selector: Selector, paths: list[str]) -> None:
    assert chosen(selector, model()) == paths


def test_a_submodule_means_everything_below_it() -> None:
    whole = model()
    assert chosen(whole[2], whole) == ["2.0.weight", "2.0.bias"]


def test_parametrized_tensors_are_found_under_their_own_name() -> None:
    whole = model()
    P.register_parametrization(whole[0], "weight", Symmetric())
    assert chosen(nn.Linear, whole) == ["0.weight", "2.0.weight"]
    assert chosen("original", whole) == []


def test_a_pattern_without_a_match_suggests_a_name() -> None:
    places = list(iterate_places(model()))
    with pytest.raises(SelectionError, match="Did you mean 'weight'"):
        refuse_unmatched(["wieght"], [], places)
    refuse_unmatched(["weight"], ["weight"], places)


def test_other_selectors_are_refused() -> None:
    wrong: list[object] = [3, int, None]
    for selector in wrong:
        with pytest.raises(SelectionError, match=r"a type of module"):
            make_test(selector)  # type: ignore[arg-type]
