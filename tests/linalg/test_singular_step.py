"""Steps towards the leading singular vectors, by each of the algorithms that a device may take."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from paramdesc.linalg.singular_chebyshev import (
    improve_by_chebyshev,
    products_of_map,
    products_of_matrix,
)
from paramdesc.linalg.singular_gram import improve_by_gram, is_medium
from paramdesc.linalg.singular_squaring import improve_by_squaring
from paramdesc.linalg.singular_step import improve_pair, improve_pair_of_map
from tests.linalg.operations import operations

Step = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

STEPS: dict[str, Step] = {
    "polynomial": lambda M, u, v: improve_by_chebyshev(products_of_matrix(M), u, v, 3),
    "polynomial of a map": lambda M, u, v: improve_by_chebyshev(
        products_of_map(lambda x: M @ x, lambda y: M.mH @ y), u, v, 3
    ),
    "Gram matrix": lambda M, u, v: improve_by_gram(M, u, v, 3),
    "squaring": improve_by_squaring,
}


def start(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    u, v = (torch.randn(n, dtype=dtype) for n in shape)
    return torch.randn(shape, dtype=dtype), u / u.norm(), v / v.norm()


def error(M: Tensor, u: Tensor, v: Tensor) -> Any:
    """The relative error of the largest singular value that these vectors give."""
    value = torch.vdot(u, M @ v).real.double()
    return abs(value / torch.linalg.matrix_norm(M.to(torch.complex128), 2) - 1).item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (1, 7), (7, 1), (1, 1), (2, 2)])
@pytest.mark.parametrize("name", STEPS)
def test_a_few_steps_find_the_leading_vectors(
    name: str, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    if name == "Gram matrix" and dtype.is_complex:
        pytest.skip("for real matrices")
    M, u, v = start(*shape, dtype=dtype)
    for _ in range(10):
        u, v = STEPS[name](M, u, v)
    assert error(M, u, v) < 1e-5
    for x in (u, v):
        assert x.dtype == dtype
        assert torch.linalg.vector_norm(x).item() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_scale_of_the_matrix_does_not_matter(name: str, scale: float) -> None:
    M, u, v = start(30, 20)
    expected = STEPS[name](M, u, v)
    for found, vector in zip(STEPS[name](M * scale, u, v), expected, strict=True):
        torch.testing.assert_close(found, vector, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
@pytest.mark.parametrize("name", STEPS)
def test_the_last_solution_stays_where_there_is_none(name: str, value: float) -> None:
    _, u, v = start(5, 4)
    found = STEPS[name](torch.full((5, 4), value), u, v)
    torch.testing.assert_close(found, (u, v))


@pytest.mark.parametrize("name", STEPS)
def test_a_solution_that_has_become_small_is_left(name: str) -> None:
    """The polynomial overflows, and a power iteration takes its place."""
    M = torch.diag(torch.tensor([1e-6, 1.0, 0.1]))
    u, v = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 1e-12, 0.0])
    if name in ("squaring", "Gram matrix"):  # from the side that is as good
        u = v
    for _ in range(4):
        u, v = STEPS[name](M, u, v)
    assert error(M, u, v) < 1e-4


def drift_errors(step: Step, size: int, gap: float) -> Any:
    """The largest errors over steps that each change the matrix by 1 %: of `step`, of torch."""
    M, u, v = start(size, size)
    left, right = (torch.nn.functional.normalize(torch.randn(size), dim=0) for _ in "uv")
    M += gap * 2 * size**0.5 * torch.outer(left, right)
    for _ in range(20):
        u, v = improve_pair(M, u, v, 6, None)
    mine = theirs = u, v
    worst = [0.0, 0.0]
    for _ in range(60):
        noise = torch.randn_like(M)
        M = M + 0.01 * M.norm() / noise.norm() * noise
        mine = step(M, *mine)
        theirs = improve_pair(M, *theirs, 1, None)
        worst = [max(worst[0], error(M, *mine)), max(worst[1], error(M, *theirs))]
    return worst


@pytest.mark.parametrize("gap", [0.0, 0.75])
@pytest.mark.parametrize("name", STEPS)
def test_error_under_drift_is_a_twentieth_of_that_of_a_power_iteration(
    name: str, gap: float
) -> None:
    mine, theirs = drift_errors(STEPS[name], 48, gap)
    assert mine < max(theirs / 20, 3e-7)


@pytest.mark.usefixtures("few_launches")
def test_one_iteration_is_a_power_iteration() -> None:
    M, u, v = start(6, 5)
    left = torch.nn.functional.normalize(M @ v, dim=0)
    right = torch.nn.functional.normalize(M.T @ left, dim=0)
    torch.testing.assert_close(improve_pair(M, u, v, 1, None), (left, right))


@pytest.mark.usefixtures("few_launches")
@pytest.mark.parametrize("iterations", [2, 3, 6, 7, 20])
def test_more_iterations_come_closer(iterations: int) -> None:
    M, u, v = start(100, 90)
    less = error(M, *improve_pair(M, u, v, iterations - 1, None))
    assert error(M, *improve_pair(M, u, v, iterations, None)) < max(less, 1e-5)


@pytest.mark.usefixtures("few_launches")
def test_groups_of_a_map_are_iterated_together() -> None:
    torch.manual_seed(0)
    M, u, v = torch.randn(3, 9, 8), torch.randn(3, 9), torch.randn(3, 8)
    u, v = (x / x.norm(dim=-1, keepdim=True) for x in (u, v))
    for _ in range(10):
        u, v = improve_pair_of_map(
            lambda x: (M @ x.unsqueeze(-1)).squeeze(-1),
            lambda y: (M.mT @ y.unsqueeze(-1)).squeeze(-1),
            u,
            v,
            3,
            None,
        )
    for k in range(3):
        assert error(M[k], u[k], v[k]) < 1e-5


SETTINGS: dict[str, tuple[Any, str, Any, Any]] = {
    "for all backends": (torch, "set_float32_matmul_precision", "high", "highest"),
    "allow_tf32": (torch.backends.cuda.matmul, "allow_tf32", True, False),
    "for one backend": (torch.backends.cuda.matmul, "fp32_precision", "tf32", "none"),
}


@pytest.mark.usefixtures("few_launches")
@pytest.mark.parametrize("name", SETTINGS)
def test_the_gram_matrix_is_formed_in_full_precision_only(name: str) -> None:
    holder, setting, low, full = SETTINGS[name]

    def choose(value: Any) -> None:
        if setting == "set_float32_matmul_precision":
            torch.set_float32_matmul_precision(value)
        else:
            setattr(holder, setting, value)

    M, u, v = start(100, 100)
    assert is_medium(M, 3)
    try:
        choose(low)
        assert not is_medium(M, 3)
        assert is_medium(M.double(), 3)
        assert error(M, *improve_pair(M, u, v, 3, None)) < 0.5
    finally:
        choose(full)
    assert is_medium(M, 3)


@pytest.mark.usefixtures("few_launches")
@pytest.mark.parametrize(
    ("size", "iterations", "most"), [(100, 1, 9), (100, 3, 21), (100, 7, 55), (20, 3, 25)]
)
def test_a_step_takes_few_operations_and_looks_at_no_number(
    size: int, iterations: int, most: int
) -> None:
    M, u, v = start(size, size)
    with operations() as counted:
        improve_pair(M, u, v, iterations, None)
    assert len(counted) <= most
    assert not {"_local_scalar_dense", "_linalg_eigh"} & set(counted)
