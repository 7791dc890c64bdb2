"""The matrix exponential by products."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from paramdesc.linalg.exponential import exponential, series, skew_exp


def skew(*shape: int, dtype: torch.dtype = torch.float64, norm: float = 1.0) -> Tensor:
    """A random skew-Hermitian matrix of this spectral norm, or zero if there is no other."""
    torch.manual_seed(0)
    X = torch.randn(shape, dtype=dtype)
    A = X - X.mH
    if not A.any():
        return A
    scaled: Tensor = A * (norm / torch.linalg.matrix_norm(A, 2, keepdim=True))
    return scaled


def test_series_is_that_of_the_exponential_up_to_degree_18() -> None:
    N = torch.diag(torch.ones(18, dtype=torch.float64), 1)  # its powers hold one coefficient each
    powers = [torch.linalg.matrix_power(N, p) for p in (1, 2, 3, 6)]
    found = series((powers[0], powers[1], powers[2], powers[3]), 1.0)[0]
    exact = (-torch.lgamma(torch.arange(1, 20, dtype=torch.float64))).exp()
    torch.testing.assert_close(found, exact, rtol=1e-13, atol=1e-29)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("norm", [0.0, 1e-300, 1e-3, 1.0, 3.0, 30.0])
def test_exponential_is_torchs(norm: float, dtype: torch.dtype) -> None:
    A = torch.randn(2, 6, 6, dtype=dtype)
    A = A * (norm / torch.linalg.matrix_norm(A, 2, keepdim=True))
    torch.testing.assert_close(exponential(A), torch.matrix_exp(A), rtol=1e-11, atol=1e-12)


def test_powers_that_vanish_do_not_fool_the_count_of_squarings() -> None:
    A = torch.tensor([[1.0, 1e6, 0.0], [0.0, 1.0, 1e3], [0.0, 0.0, -2.0]], dtype=torch.float64)
    e, small = math.e, math.exp(-2)
    corner = 1e9 * (e - (e - small) / 3) / 3  # the divided difference of exp at 1, 1 and -2
    expected = torch.tensor(
        [[e, 1e6 * e, corner], [0, e, 1e3 * (e - small) / 3], [0, 0, small]], dtype=torch.float64
    )
    torch.testing.assert_close(exponential(A), expected, rtol=1e-10, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize("norm", [0.1, 1.0, 10.0, 100.0])
def test_exponential_of_skew_matrices_is_unitary_to_rounding(
    norm: float, dtype: torch.dtype
) -> None:
    Q = skew_exp(skew(100, 100, dtype=dtype, norm=norm)).to(torch.complex128)
    identity = torch.eye(100, dtype=torch.complex128)
    assert torch.linalg.matrix_norm(Q.mH @ Q - identity) <= 20 * torch.finfo(dtype).eps * 10


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_derivatives_are_those_of_the_exponential(dtype: torch.dtype) -> None:
    X = (2 * torch.randn(2, 3, 3, dtype=dtype)).requires_grad_()

    def through_skew(X: Tensor) -> Tensor:
        return skew_exp(X - X.mH)

    for function in (exponential, through_skew):
        assert torch.autograd.gradcheck(function, X)
        assert torch.autograd.gradgradcheck(function, X)


def test_gradient_is_torchs_after_several_squarings() -> None:
    X, G = torch.randn(20, 20, dtype=torch.float64), torch.randn(20, 20, dtype=torch.float64)
    X.requires_grad_()
    (ours,) = torch.autograd.grad(skew_exp(X - X.mT), X, G)
    (theirs,) = torch.autograd.grad(torch.matrix_exp(X - X.mT), X, G)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script` is deprecated:DeprecationWarning"
)  # torch's own
def test_function_transforms_give_the_same() -> None:
    A = skew(3, 4, 4)
    torch.testing.assert_close(torch.vmap(skew_exp)(A), skew_exp(A))
    jacobian = torch.func.jacfwd(skew_exp)(A[0])
    torch.testing.assert_close(torch.func.jacrev(skew_exp)(A[0]), jacobian)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    A = skew(5, 5, dtype=torch.float32).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        Y = skew_exp(A)
    assert Y.equal(skew_exp(A.float()).to(dtype))


def test_what_is_no_number_stays_none() -> None:
    assert exponential(torch.full((2, 2), torch.nan)).isnan().all()


def test_empty_and_meta_matrices() -> None:
    assert skew_exp(torch.empty(0, 3, 3)).shape == (0, 3, 3)
    assert skew_exp(torch.empty(0, 0)).shape == (0, 0)
    assert skew_exp(torch.empty(2, 3, 3, device="meta")).shape == (2, 3, 3)
