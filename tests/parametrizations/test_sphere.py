"""`Sphere` and `Oblique`: vectors of given length."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import Module

from paramdesc import register_parametrization
from paramdesc.parametrizations.orthogonality.oblique import Oblique
from paramdesc.parametrizations.orthogonality.sphere import Sphere
from tests.helpers import chain_of

pytestmark = pytest.mark.usefixtures("algorithms")


def holder(parametrization: Module, weight: Tensor) -> Any:
    module = nn.Module()
    module.weight = nn.Parameter(weight)
    return register_parametrization(module, "weight", parametrization)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize(
    ("make", "dim"),
    [
        (Sphere, -1),
        (lambda: Sphere(dim=0), 0),
        (lambda: Sphere(dim=(0, -1)), (0, 2)),
        (lambda: Sphere(dim=None), None),
        (Oblique, -2),
    ],
)
def test_vectors_are_divided_by_their_length(make: Any, dim: Any, dtype: torch.dtype) -> None:
    X = torch.randn(2, 4, 3, dtype=dtype)
    expected = X / torch.linalg.vector_norm(X, dim=dim, keepdim=True)
    torch.testing.assert_close(make()(X), expected)


def test_radius_scales() -> None:
    X = torch.randn(3, 4)
    torch.testing.assert_close(Sphere(2.5)(X), 2.5 * Sphere()(X))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-6, 1e3])
def test_rows_of_any_scale_get_length_one_and_a_finite_gradient(
    scale: float, dtype: torch.dtype
) -> None:
    X = (scale * torch.ones(2, 4)).to(dtype).requires_grad_()
    Y = Sphere()(X)
    torch.testing.assert_close(Y, torch.full_like(Y, 0.5))
    if dtype != torch.float16 or scale != 1e-6:  # the exact one is beyond the range there
        (gradient,) = torch.autograd.grad(Y[:, 0].sum(), X)
        assert gradient.isfinite().all()


def test_length_of_rows_that_are_too_short_for_their_squares_is_right_all_the_same() -> None:
    for exponent in range(-45, 1):
        Y = Sphere()(torch.tensor([3.0, 4.0]) * 10.0**exponent)
        assert torch.linalg.vector_norm(Y).item() == pytest.approx(1, rel=1e-5), exponent


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradients_are_those_of_the_formula(dtype: torch.dtype) -> None:
    X = torch.randn(2, 3, dtype=dtype, requires_grad=True)
    for parametrization in (Sphere(2.0), Sphere(dim=None), Oblique()):
        assert torch.autograd.gradcheck(parametrization, X)
        assert torch.autograd.gradgradcheck(parametrization, X)


def test_vectors_of_the_length_are_kept_and_others_scaled() -> None:
    module = holder(Sphere(2.0), torch.tensor([[0.0, 2.0], [3.0, 4.0]]))
    torch.testing.assert_close(module.weight.detach(), torch.tensor([[0.0, 2.0], [1.2, 1.6]]))


def test_strict_refuses_another_length_and_tells_the_difference() -> None:
    module = holder(Sphere(2.0, strict=True), torch.tensor([[0.0, 2.0]]))
    with pytest.raises(ValueError, match="not of the given length: it deviates by 0.5,"):
        module.weight = torch.tensor([[3.0, 0.0]])
    assert chain_of(module).original.equal(torch.tensor([[0.0, 2.0]]))


@pytest.mark.parametrize("radius", [0.0, -1.0, math.inf, math.nan])
def test_radius_out_of_range_is_refused(radius: float) -> None:
    with pytest.raises(ValueError, match="radius must be positive and finite"):
        Sphere(radius)


@pytest.mark.parametrize("dim", [2, -3])
def test_dimension_that_the_weight_lacks_is_refused(dim: int) -> None:
    with pytest.raises(ValueError, match=rf"shape \[4, 3\] has no dimension {dim}"):
        holder(Sphere(dim=dim), torch.ones(4, 3))
    with pytest.raises(ValueError, match=r"shape \[3\] has no dimension -2"):
        holder(Oblique(), torch.ones(3))


def test_repr_shows_the_arguments() -> None:
    assert repr(Sphere(2.0)) == "Sphere(radius=2.0, dim=-1)"
    assert repr(Sphere(dim=None, strict=True)) == "Sphere(radius=1.0, dim=None, strict=True)"
    assert repr(Oblique()) == "Oblique(radius=1.0)"
