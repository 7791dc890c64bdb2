"""`LipschitzRescaled` and `LipschitzResidual`: bounds of the whole matrix, at no iteration."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paramdesc import register_parametrization
from paramdesc.errors import ConstraintError
from paramdesc.parametrizations import (
    LipschitzRescaled,
    LipschitzResidual,
    Orthogonal,
    OrthogonalConvolution,
    lipschitz_rescaled,
    lipschitz_residual,
)
from paramdesc.parametrizations.lipschitz.balance import absolute_gram
from paramdesc.parametrizations.lipschitz.kernels import autocorrelation, by_taps, lags
from tests.helpers import chain_of
from tests.parametrizations.operators import operator_matrix, singular_values

KERNELS: dict[str, tuple[tuple[int, ...], dict[str, Any], int]] = {
    "square": ((3, 3, 3, 3), {}, 5),
    "more outputs": ((6, 2, 3, 3), {}, 5),
    "fewer outputs": ((2, 5, 4), {}, 9),
    "3d": ((2, 2, 2, 3, 2), {}, 4),
    "large": ((2, 2, 5, 5), {}, 9),
    "stride": ((3, 2, 3, 3), {"stride": 2}, 6),
    "stride, groups": ((8, 2, 5, 4), {"stride": 2, "groups": 2}, 6),
    "dilation": ((3, 2, 3), {"dilation": 2}, 9),
}


def holder(parametrization: nn.Module, weight: Tensor) -> Any:
    module: Any = nn.Module()
    module.weight = nn.Parameter(weight)
    return register_parametrization(module, "weight", parametrization)


jacobian: Any = torch.autograd.functional.jacobian
stacked: Any = torch.block_diag


def kernel(name: str) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(KERNELS[name][0], dtype=torch.float64)


def rescaled(name: str, dim: int | None = None) -> LipschitzRescaled:
    how = KERNELS[name][1]
    return LipschitzRescaled(how.get("stride", 1), how.get("groups", 1), dim=dim)


@pytest.mark.parametrize("dim", [None, 0, 1])
@pytest.mark.parametrize("padding", ["circular", "zeros"])
@pytest.mark.parametrize("name", KERNELS)
def test_no_singular_value_of_a_convolution_is_above_one(
    name: str, padding: str, dim: int | None
) -> None:
    _, how, size = KERNELS[name]
    values = singular_values(rescaled(name, dim)(kernel(name)), size, padding, **how)
    assert 0.2 < values.max() <= 1 + 1e-12


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("name", ["square", "more outputs", "fewer outputs", "large"])
def test_factors_are_those_of_the_whole_matrix(name: str, dim: int) -> None:
    _, how, _ = KERNELS[name]
    X = kernel(name)
    size = 2 * X.shape[-1] - 1  # no sum of products is wrapped around
    J = operator_matrix(X, size, **how)
    scaled = operator_matrix(rescaled(name, dim)(X), size, **how)
    if dim == 0:
        J, scaled = J.T, scaled.T
    torch.testing.assert_close(scaled, J * (J.T @ J).abs().sum(0).rsqrt())


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
@pytest.mark.parametrize("dim", [0, 1])
def test_matrices_have_norm_one_at_most(shape: tuple[int, int], dim: int) -> None:
    torch.manual_seed(0)
    X = torch.randn(shape, dtype=torch.float64)
    Y = LipschitzRescaled(dim=dim)(X)
    G = X @ X.T if dim == 0 else X.T @ X
    factors = G.abs().sum(0).rsqrt()
    torch.testing.assert_close(Y, factors[:, None] * X if dim == 0 else X * factors)
    assert torch.linalg.matrix_norm(Y, 2) <= 1 + 1e-12


def test_absolute_values_are_taken_of_the_sums_over_pairs_of_equal_difference() -> None:
    torch.manual_seed(0)
    for n, *taps in ((3, 3, 3), (40, 3, 3), (3, 2), (40, 2, 2, 2), (200, 2), (60, 4, 2), (3,)):
        K = torch.randn(2, 4, n, *taps, dtype=torch.complex128)
        C = by_taps(K)
        expected = autocorrelation(C, [0 for _ in taps]).abs()
        for lag in lags(taps)[1:]:
            part = autocorrelation(C, lag).abs()
            expected = expected + part + part.mT
        torch.testing.assert_close(absolute_gram(K), expected)


def test_orthogonal_weights_are_kept() -> None:
    torch.manual_seed(0)
    strict = {"strict": True}
    for shape, orthogonal in (((4, 6), Orthogonal()), ((40, 30, 3, 3), OrthogonalConvolution())):
        weight = holder(orthogonal, torch.randn(shape)).weight.detach()
        module = holder(LipschitzRescaled(**strict), weight)
        torch.testing.assert_close(module.weight, weight)
        assert chain_of(module).original.equal(weight)


@pytest.mark.parametrize("make", [LipschitzRescaled, LipschitzResidual])
def test_other_weights_are_multiplied_by_a_number(make: Any) -> None:
    torch.manual_seed(0)
    Y = torch.randn(5, 3, dtype=torch.float64)
    value = holder(make(), Y).weight
    ratios = value / Y
    torch.testing.assert_close(ratios, ratios[:1, :1].expand_as(ratios))
    torch.testing.assert_close(holder(make(), 3 * Y).weight, value)


def test_parts_that_are_orthogonal_have_a_number_each() -> None:
    torch.manual_seed(0)
    A, B = torch.randn(3, 2, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    Y = stacked(A, 1e-3 * B, torch.zeros(1, 1, dtype=torch.float64))
    expected = stacked(
        holder(LipschitzRescaled(), A).weight,
        holder(LipschitzRescaled(), B).weight,
        torch.zeros(1, 1, dtype=torch.float64),
    )
    module = holder(LipschitzRescaled(), Y)
    torch.testing.assert_close(module.weight, expected)
    assert module.parametrizations.weight[0].deviation(module.weight) < 1e-12


def test_a_strict_map_refuses_other_weights() -> None:
    for make in (LipschitzRescaled, LipschitzResidual):
        with pytest.raises(ConstraintError, match="not rescaled to be 1-Lipschitz"):
            holder(make(strict=True), torch.eye(3) + 0.5)


def test_the_formula_of_the_residual_layer() -> None:
    torch.manual_seed(0)
    X, q = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    weights = q.exp()
    T = ((X @ X.T).abs() * weights / weights[:, None]).sum(1)
    torch.testing.assert_close(LipschitzResidual()(X, q), X / T.sqrt()[:, None])


@pytest.mark.parametrize("activation", [torch.relu, torch.tanh, torch.sigmoid])
def test_residual_layers_enlarge_no_distance(activation: Any) -> None:
    torch.manual_seed(0)
    linear = lipschitz_residual(nn.Linear(4, 9, dtype=torch.float64))
    with torch.no_grad():
        for original in chain_of(linear).originals():
            original.add_(torch.randn_like(original))

    def layer(x: Tensor) -> Any:
        return x - 2 * activation(linear(x)) @ linear.weight

    for x in torch.randn(20, 4, dtype=torch.float64):
        slope = jacobian(layer, x)
        assert torch.linalg.matrix_norm(slope, 2) <= 1 + 1e-12


def test_residual_convolutions_enlarge_no_distance() -> None:
    torch.manual_seed(0)
    conv = lipschitz_residual(nn.Conv2d(2, 6, 3, padding=1, dtype=torch.float64))

    def layer(x: Tensor) -> Tensor:
        return x - 2 * torch.conv_transpose2d(torch.relu(conv(x)), conv.weight, padding=1)

    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    slope = jacobian(layer, x)
    assert torch.linalg.matrix_norm(slope.reshape(32, 32), 2) <= 1 + 1e-12


def test_functions_read_the_layer() -> None:
    conv = nn.Conv2d(4, 6, 3, stride=2, groups=2)
    found: Any = chain_of(lipschitz_rescaled(conv, dim=1))[0]
    assert repr(found) == "LipschitzRescaled(dim=1, stride=(2, 2), groups=2)"
    assert repr(chain_of(lipschitz_rescaled(nn.Linear(2, 2)))[0]) == "LipschitzRescaled()"


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="Got stride=0, groups=1"):
        LipschitzRescaled(0)
    with pytest.raises(ValueError, match="dim must be 0, 1 or None"):
        LipschitzRescaled(dim=2)
    with pytest.raises(ValueError, match="three spatial dimensions"):
        LipschitzRescaled()(torch.ones(3))
