"""NaN from a map or its `right_inverse` for finite numbers is refused; infinite originals warn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import paramdesc as P
from paramdesc.errors import NonFiniteError
from tests.helpers import Double, Sum


def layer_of(*entries: float) -> Any:
    layer = nn.Linear(1, len(entries))
    with torch.no_grad():
        layer.bias.copy_(torch.tensor(entries))
    return layer


def inverse_of_softplus(Y: Tensor) -> Tensor:
    return Y.expm1().log()


class Log(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X.log()


class Roots(nn.Module):
    """Two originals, of which one is NaN for negative values."""

    def forward(self, A: Tensor, B: Tensor) -> Tensor:
        return A * B

    def right_inverse(self, Y: Tensor) -> tuple[Tensor, Tensor]:
        return Y / Y.sqrt(), Y.sqrt()


def test_an_inverse_that_gives_nan_is_refused_at_registration() -> None:
    layer = layer_of(1.0, -1.0, -2.0)
    with pytest.raises(NonFiniteError, match=r"softplus.*NaN in 2 of 3 entries.*'bias'.*clamp"):
        P.register_parametrization(layer, "bias", F.softplus, right_inverse=inverse_of_softplus)
    assert layer.bias.tolist() == [1.0, -1.0, -2.0]
    assert not P.is_parametrized(layer)


@pytest.mark.parametrize("append", [False, True])
def test_a_map_that_gives_nan_is_refused_at_registration(append: bool) -> None:
    layer = layer_of(1.0, -1.0)
    if append:
        P.register_parametrization(layer, "bias", Double())
    with pytest.raises(NonFiniteError, match=r"Log returns NaN in 1 of 2 entries"):
        P.register_parametrization(layer, "bias", Log())
    assert layer.bias.tolist() == [1.0, -1.0]


def test_several_originals_are_looked_at() -> None:
    with pytest.raises(NonFiniteError, match=r"Roots\.right_inverse returns NaN in 1 of 2"):
        P.register_parametrization(layer_of(1.0, -1.0), "bias", Roots())


def test_an_assignment_of_what_becomes_nan_is_refused() -> None:
    layer = layer_of(1.0, 2.0)
    P.register_parametrization(layer, "bias", F.softplus, right_inverse=inverse_of_softplus)
    P.register_parametrization(layer, "bias", Double())
    before = layer.bias.detach().clone()
    with pytest.raises(NonFiniteError, match=r"softplus.*NaN in 1 of 2"):
        layer.bias = torch.tensor([1.0, -1.0])
    assert layer.bias.equal(before)


def test_infinite_originals_are_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"exp.*gives 1 infinite entries of 2"):
        layer = P.register_parametrization(
            layer_of(0.0, 1.0), "bias", torch.exp, right_inverse=torch.log
        )
    assert layer.bias.tolist() == [0.0, 1.0]


def test_what_is_not_finite_before_may_stay_so() -> None:
    layer = P.register_parametrization(layer_of(torch.nan, 1.0), "bias", Double())
    layer.bias = torch.tensor([torch.nan, torch.inf])
    assert layer.bias.isnan().tolist() == [True, False]


def test_a_mask_may_give_infinite_values() -> None:
    def mask(X: Tensor) -> Tensor:
        return X.masked_fill(torch.tensor([True, False]), -torch.inf)

    layer = P.register_parametrization(layer_of(1.0, 2.0), "bias", mask)
    assert layer.bias.tolist() == [-torch.inf, 2.0]


def test_nothing_is_looked_at_where_there_are_no_numbers() -> None:
    layer = nn.Linear(2, 2, device="meta")
    P.register_parametrization(layer, "weight", F.softplus, right_inverse=inverse_of_softplus)
    layer.weight = torch.ones(2, 2, device="meta")
    assert layer.weight.is_meta
    with torch._subclasses.FakeTensorMode():
        P.register_parametrization(nn.Linear(2, 2), "weight", Sum())


def test_numbers_that_cannot_be_nan_and_empty_ones_are_passed_over() -> None:
    layer: Any = nn.Module()
    layer.register_buffer("count", torch.ones(2, dtype=torch.int64))
    P.register_parametrization(layer, "count", torch.neg, right_inverse=torch.neg)
    assert layer.count.tolist() == [1, 1]
    layer.register_buffer("empty", torch.ones(0))
    P.register_parametrization(layer, "empty", Double())
    assert layer.empty.shape == (0,)
