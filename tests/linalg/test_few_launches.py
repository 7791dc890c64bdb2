"""The algorithms for devices where each operation costs the host time, on a CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from paramdesc.linalg import cayley_on_gpu, devices
from paramdesc.linalg.cayley import cayley
from paramdesc.linalg.exponential import exponential, skew_exp
from paramdesc.linalg.householder import householder_like, reflect
from paramdesc.linalg.orthogonality import cayley_across, cayley_from, turned, turned_by
from paramdesc.linalg.polar import polar
from tests.linalg.test_polar import CONDITIONS, error_of, exact_gradient, of_condition

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script` is deprecated:DeprecationWarning"  # torch's own
)

REAL_AND_COMPLEX = [torch.float64, torch.complex128]


def skew(X: Tensor) -> Tensor:
    return X - X.mH


def random(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype)


def orthonormal(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    if shape[-2] < shape[-1]:
        return orthonormal(*shape[:-2], shape[-1], shape[-2], dtype=dtype).mH.resolve_conj()
    Q: Tensor = torch.linalg.qr(random(*shape, dtype=dtype)).Q
    return Q


def cases(dtype: torch.dtype) -> dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]]:
    """Functions that choose an algorithm by the device, and tensors to differentiate them for."""
    torch.manual_seed(0)
    square, tall, wide = ((3, 3), (5, 3), (2, 4))
    base, stack = orthonormal(*square, dtype=dtype), orthonormal(2, *square, dtype=dtype)
    high, low = orthonormal(*tall, dtype=dtype), orthonormal(*wide, dtype=dtype)
    return {
        "cayley": (lambda X: cayley(skew(X)), (random(*square, dtype=dtype),)),
        "turned": (turned, (base, random(*square, dtype=dtype))),
        "turned, batch": (turned, (stack, random(2, *square, dtype=dtype))),
        "turned, batches": (turned, (stack[None], random(2, 2, *square, dtype=dtype))),
        "turned by": (lambda B, X: turned_by(B, skew(X)), (base, random(*square, dtype=dtype))),
        "step, tall": (lambda X: cayley_from(high, X), (random(*tall, dtype=dtype),)),
        "step, wide": (lambda X: cayley_from(low, X), (random(*wide, dtype=dtype),)),
        "step, batch": (
            lambda X: cayley_from(high.expand(2, 5, 3), X),
            (random(2, *tall, dtype=dtype),),
        ),
        "reflections": (householder_like, (random(*square, dtype=dtype),)),
        "reflections, tall": (householder_like, (random(*tall, dtype=dtype),)),
        "reflections, wide": (householder_like, (random(*wide, dtype=dtype),)),
        "reflections, batch": (householder_like, (random(2, *tall, dtype=dtype),)),
        "exponential": (exponential, (3 * random(*square, dtype=dtype),)),
        "exponential, batch": (
            exponential,
            (random(2, *square, dtype=dtype) * torch.tensor([0.1, 9.0])[:, None, None],),
        ),
        "exponential of skew": (lambda X: skew_exp(4 * skew(X)), (random(*square, dtype=dtype),)),
        "reflect": (lambda Y: reflect(high, Y), (random(*tall, dtype=dtype),)),
        "reflect, batch": (
            lambda Y: reflect(high.expand(2, 5, 3), Y),
            (random(2, *tall, dtype=dtype),),
        ),
        "polar": (polar, (random(*square, dtype=dtype),)),
        "polar, tall": (polar, (random(*tall, dtype=dtype),)),
        "polar, wide": (polar, (random(*wide, dtype=dtype),)),
        "polar, batch": (polar, (random(2, *tall, dtype=dtype),)),
        "across": (lambda X: cayley_across(high, X), (random(*tall, dtype=dtype),)),
    }


@pytest.mark.parametrize("dtype", REAL_AND_COMPLEX)
@pytest.mark.parametrize("name", cases(torch.float64))
def test_values_and_gradients_are_those_on_a_cpu(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    function, inputs = cases(dtype)[name]
    inputs = tuple(x.requires_grad_() for x in inputs)
    expected = function(*inputs)
    G = torch.randn_like(expected)
    gradients = torch.autograd.grad(expected, inputs, G)
    monkeypatch.setattr(devices, "COUNTED_BY_SIZE", set())
    value = function(*inputs)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value, inputs, G), gradients)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("dtype", REAL_AND_COMPLEX)
@pytest.mark.parametrize("name", cases(torch.float64))
def test_derivatives_of_both_orders(name: str, dtype: torch.dtype) -> None:
    function, inputs = cases(dtype)[name]
    inputs = tuple(x.requires_grad_() for x in inputs)
    assert torch.autograd.gradcheck(
        function, inputs, check_forward_ad=True, check_batched_grad=True
    )
    assert torch.autograd.gradgradcheck(function, inputs, atol=1e-4)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("norm", [0.1, 1.0, 10.0, 30.0])
@pytest.mark.parametrize("n", [16, 64, 300])
def test_cayley_of_any_usual_norm_is_orthogonal_to_rounding(n: int, norm: float) -> None:
    A = skew(random(n, n, dtype=torch.float32))
    A = A * (norm / torch.linalg.matrix_norm(A, 2))
    base = orthonormal(n, n, dtype=torch.float32)
    for Q in (cayley(A), turned_by(base, A), turned(base, A)):
        error = torch.linalg.matrix_norm(Q.mT.double() @ Q.double() - torch.eye(n))
        assert error <= 20 * torch.finfo(torch.float32).eps * n**0.5


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", [0.0, 1e-30, 0.1, 3.0, 30.0, 300.0])
def test_exponential_has_few_rounding_errors_at_any_norm(norm: float, dtype: torch.dtype) -> None:
    A = skew(random(40, 40, dtype=dtype))
    A = A * (norm / torch.linalg.matrix_norm(A, 2))
    eps = torch.finfo(dtype).eps
    expected = torch.matrix_exp(A.double())
    assert (exponential(A) - expected).abs().max() <= 20 * eps * max(1.0, norm)
    Q = skew_exp(A).double()
    error = torch.linalg.matrix_norm(Q.mT @ Q - torch.eye(40))
    assert error <= 20 * eps * 40**0.5


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("entry", [torch.nan, torch.inf, 1e30, 2e4])
def test_exponential_without_enough_squarings_is_no_number(entry: float) -> None:
    A = torch.tensor([[0.0, -entry], [entry, 0.0]]).requires_grad_()
    Y = exponential(A)
    assert Y.isnan().all()
    small = exponential(torch.stack([A.detach(), torch.zeros(2, 2)]))[1]  # others are as they are
    assert small.equal(torch.eye(2))


@pytest.mark.usefixtures("as_on_a_gpu")
def test_function_transforms_take_operations_that_they_know() -> None:
    X = random(2, 4, 4)
    for function in (lambda X: skew_exp(skew(X)), lambda X: cayley(skew(X)), householder_like):
        torch.testing.assert_close(torch.vmap(function)(X), function(X))
        jacobian = torch.func.jacfwd(function)(X[0])
        torch.testing.assert_close(torch.func.jacrev(function)(X[0]), jacobian)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    X = random(5, 5, dtype=torch.float32).to(dtype)
    for function in (lambda X: skew_exp(skew(X)), lambda X: cayley(skew(X)), householder_like):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            Y = function(X)
        torch.testing.assert_close(Y, function(X.float()).to(dtype), rtol=1e-2, atol=1e-2)
        assert Y.dtype == dtype


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize(("dtype", "condition"), CONDITIONS)
@pytest.mark.parametrize("shape", [(8, 8), (64, 64), (50, 20), (2, 5, 9)])
def test_polar_factor_and_gradient_of_any_condition(
    shape: tuple[int, ...], dtype: torch.dtype, condition: float
) -> None:
    X, expected = of_condition(*shape, condition=condition, dtype=dtype)
    X.requires_grad_()
    Y = polar(X)
    eps = torch.finfo(dtype).eps
    assert error_of(Y) <= 20
    torch.testing.assert_close(Y, expected, rtol=0, atol=100 * condition * eps)
    G = torch.randn_like(X)
    (gradient,) = torch.autograd.grad(Y, X, G)
    exact = exact_gradient(X, G) if shape[-2] >= shape[-1] else exact_gradient(X.mH, G.mH).mH
    assert (gradient - exact).norm() / exact.norm() <= eps * (10 * condition + 3000)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("condition", [1.0, 10.0, 1e3, 1e5])
@pytest.mark.parametrize("shape", [(8, 8), (64, 64), (50, 20), (2, 5, 9)])
def test_polar_factor_in_half_precision(
    shape: tuple[int, ...], condition: float, dtype: torch.dtype
) -> None:
    X = of_condition(*shape, condition=condition, dtype=torch.float32)[0].to(dtype)
    X.requires_grad_()
    Y = polar(X)
    assert Y.dtype == dtype
    assert error_of(Y) <= 4
    (gradient,) = torch.autograd.grad(Y, X, torch.randn_like(X))
    assert gradient.isfinite().all()
    if condition <= 10:
        atol = 4 * condition * torch.finfo(dtype).eps
        torch.testing.assert_close(Y.float(), polar(X.float()), rtol=0, atol=atol)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_polar_factor_of_zero_in_a_batch(dtype: torch.dtype, complete: bool) -> None:
    X = torch.stack([torch.zeros(3, 2), 2 * torch.eye(3, 2)]).to(dtype).requires_grad_()
    Y = polar(X, complete=complete)
    eye = torch.eye(3, 2, dtype=dtype)
    torch.testing.assert_close(Y, torch.stack([eye if complete else 0 * eye, eye]))
    assert torch.autograd.grad(Y.sum(), X)[0].isfinite().all()
    assert polar(torch.full((3, 2), torch.nan, dtype=dtype)).isnan().all()


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(64, 64), (50, 20)])
def test_gradient_of_the_polar_factor_in_half_precision(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    X = of_condition(*shape, condition=5.0, dtype=torch.float32)[0].to(dtype)
    X.requires_grad_()
    G = torch.randn(shape).to(dtype)
    (gradient,) = torch.autograd.grad(polar(X), X, G)
    exact = exact_gradient(X, G)
    assert (gradient - exact).norm() / exact.norm() <= 4 * torch.finfo(dtype).eps


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("dtype", REAL_AND_COMPLEX)
def test_derivatives_of_the_cayley_transform_by_cholesky(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cayley_on_gpu, "LARGEST_FOR_LU", 0)
    base, X = orthonormal(3, 3, dtype=dtype), random(3, 3, dtype=dtype)
    X.requires_grad_()
    assert torch.autograd.gradcheck(lambda X: turned(base, X), X)
    assert torch.autograd.gradgradcheck(lambda X: turned(base, X), X)
