"""Products of reflections."""

from __future__ import annotations

import pytest
import torch

from paramdesc.linalg.householder import householder, reflectors

SHAPES = [(1, 1), (4, 4), (6, 3), (5, 1), (2, 5, 4), (0, 4, 2), (3, 0)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_value_is_the_product_of_the_reflections_one_by_one(dtype: torch.dtype) -> None:
    V = torch.randn(6, 3, dtype=dtype)
    expected = torch.eye(6, dtype=dtype)
    for j in range(3):
        v = torch.zeros(6, 1, dtype=dtype)
        v[j], v[j + 1 :, 0] = 1, V[j + 1 :, j]
        expected = expected @ (torch.eye(6) - 2 * v @ v.mH / (v.mH @ v))
    torch.testing.assert_close(householder(V), expected[:, :3])


def test_real_value_is_torchs_product() -> None:
    V = torch.randn(5, 4, dtype=torch.float64)
    lower = V.tril(-1)
    tau = 2 / (1 + lower.square().sum(-2))
    torch.testing.assert_close(householder(V), torch.linalg.householder_product(lower, tau))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("shape", SHAPES)
def test_reflectors_give_back_what_is_orthonormal(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    Q = torch.linalg.qr(torch.randn(shape, dtype=dtype))[0]
    V, signs = reflectors(Q)
    assert not V.triu().any()
    torch.testing.assert_close(signs.abs(), torch.ones_like(signs.abs()))
    torch.testing.assert_close(householder(V) * signs, Q)


@pytest.mark.parametrize("n", [1, 3])
def test_reflectors_of_the_identity_and_its_negative(n: int) -> None:
    for sign in (1.0, -1.0):
        V, signs = reflectors(sign * torch.eye(n))
        assert not V.any()
        assert signs.eq(-sign).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_derivatives(dtype: torch.dtype) -> None:
    V = torch.randn(2, 4, 3, dtype=dtype, requires_grad=True)
    assert torch.autograd.gradcheck(householder, V)
    assert torch.autograd.gradgradcheck(householder, V)


def test_orthonormal_to_rounding_for_large_vectors() -> None:
    for scale in (1e-3, 1.0, 100.0):
        Q = householder(scale * torch.randn(200, 100)).double()
        error = torch.linalg.matrix_norm(Q.mT @ Q - torch.eye(100))
        assert error <= 20 * torch.finfo(torch.float32).eps * 10


def test_more_reflections_than_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"too many.*\[2, 3\]"):
        householder(torch.zeros(2, 3))
