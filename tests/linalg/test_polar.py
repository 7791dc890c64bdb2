"""The polar factor in products alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paramdesc import register_parametrization
from paramdesc.linalg import polar_factor
from paramdesc.linalg.polar import nearest_orthonormal, polar
from paramdesc.parametrizations import Orthogonal


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


def error_of(Y: Tensor) -> float:
    """The distance from orthonormal columns or rows, in units of eps sqrt(k)."""
    Y = Y.detach()
    W = Y.to(torch.complex128 if Y.is_complex() else torch.float64)
    W = W if W.shape[-2] >= W.shape[-1] else W.mH
    error = torch.linalg.matrix_norm(W.mH @ W - torch.eye(W.shape[-1], dtype=W.dtype))
    return float(error.max() / torch.finfo(Y.dtype).eps / W.shape[-1] ** 0.5)


def without_looking(X: Tensor) -> Tensor:
    """The value where nothing may depend on numbers."""
    Y: Tensor = torch.func.vmap(polar)(X.unsqueeze(0))[0]
    return Y


CONDITIONS = [
    (dtype, condition)
    for dtype in (torch.float32, torch.complex64, torch.float64, torch.complex128)
    for condition in (1.0, 1e2, 1e4, 1e6, 1e9, 1e12)
    if condition <= (1e6 if dtype in (torch.float32, torch.complex64) else 1e12)
]


@pytest.mark.parametrize("function", [polar, without_looking])
@pytest.mark.parametrize(("dtype", "condition"), CONDITIONS)
@pytest.mark.parametrize("shape", [(8, 8), (64, 64), (50, 20), (2, 5, 9)])
def test_ill_conditioned_matrices_become_orthonormal(
    shape: tuple[int, ...], dtype: torch.dtype, condition: float, function: Any
) -> None:
    X, expected = of_condition(*shape, condition=condition, dtype=dtype)
    Y = function(X)
    assert error_of(Y) <= 20
    atol = 100 * condition * torch.finfo(dtype).eps
    torch.testing.assert_close(Y, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", [polar, without_looking])
def test_large_random_matrices_become_orthonormal(dtype: torch.dtype, function: Any) -> None:
    torch.manual_seed(0)
    assert error_of(function(torch.randn(512, 512, dtype=dtype))) <= 20


def exact_gradient(X: Tensor, G: Tensor) -> Tensor:
    """By the singular value decomposition, in double precision."""
    wide = torch.complex128 if X.is_complex() else torch.float64
    U, S, Vh = torch.linalg.svd(X.detach().to(wide), full_matrices=False)
    G = G.to(wide)
    C = U.mH @ G @ Vh.mH
    along = U @ ((C - C.mH) / (S[..., :, None] + S[..., None, :])) @ Vh
    gradient: Tensor = along + (G - U @ (U.mH @ G)) @ Vh.mH / S[..., None, :] @ Vh
    return gradient


@pytest.mark.parametrize("is_one_small", [False, True])
@pytest.mark.parametrize(("dtype", "condition"), CONDITIONS)
@pytest.mark.parametrize("shape", [(8, 8), (64, 64), (30, 12), (12, 30)])
def test_gradient_of_ill_conditioned_matrices(
    shape: tuple[int, ...], dtype: torch.dtype, condition: float, is_one_small: bool
) -> None:
    X, _ = of_condition(*shape, condition=condition, dtype=dtype)
    if is_one_small:  # then the derivative is bounded for square real matrices
        U, S, Vh = torch.linalg.svd(X, full_matrices=False)
        S[:-1] = 1
        X = (U * S) @ Vh
    G = torch.randn(shape, dtype=dtype)
    X.requires_grad_()
    (gradient,) = torch.autograd.grad(polar(X), X, G)
    exact = exact_gradient(
        X.mH if shape[-2] < shape[-1] else X, G.mH if X.shape[-2] < X.shape[-1] else G
    )
    exact = exact.mH if shape[-2] < shape[-1] else exact
    error = (gradient - exact).norm() / exact.norm()
    assert error <= torch.finfo(dtype).eps * (10 * condition + 3000)


SINGULAR = {
    "ones": torch.ones(6, 6),
    "tall ones": torch.ones(6, 4),
    "a zero column": torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]),
    "a nilpotent matrix": torch.diag(torch.ones(4), 1),
    "a product of low rank": torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    @ torch.randn(3, 40, generator=torch.Generator().manual_seed(1)),
    "a batch": torch.stack([torch.ones(3, 3), torch.eye(3), torch.diag(torch.tensor([1.0, 0, 0]))]),
    "vanishing numbers": torch.diag(torch.tensor([1e30, 1.0, 1e-30])),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SINGULAR)
def test_singular_matrices_become_orthonormal_with_finite_gradient(
    name: str, dtype: torch.dtype
) -> None:
    X = SINGULAR[name].to(dtype).requires_grad_()
    Y = polar(X)
    assert error_of(Y) <= 20
    (gradient,) = torch.autograd.grad(Y.sum(), X)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SINGULAR)
def test_singular_matrices_tell_where_no_one_may_look(name: str, dtype: torch.dtype) -> None:
    X = SINGULAR[name].to(dtype)
    Y = without_looking(X)
    assert Y.isnan().any() or error_of(Y) <= 20


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may depend on numbers in eager code either, as on a GPU."""
    monkeypatch.setattr(polar_factor, "may_look_at", lambda _: False)


@pytest.mark.usefixtures("blind")
@pytest.mark.parametrize(("dtype", "condition"), CONDITIONS)
@pytest.mark.parametrize("shape", [(8, 8), (30, 12)])
def test_value_and_gradient_as_on_a_gpu(
    shape: tuple[int, ...], dtype: torch.dtype, condition: float
) -> None:
    X, expected = of_condition(*shape, condition=condition, dtype=dtype)
    G = torch.randn(shape, dtype=dtype)
    Y = polar(X.requires_grad_())
    assert error_of(Y) <= 20
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(Y.detach(), expected, rtol=0, atol=100 * condition * eps)
    (gradient,) = torch.autograd.grad(Y, X, G)
    exact = exact_gradient(X, G)
    assert (gradient - exact).norm() <= eps * (10 * condition + 3000) * exact.norm()


@pytest.mark.usefixtures("blind")
def test_singular_matrices_are_nan_on_a_gpu_and_zero_is_not() -> None:
    X = torch.stack([torch.ones(3, 3), torch.zeros(3, 3), torch.diag(torch.tensor([3.0, 2, 1]))])
    for complete in (False, True):
        Y = polar(X.clone().requires_grad_(), complete)
        assert Y[0].isnan().all()
        torch.testing.assert_close(Y[1], complete * torch.eye(3))
        torch.testing.assert_close(Y[2], torch.eye(3))


@pytest.mark.usefixtures("blind")
def test_derivatives_as_on_a_gpu() -> None:
    X = of_condition(5, 3, condition=5.0, dtype=torch.float64)[0].requires_grad_()
    assert torch.autograd.gradcheck(polar, X)
    assert torch.autograd.gradgradcheck(polar, X, atol=1e-4)


def test_orthogonal_polar_of_zero_is_the_identity_and_learns() -> None:
    layer: Any = register_parametrization(nn.Linear(3, 3), "weight", Orthogonal("polar"))
    with torch.no_grad():
        layer.parametrizations.weight.original.zero_()
    torch.testing.assert_close(layer.weight, torch.eye(3))
    layer.weight[0, 1].backward()
    assert layer.parametrizations.weight.original.grad.any()


@pytest.mark.parametrize("function", [polar, torch.func.vmap(polar)])
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_what_is_not_finite_becomes_nan_and_nothing_else_of_a_batch(
    function: Any, wrong: float
) -> None:
    X = torch.stack([of_condition(4, 4, condition=1e5, dtype=torch.float32)[0]] * 2)
    X[0, 1, 2] = wrong
    Y = function(X)
    assert Y[0].isnan().all()
    assert error_of(Y[1]) <= 20


def test_zero_becomes_the_identity_if_it_is_asked_for() -> None:
    X = torch.zeros(2, 4, 3, requires_grad=True)
    Y = polar(X, complete=True)
    torch.testing.assert_close(Y, torch.eye(4, 3).expand(2, 4, 3))
    (gradient,) = torch.autograd.grad(Y[..., 0, 1].sum(), X)
    assert 0 < gradient.abs().max() < 2
    ill, expected = of_condition(4, 3, condition=1e5, dtype=torch.float32)
    mixed = polar(torch.stack([torch.zeros(4, 3), ill]), complete=True)
    torch.testing.assert_close(mixed[0], torch.eye(4, 3))
    assert error_of(mixed) <= 20
    torch.testing.assert_close(mixed[1], expected, rtol=0, atol=0.1)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch uses it itself
def test_forward_mode_agrees() -> None:
    X = of_condition(5, 3, condition=50.0, dtype=torch.float64)[0].requires_grad_()
    assert torch.autograd.gradcheck(polar, X, check_forward_ad=True)
    assert torch.autograd.gradcheck(without_looking, X, check_forward_ad=True)


def test_nearest_orthonormal_of_zero_is_some_orthonormal_matrix() -> None:
    Q = nearest_orthonormal(torch.zeros(4, 2))
    torch.testing.assert_close(Q.mT @ Q, torch.eye(2))
