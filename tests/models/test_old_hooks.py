"""Whole-model calls on models with torch's older functions, which use hooks, and typos."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from torch import nn
from torch.nn.utils import spectral_norm

import paramdesc as P
from paramdesc.errors import MissingTensorError
from paramdesc.parametrizations import Orthogonal


def hooked() -> nn.Sequential:
    """A model whose first layer has the older weight norm, and the second the spectral norm."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        from torch.nn.utils import weight_norm

        first = weight_norm(nn.Linear(3, 3))
    return nn.Sequential(first, spectral_norm(nn.Linear(3, 3)), nn.Linear(3, 3))


def test_a_type_leaves_the_parts_of_hooks_and_says_why() -> None:
    result = P.parametrize(hooked(), {nn.Linear: Orthogonal})
    assert result.done == ["2.weight"]
    assert list(result.left) == ["0.weight_g", "0.weight_v", "1.weight_orig"]
    assert "torch.nn.utils.weight_norm computes 'weight'" in result.left["0.weight_v"]
    assert "paramdesc.bake(model)" in result.left["1.weight_orig"]


def test_a_part_that_is_named_is_parametrized() -> None:
    model = hooked()
    assert P.parametrize(model, {"0.weight_v": nn.Identity}).done == ["0.weight_v"]


def test_after_baking_all_are_parametrized() -> None:
    model = P.bake(hooked()).model
    assert P.parametrize(model, {nn.Linear: Orthogonal}).done == [
        "0.weight",
        "1.weight",
        "2.weight",
    ]


def test_the_error_says_that_a_hook_computes_the_tensor() -> None:
    with pytest.raises(MissingTensorError, match=r"a hook computes .*paramdesc.bake\(module\)"):
        P.register_parametrization(hooked()[0], "weight", Orthogonal())


class Typo(nn.Module):
    def forward(self, X: Any) -> Any:
        return X

    def right_invers(self, Y: Any) -> Any:
        return Y


class Other(nn.Module):
    def forward(self, X: Any) -> Any:
        return X

    def inverse(self, Y: Any) -> Any:
        return Y

    def _right_inverse(self, Y: Any) -> Any:
        return Y


def test_a_misspelled_right_inverse_is_noticed_at_registration() -> None:
    with pytest.warns(UserWarning, match="Typo.right_invers is not used.*right_inverse"):
        P.register_parametrization(nn.Linear(3, 3), "weight", Typo())
    P.register_parametrization(nn.Linear(3, 3), "weight", Other())  # no warning


def test_the_version_is_an_attribute() -> None:
    assert P.__version__.count(".") == 2
    assert "__version__" in dir(P)
