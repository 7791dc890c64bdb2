"""The Cayley transform and the inverse by blocks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from paramdesc.linalg.cayley import BLOCK, Division, Inverse, cayley, divide, inverse

DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]
SIZES = [0, 1, 3, BLOCK, BLOCK + 1, 2 * BLOCK + 30, 300]


def skew(*shape: int, dtype: torch.dtype = torch.float64, norm: float = 1.0) -> Tensor:
    """A random skew-Hermitian matrix of this spectral norm, or zero if there is no other."""
    torch.manual_seed(0)
    X = torch.randn(shape, dtype=dtype)
    A = X - X.mH
    if not A.any():
        return A
    scaled: Tensor = A * (norm / torch.linalg.matrix_norm(A, 2, keepdim=True))
    return scaled


def positive(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """A matrix whose Hermitian part is at least the identity."""
    A = skew(*shape, dtype=dtype, norm=3.0)
    return torch.eye(shape[-1], dtype=dtype) + A + A.mH @ A / 4


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
def test_inverse_is_that_of_lapack(n: int, dtype: torch.dtype) -> None:
    T = positive(2, n, n, dtype=dtype)
    torch.testing.assert_close(inverse(T), torch.linalg.inv(T))


@pytest.mark.parametrize("n", [3, 100])
def test_quotient_and_its_gradients_are_those_of_the_formula(n: int) -> None:
    T = positive(n, n).requires_grad_()
    B = torch.randn(2, n, dtype=torch.float64, requires_grad=True)
    G = torch.randn(2, n, dtype=torch.float64)
    expected = B @ torch.linalg.inv(T)
    torch.testing.assert_close(divide(B, T), expected)
    ours = torch.autograd.grad(divide(B, T), (B, T), G)
    torch.testing.assert_close(ours, torch.autograd.grad(expected, (B, T), G))


@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script` is deprecated:DeprecationWarning"
)  # torch's own
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_derivatives_of_both_functions_in_all_modes(dtype: torch.dtype) -> None:
    T = positive(3, 3, dtype=dtype).requires_grad_()
    B = torch.randn(2, 3, dtype=dtype, requires_grad=True)
    for function, inputs in ((Inverse.apply, (T,)), (Division.apply, (B, T))):
        assert torch.autograd.gradcheck(
            function, inputs, check_forward_ad=True, check_batched_grad=True
        )
        assert torch.autograd.gradgradcheck(function, inputs)


def test_function_transforms_go_through_the_blocks() -> None:
    T = positive(3, 70, 70)
    B = torch.randn(2, 70, dtype=torch.float64)
    together = torch.vmap(divide, in_dims=(None, 0))(B, T)
    torch.testing.assert_close(together, B @ torch.linalg.inv(T))

    def total(T: Tensor) -> Tensor:
        return inverse(T).square().sum()

    expected = torch.vmap(torch.func.grad(lambda T: torch.linalg.inv(T).square().sum()))(T)
    torch.testing.assert_close(torch.vmap(torch.func.grad(total))(T), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("n", [1, 5, 100])
def test_cayley_is_its_formula(n: int, dtype: torch.dtype) -> None:
    A = skew(2, n, n, dtype=dtype)
    identity = torch.eye(n, dtype=dtype)
    expected = torch.linalg.solve(identity - A / 2, identity + A / 2)
    torch.testing.assert_close(cayley(A), expected)


@pytest.mark.parametrize("norm", [1.0, 10.0, 30.0])
@pytest.mark.parametrize("n", [64, 300])
def test_cayley_of_large_matrices_is_orthogonal_to_rounding(n: int, norm: float) -> None:
    Q = cayley(skew(n, n, dtype=torch.float32, norm=norm)).double()
    error = torch.linalg.matrix_norm(Q.mT @ Q - torch.eye(n))
    assert error <= 20 * torch.finfo(torch.float32).eps * n**0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    A = skew(5, 5, dtype=torch.float32).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        Y = cayley(A)
    assert Y.equal(cayley(A.float()).to(dtype))


def test_matrix_that_is_not_square_is_refused() -> None:
    with pytest.raises(ValueError, match=r"square.*\[3, 2\]"):
        cayley(torch.zeros(3, 2))
