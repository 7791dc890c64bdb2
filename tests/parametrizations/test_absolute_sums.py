"""`AbsoluteSums`, and the functions that bound operator norms with it or by the kernel size."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paramdesc import register_parametrization
from paramdesc.parametrizations import (
    AbsoluteSums,
    kernel_spectral_norm,
    operator_norm_1,
    operator_norm_inf,
)
from tests.helpers import chain_of
from tests.parametrizations.operators import operator_matrix, singular_values

LAYERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "2d": (lambda: nn.Conv2d(3, 4, 3), {}),
    "groups": (lambda: nn.Conv1d(4, 6, 3, groups=2), {"groups": 2}),
    "transposed": (lambda: nn.ConvTranspose1d(3, 4, 3), {"transposed": True}),
    "transposed, groups": (
        lambda: nn.ConvTranspose1d(4, 6, 3, groups=2),
        {"transposed": True, "groups": 2},
    ),
}


@pytest.mark.parametrize(
    ("function", "order"), [(operator_norm_1, 1), (operator_norm_inf, math.inf)]
)
@pytest.mark.parametrize("name", LAYERS)
def test_norm_of_the_whole_matrix_is_the_bound(name: str, function: Any, order: float) -> None:
    torch.manual_seed(0)
    make, how = LAYERS[name]
    layer = function(make().double(), bound=0.3)
    matrix = operator_matrix(layer.weight.detach(), 7, "none", **how)
    torch.testing.assert_close(torch.linalg.matrix_norm(matrix, order).item(), 0.3)


@pytest.mark.parametrize(
    ("function", "order"), [(operator_norm_1, 1), (operator_norm_inf, math.inf)]
)
@pytest.mark.parametrize("by", ["whole", "each", "nearest"])
def test_matrices(function: Any, order: float, by: str) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(5, 3)
    nn.init.normal_(linear.weight)
    layer = function(linear, bound=0.7, by=by)
    norm = torch.linalg.matrix_norm(layer.weight, order).item()
    assert norm == pytest.approx(0.7)
    sums = layer.weight.abs().sum(0 if order == 1 else 1)
    assert bool(torch.isclose(sums, torch.tensor(0.7)).all()) is (by != "whole")


def test_what_is_within_the_bound_is_kept() -> None:
    X = torch.tensor([[0.25, -0.5], [0.0, 0.125]])
    for by in ("whole", "each", "nearest"):
        assert AbsoluteSums(by=by)(X).equal(X)
        assert AbsoluteSums(by=by, strict=True).right_inverse(X) is X


def test_the_whole_weight_is_divided_by_one_number() -> None:
    X = torch.tensor([[3.0, -1.0], [1.0, 1.0]])
    assert AbsoluteSums(2.0)(X).equal(X / 2)
    assert AbsoluteSums(2.0, by="each")(X).equal(torch.tensor([[1.5, -0.5], [1.0, 1.0]]))
    assert AbsoluteSums(2.0, by="nearest")(X).equal(torch.tensor([[2.0, 0.0], [1.0, 1.0]]))


@pytest.mark.parametrize("dim", [-1, 0, (0, 2), None])
def test_the_nearest_value_is_nearest(dim: Any) -> None:
    """The gap of a projection onto a convex set: no value within lies beyond its hyperplane."""
    torch.manual_seed(0)
    X = torch.randn(3, 4, 5, dtype=torch.float64)
    nearest = AbsoluteSums(1.5, dim=dim, by="nearest")
    Y = nearest(X)
    assert nearest.deviation(Y) < 1e-12
    for _ in range(50):
        Z = AbsoluteSums(1.5, dim=dim, by="each")(torch.randn_like(X).pow(3))
        assert ((X - Y) * (Z - Y)).sum() <= 1e-12


STRIDED: dict[str, tuple[Any, dict[str, Any]]] = {
    "2d": (lambda: nn.Conv2d(3, 4, 3), {}),
    "stride": (lambda: nn.Conv2d(3, 4, 3, stride=2), {"stride": 2}),
    "dilation": (lambda: nn.Conv1d(3, 4, 3, stride=2, dilation=2), {"stride": 2, "dilation": 2}),
    "groups": (lambda: nn.Conv1d(4, 6, 3, groups=2), {"groups": 2}),
    "transposed": (lambda: nn.ConvTranspose1d(3, 4, 3), {"transposed": True}),
}


@pytest.mark.parametrize("padding", ["circular", "zeros"])
@pytest.mark.parametrize("name", STRIDED)
def test_the_bound_by_kernel_size_holds(name: str, padding: str) -> None:
    make, how = STRIDED[name]
    for seed in range(3):
        torch.manual_seed(seed)
        layer = kernel_spectral_norm(make().double(), bound=2.0)
        if how.get("transposed"):
            padding = "none"
        assert singular_values(layer.weight.detach(), 8, padding, **how).max() <= 2 + 1e-6


def test_the_bound_by_kernel_size_is_reached() -> None:
    for stride, size in ((1, 8), (2, 8), (3, 9)):
        layer: Any = nn.Conv1d(1, 1, 6, stride=stride, dtype=torch.float64)
        nn.init.ones_(layer.weight)
        kernel_spectral_norm(layer)
        largest = singular_values(layer.weight.detach(), size, stride=stride).max()
        assert largest.item() == pytest.approx(1)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"bound must be positive and finite\. Got bound=0"):
        AbsoluteSums(0)
    with pytest.raises(ValueError, match="by must be one of 'whole', 'each', 'nearest'"):
        AbsoluteSums(by="all")
    with pytest.raises(ValueError, match="groups must be positive"):
        AbsoluteSums(groups=0)
    with pytest.raises(ValueError, match="no dimension 2"):
        AbsoluteSums(dim=2)(torch.ones(2, 2))
    with pytest.raises(TypeError, match="use spectral_norm"):
        kernel_spectral_norm(nn.Linear(2, 2))


def test_what_a_map_shows() -> None:
    assert repr(AbsoluteSums(2)) == "AbsoluteSums(bound=2.0, dim=(-1,), by='whole')"
    layer = operator_norm_1(nn.Conv1d(4, 4, 3, groups=2), by="each")
    assert repr(chain_of(layer)[0]) == ("AbsoluteSums(bound=1.0, dim=(0, 2), by='each', groups=2)")


def test_gradients_at_the_bound_are_those_of_the_formula() -> None:
    torch.manual_seed(0)
    X = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    for by in ("whole", "each", "nearest"):
        assert torch.autograd.gradcheck(AbsoluteSums(0.5, by=by), (X,))


def test_an_empty_weight_stays_empty() -> None:
    module: Any = nn.Module()
    module.weight = nn.Parameter(torch.empty(0, 3))
    register_parametrization(module, "weight", AbsoluteSums())
    value: Tensor = module.weight
    assert value.shape == (0, 3)
