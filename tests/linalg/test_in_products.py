"""Inverses in matrix products are as accurate as those of LAPACK."""

from __future__ import annotations

import pytest
import torch

from paramdesc.linalg.householder import triangle
from paramdesc.linalg.in_products import inverse_in_products, triangular_inverse_in_products


@pytest.mark.parametrize("n", [0, 1, 4, 33, 150])
@pytest.mark.parametrize("size", [0.1, 1.0, 30.0, 1000.0])
def test_an_inverse_as_the_cayley_transform_needs_it(n: int, size: float) -> None:
    torch.manual_seed(0)
    A = torch.randn(2, n, n)
    A = A - A.mT
    if n > 1:
        A = A * (size / torch.linalg.matrix_norm(A, 2, keepdim=True))
    T = torch.eye(n) - A / 2
    exact = torch.linalg.inv(T.double())
    found = inverse_in_products(T)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=2e-6)


@pytest.mark.parametrize("k", [0, 1, 2, 3, 8, 50, 129])
@pytest.mark.parametrize("size", [0.1, 1.0, 30.0])
def test_a_triangular_inverse_as_reflections_need_it(k: int, size: float) -> None:
    torch.manual_seed(0)
    V = size * torch.randn(2, k + 3, k) / (k + 1) ** 0.5
    S = triangle(V.tril(-1) + torch.eye(k + 3, k))
    exact = torch.linalg.inv(S.double())
    found = triangular_inverse_in_products(S + torch.ones(k, k).tril(-1))
    scale = float(exact.abs().max()) if k else 1.0
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=3e-6 * scale)
    assert torch.equal(found, found.triu())
