"""The polar factor in products alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from paramdesc.linalg.polar import nearest_orthonormal, polar


def of_condition(*shape: int, condition: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A matrix of this condition number, and its polar factor."""
    torch.manual_seed(0)
    U, _, Vh = torch.linalg.svd(torch.randn(shape, dtype=dtype), full_matrices=False)
    values = torch.logspace(0, -1, U.shape[-1], condition, dtype=torch.float64)
    return (U * values.to(dtype)) @ Vh, U @ Vh


SHAPES = [(1, 1), (4, 4), (7, 3), (3, 7), (2, 5, 5), (100, 100)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize("condition", [1.0, 10.0, 400.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_value_is_that_of_the_decomposition(
    shape: tuple[int, ...], condition: float, dtype: torch.dtype
) -> None:
    X, expected = of_condition(*shape, condition=condition, dtype=dtype)
    eps = torch.finfo(dtype).eps
    Y = polar(X)
    torch.testing.assert_close(Y, expected, rtol=0, atol=100 * condition * eps)
    tall = Y if Y.shape[-2] >= Y.shape[-1] else Y.mH
    error = tall.mH @ tall - torch.eye(tall.shape[-1], dtype=dtype)
    assert torch.linalg.matrix_norm(error).max() <= 20 * eps * tall.shape[-1] ** 0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_orthonormal_matrices_are_kept(shape: tuple[int, ...]) -> None:
    _, Q = of_condition(*shape, condition=1.0, dtype=torch.float32)
    torch.testing.assert_close(polar(Q), Q, rtol=0, atol=10 * torch.finfo(torch.float32).eps)


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
def test_scale_does_not_matter(scale: float) -> None:
    X, expected = of_condition(5, 4, condition=10.0, dtype=torch.float32)
    torch.testing.assert_close(polar(scale * X), expected)


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_derivatives(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    X = of_condition(*shape, condition=5.0, dtype=dtype)[0].requires_grad_()
    assert torch.autograd.gradcheck(polar, X)
    assert torch.autograd.gradgradcheck(polar, X, atol=1e-4)


def test_zero_is_kept_with_finite_gradient() -> None:
    X = torch.zeros(3, 3, requires_grad=True)
    Y = polar(X)
    assert not Y.any()
    (gradient,) = torch.autograd.grad(Y.sum(), X)
    assert gradient.isfinite().all()


def test_nearest_orthonormal_of_zero_is_some_orthonormal_matrix() -> None:
    Q = nearest_orthonormal(torch.zeros(4, 2))
    torch.testing.assert_close(Q.mT @ Q, torch.eye(2))
