"""`AlmostOrthogonal`: singular values within a band."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paramdesc import register_parametrization
from paramdesc.parametrizations.orthogonality.almost_orthogonal import AlmostOrthogonal, bounded
from tests.helpers import chain_of

DTYPES = [torch.float64, torch.complex128]
SHAPES = [(4, 4), (6, 3), (3, 5), (2, 4, 4), (1, 1), (4, 1)]


def holder(parametrization: AlmostOrthogonal, weight: Tensor) -> Any:
    module = nn.Module()
    module.weight = nn.Parameter(weight)
    return register_parametrization(module, "weight", parametrization)


def with_values(*shape: int, low: float, high: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """A random matrix with singular values spread over the interval, its ends included."""
    U, _, Vh = torch.linalg.svd(torch.randn(shape, dtype=dtype), full_matrices=False)
    product: Tensor = (U * torch.linspace(low, high, U.shape[-1], dtype=dtype)) @ Vh
    return product


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_matrix_within_the_band_is_kept(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    X = with_values(*shape, low=0.75, high=1.25, dtype=dtype)
    module = holder(AlmostOrthogonal(0.25, strict=True), X)
    torch.testing.assert_close(module.weight.detach(), X, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_outside_are_moved_just_inside(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    X = torch.randn(shape, dtype=dtype)
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    inside = torch.where((S > 0.5) & (S < 1.5), S, S.clamp(0.51, 1.49))
    module = holder(AlmostOrthogonal((0.5, 1.5)), X)
    torch.testing.assert_close(module.weight.detach(), (U * inside.unsqueeze(-2)) @ Vh)


@pytest.mark.parametrize("shape", [(64, 64), (60, 20)])
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0, 1e4])
def test_singular_values_stay_within_wherever_the_original_drifts(
    scale: float, shape: tuple[int, int]
) -> None:
    parametrization = AlmostOrthogonal((0.9, 1.1))
    module = holder(parametrization, torch.randn(shape))
    with torch.no_grad():
        chain_of(module).original.add_(torch.randn(shape), alpha=scale / 8)
    weight = module.weight
    assert parametrization.deviation(weight) <= parametrization.tolerance(weight)


@pytest.mark.parametrize("shape", [(4, 4), (5, 3)])
def test_weight_is_fitted_to_any_matrix_of_the_band(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    target = with_values(*shape, low=0.6, high=1.4)
    module = holder(AlmostOrthogonal(0.5), target + 0.3 * torch.randn(shape, dtype=torch.float64))
    optimizer = torch.optim.LBFGS(
        module.parameters(), max_iter=200, line_search_fn="strong_wolfe", tolerance_change=1e-14
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        error: Tensor = (module.weight - target).square().sum()
        error.backward()  # type: ignore[no-untyped-call]
        return error

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(module.weight.detach(), target, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bounded_is_its_formula_with_its_derivatives(dtype: torch.dtype) -> None:
    X = torch.randn(2, 3, 3, dtype=dtype, requires_grad=True)
    H = X + X.mH
    identity = torch.eye(3, dtype=dtype)
    torch.testing.assert_close(bounded(H), H @ torch.linalg.inv(identity + H @ H))
    assert torch.autograd.gradcheck(lambda X: bounded(X + X.mH), X)


def test_strict_refuses_a_matrix_outside_with_the_distance() -> None:
    module = holder(AlmostOrthogonal(0.25, strict=True), torch.eye(2))
    with pytest.raises(ValueError, match="not within the band: it deviates by 0.25,"):
        module.weight = 1.5 * torch.eye(2)
    module.weight = 1.25 * torch.eye(2)
    torch.testing.assert_close(module.weight.detach(), 1.25 * torch.eye(2))


@pytest.mark.parametrize("band", [0.0, 1.5, -0.1, (1.0, 1.0), (2.0, 1.0), (-1.0, 1.0)])
def test_empty_and_negative_bands_are_refused(band: float | tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="band"):
        AlmostOrthogonal(band)


def test_repr_shows_the_band() -> None:
    assert repr(AlmostOrthogonal(0.1)) == "AlmostOrthogonal(band=(0.9, 1.1))"
