"""The largest singular triple, against the full decomposition of torch.linalg."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from paramdesc.linalg.singular import largest_singular_triple
from paramdesc.linalg.singular_iteration import improve_triple
from paramdesc.linalg.singular_on_cpu import improve_on_cpu, leading_of_bidiagonal

SHAPES = [(5, 3), (3, 5), (40, 40), (2, 3, 20, 30), (1, 1), (1, 7), (7, 1)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_triple_of_the_full_decomposition(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    M = torch.randn(shape, dtype=dtype)
    sigma, u, v = largest_singular_triple(M, tolerance=1e-14)
    assert sigma.dtype == torch.float64
    torch.testing.assert_close(sigma, torch.linalg.matrix_norm(M, 2), rtol=1e-12, atol=0)
    image = (M @ v.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(image, sigma.unsqueeze(-1) * u, rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.linalg.vector_norm(u, dim=-1), torch.ones_like(sigma))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_is_iterated_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    M = torch.randn(20, 10).to(dtype)
    sigma, u, _ = largest_singular_triple(M)
    assert sigma.dtype == u.dtype == dtype
    exact = torch.linalg.matrix_norm(M.double(), 2)
    assert abs(sigma.double() / exact - 1) < 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 2, 2)])
def test_empty_matrices_have_the_value_zero(shape: tuple[int, ...]) -> None:
    sigma, u, v = largest_singular_triple(torch.empty(shape))
    assert sigma.shape == shape[:-2]
    assert not sigma.any()
    assert u.shape == shape[:-1]
    assert v.shape == (*shape[:-2], shape[-1])


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-15, 1.0, 1e30])
def test_scale_does_not_matter(scale: float) -> None:
    torch.manual_seed(0)
    M = (torch.randn(20, 20) * scale).requires_grad_()
    sigma, u, v = largest_singular_triple(M)
    exact = torch.linalg.matrix_norm(M.detach().double(), 2).item()
    assert sigma.item() == pytest.approx(exact, rel=1e-5)
    assert u.norm().item() == pytest.approx(1, rel=1e-5)
    assert v.norm().item() == pytest.approx(1, rel=1e-5)
    torch.autograd.backward(sigma)
    assert M.grad is not None
    assert M.grad.isfinite().all()


def test_gradient_is_that_of_the_norm() -> None:
    torch.manual_seed(0)
    M = torch.randn(3, 6, 4, dtype=torch.float64, requires_grad=True)

    def value(X: Tensor) -> Tensor:
        return largest_singular_triple(X, tolerance=1e-15)[0]

    assert torch.autograd.gradcheck(value, M)
    _, u, v = largest_singular_triple(M)
    assert not u.requires_grad
    assert not v.requires_grad


def test_gradient_is_finite_where_the_value_is_a_multiple_one() -> None:
    M = torch.eye(4, requires_grad=True)
    sigma, u, v = largest_singular_triple(M)
    torch.autograd.backward(sigma)
    torch.testing.assert_close(M.grad, torch.outer(u, v))
    assert sigma.item() == pytest.approx(1)


def test_a_good_start_takes_few_iterations() -> None:
    torch.manual_seed(0)
    M = torch.randn(50, 50, dtype=torch.float64)
    _, u, v = largest_singular_triple(M, iterations=50)
    moved = M + 1e-3 * torch.randn_like(M)
    exact = torch.linalg.matrix_norm(moved, 2)

    def error(*start: Tensor) -> Any:
        found = largest_singular_triple(moved, *start, iterations=3, tolerance=None)[0]
        return abs(found / exact - 1).item()

    assert error(3 * u, 2 * v) < 1e-6 < 1e-3 < error()


def test_one_iteration_is_a_power_iteration() -> None:
    torch.manual_seed(0)
    M, start = torch.randn(6, 5, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
    _, u, v = largest_singular_triple(M, v=start, iterations=1, tolerance=None)
    left = M @ start / (M @ start).norm()
    torch.testing.assert_close(u, left)
    torch.testing.assert_close(v, M.T @ left / (M.T @ left).norm())


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_fast_path_gives_the_same(count: int) -> None:
    torch.manual_seed(0)
    M = torch.randn(30, 20, dtype=torch.float64)
    u, v = torch.randn(30, dtype=torch.float64), torch.randn(20, dtype=torch.float64)
    u, v = u / u.norm(), v / v.norm()
    found = improve_on_cpu(M, v, count)
    assert found is not None
    expected = improve_triple(M.mv, M.T.mv, u, v, count)
    for fast, slow in zip(found, expected, strict=True):
        torch.testing.assert_close(fast * (fast @ slow).sign(), slow)


def test_the_fast_path_stays_with_a_solution_that_it_has() -> None:
    torch.manual_seed(0)
    M = torch.randn(30, 20)
    _, _, v = largest_singular_triple(M)
    exact = torch.linalg.matrix_norm(M.double(), 2).item()
    for _ in range(100):
        found = improve_on_cpu(M, v, 4)
        assert found is not None
        u, v = found
        assert (u @ M @ v).item() == pytest.approx(exact, rel=1e-6)
        assert v.norm().item() == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("count", range(2, 5))
def test_small_bidiagonal_matrices_are_solved_exactly(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    for _ in range(50):
        logarithms = -6 * torch.rand(2, count, dtype=torch.float64, generator=generator)
        alphas, betas = (logarithms.exp() + 1e-3).tolist()
        B = torch.zeros(count, count + 1, dtype=torch.float64)
        for i in range(count):
            B[i, i], B[i, i + 1] = alphas[i], betas[i]
        left = torch.tensor(leading_of_bidiagonal(alphas, betas), dtype=torch.float64)
        value = (B.T @ left).norm() / left.norm()
        torch.testing.assert_close(value, torch.linalg.matrix_norm(B, 2), rtol=1e-9, atol=0)


def test_wrong_arguments_are_refused_by_name() -> None:
    M = torch.eye(3)
    with pytest.raises(ValueError, match="iterations"):
        largest_singular_triple(M, iterations=0)
    with pytest.raises(ValueError, match="tolerance"):
        largest_singular_triple(M, tolerance=0.0)
    with pytest.raises(ValueError, match=r"\(\*, m, n\)"):
        largest_singular_triple(torch.ones(3))


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (2, 2)])
def test_what_rounding_leaves_of_a_matrix_of_rank_one_is_not_followed(
    shape: tuple[int, int],
) -> None:
    torch.manual_seed(0)
    left, right = (torch.nn.functional.normalize(torch.randn(n), dim=0) for n in shape)
    M = 3 * torch.outer(left, right)
    start = torch.nn.functional.normalize(right + 0.05 * torch.randn(shape[1]), dim=0)
    found = improve_on_cpu(M, start, 3)
    assert found is not None
    torch.testing.assert_close(torch.dot(found[0], left).abs(), torch.tensor(1.0))
    torch.testing.assert_close(torch.dot(found[1], right).abs(), torch.tensor(1.0))
