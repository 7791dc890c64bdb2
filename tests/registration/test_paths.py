"""Tensors of submodules are named by their path."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

import paramdesc as P
from paramdesc.errors import MissingTensorError, NotParametrizedError
from paramdesc.parametrizations import Symmetric, symmetric


def model() -> Any:
    return nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3)))


def test_a_path_leads_to_a_submodule() -> None:
    whole = model()
    assert P.register_parametrization(whole, "1.0.weight", Symmetric()) is whole
    assert P.is_parametrized(whole, "1.0.weight")
    assert not P.is_parametrized(whole, "0.weight")
    assert not P.is_parametrized(whole, "7.weight")
    assert not P.is_parametrized(whole)
    assert whole[1][0].weight.equal(whole[1][0].weight.T)
    assert P.remove_parametrizations(whole, "1.0.weight") is whole
    assert not P.is_parametrized(whole[1][0])


def test_one_line_functions_take_paths() -> None:
    whole = symmetric(model(), "0.weight")
    assert P.is_parametrized(whole[0], "weight")


def test_a_literal_name_comes_first() -> None:
    whole: Any = nn.Module()
    whole.a = nn.Linear(2, 2)
    whole._parameters["a.weight"] = nn.Parameter(whole.a.weight.detach().clone())
    with pytest.raises(KeyError, match="contain"):  # torch's, as for any such name
        P.register_parametrization(whole, "a.weight", Symmetric())
    assert not P.is_parametrized(whole.a)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("wieght", "Did you mean"),
        ("0.wieght", "Its tensors are: 'weight', 'bias'. Did you mean 'weight'?"),
        ("2.weight", "Did you mean '0.weight' or '1.0.weight'?"),
        (
            "x",
            "Tensors of submodules are given by their paths: '0.weight', '0.bias', "
            "'1.0.weight', ...",
        ),
    ],
)
def test_a_wrong_path_is_told_with_the_nearest(name: str, hint: str) -> None:
    whole = model()
    with pytest.raises(MissingTensorError) as caught:
        P.register_parametrization(whole, name, Symmetric())
    assert hint in str(caught.value)


def test_removing_at_a_wrong_path() -> None:
    whole = P.register_parametrization(model(), "0.weight", Symmetric())
    with pytest.raises(NotParametrizedError, match="Did you mean '0.weight'"):
        P.remove_parametrizations(whole, "0.wieght")
