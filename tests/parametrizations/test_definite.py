"""Positive definite and semidefinite matrices, Gram and correlation matrices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from paramdesc import register_parametrization
from paramdesc.parametrizations.spectra.correlation import Correlation
from paramdesc.parametrizations.spectra.gram import Gram
from paramdesc.parametrizations.spectra.positive_definite import PositiveDefinite
from paramdesc.parametrizations.spectra.positive_semidefinite import PositiveSemidefinite
from tests.helpers import chain_of


def register(parametrization: nn.Module, X: Tensor) -> Any:
    module: Any = nn.Module()
    module.weight = nn.Parameter(X.clone())
    return register_parametrization(module, "weight", parametrization)


def nearest(X: Tensor, floor: float, rank: int | None = None) -> Tensor:
    """By the spectral theorem: the Hermitian part, eigenvalues chosen one by one."""
    values, vectors = torch.linalg.eigh((X + X.mH) / 2)
    terms = [
        max(float(value), floor) * torch.outer(vector, vector.conj())
        for value, vector in zip(values, vectors.mT, strict=True)
    ]
    return torch.stack(terms[len(terms) - (rank or len(terms)) :]).sum(0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_projections_are_the_nearest_matrices(dtype: torch.dtype) -> None:
    X = torch.randn(5, 5, dtype=dtype)
    for parametrization, expected in {
        PositiveDefinite(0.1): nearest(X, 0.1),
        PositiveSemidefinite(): nearest(X, 0.0),
        Gram(): nearest(X, 0.0),
        Gram(columns=True): nearest(X, 0.0),
        PositiveSemidefinite(2): nearest(X, 0.0, 2),
        PositiveSemidefinite(4, fixed=True, floor=0.2): nearest(X, 0.2, 4),
    }.items():
        torch.testing.assert_close(register(parametrization, X).weight, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_values_are_those_of_the_formulas(dtype: torch.dtype) -> None:
    X = torch.randn(2, 4, 4, dtype=dtype)
    L, I = X.tril(), torch.eye(4, dtype=dtype)  # noqa: E741
    torch.testing.assert_close(PositiveDefinite(0.5)(X), L @ L.mH + 0.5 * I)
    torch.testing.assert_close(PositiveDefinite(0.5, triangular=False)(X), X @ X.mH + 0.5 * I)
    torch.testing.assert_close(PositiveSemidefinite()(X), X @ X.mH)
    torch.testing.assert_close(Gram(columns=True)(X), X.mH @ X)
    U = L / L.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(Correlation(0.25)(X), 0.75 * U @ U.mH + 0.25 * I)


def test_triangular_factor_is_that_of_cholesky() -> None:
    A = torch.randn(2, 4, 4, dtype=torch.float64)
    Y = A @ A.mT + torch.eye(4)
    L = PositiveDefinite(1e-3).right_inverse(Y)
    expected = torch.linalg.cholesky(Y - 1e-3 * torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(L, expected)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0])
def test_random_originals_are_positive_definite_for_torch_too(scale: float) -> None:
    torch.manual_seed(0)
    X = scale * torch.randn(3, 16, 16)
    constraint: Any = constraints.positive_definite
    assert constraint.check(PositiveDefinite(1e-3)(X)).all()
    assert constraint.check(Correlation(1e-3)(X)).all()


@pytest.mark.parametrize(
    "parametrization",
    [PositiveDefinite(), PositiveSemidefinite(), PositiveSemidefinite(3), Gram(), Correlation()],
)
def test_training_leads_away_from_the_boundary(parametrization: nn.Module) -> None:
    start = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # becomes singular
    module, target = register(parametrization, start), torch.eye(3)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        (module.weight - target).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(module.weight, target, atol=1e-3, rtol=0)


def test_zero_is_as_small_as_allowed() -> None:
    zero = torch.zeros(3, 3)
    assert PositiveDefinite(0.5)(zero).equal(0.5 * torch.eye(3))
    assert Correlation()(zero).equal(torch.eye(3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.complex64])
def test_diagonal_of_a_correlation_matrix_is_exactly_one(dtype: torch.dtype) -> None:
    Y = Correlation()(torch.randn(2, 9, 9).to(dtype))
    assert Y.diagonal(dim1=-2, dim2=-1).equal(torch.ones(2, 9, dtype=dtype))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale_of_a_row_has_no_effect_on_a_correlation(scale: float) -> None:
    X = torch.randn(4, 4)
    torch.testing.assert_close(Correlation()(scale * X), Correlation()(X))


def test_projection_is_close_to_the_nearest_correlation_matrix() -> None:
    # the example of section 4 of Higham's paper, and the nearest matrix that he gives
    A = torch.tensor(
        [[2.0, -1, 0, 0], [-1, 2, -1, 0], [0, -1, 2, -1], [0, 0, -1, 2]], dtype=torch.float64
    )
    nearest_one = torch.tensor(
        [
            [1.0000, -0.8084, 0.1916, 0.1068],
            [-0.8084, 1.0000, -0.6562, 0.1916],
            [0.1916, -0.6562, 1.0000, -0.8084],
            [0.1068, 0.1916, -0.8084, 1.0000],
        ],
        dtype=torch.float64,
    )
    module = register(Correlation(1e-9), A)
    torch.testing.assert_close(module.weight, nearest_one, atol=2e-4, rtol=0)


@pytest.mark.parametrize("parametrization", [PositiveDefinite(0.5), PositiveSemidefinite(), Gram()])
def test_strict_tells_what_an_eigenvalue_or_the_symmetry_lacks(parametrization: Any) -> None:
    module = register(parametrization, torch.eye(2))
    chain_of(module)[0].strict = True
    lacking = "1.5" if isinstance(parametrization, PositiveDefinite) else "1"
    with pytest.raises(ValueError, match=f"not positive .*definite.* deviates by {lacking},"):
        module.weight = torch.diag(torch.tensor([3.0, -1.0]))
    with pytest.raises(ValueError, match="deviates by 0.25,"):
        module.weight = torch.tensor([[2.0, 0.25], [0.0, 2.0]])
    module.weight = torch.tensor([[2.0, 0.25], [0.25, 2.0]])


def test_strict_correlation_refuses_a_covariance() -> None:
    module = register(Correlation(), torch.eye(2))
    chain_of(module)[0].strict = True
    with pytest.raises(ValueError, match="not a correlation matrix: it deviates by 3,"):
        module.weight = 4 * torch.eye(2)


def test_arguments_and_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="floor must be positive and finite"):
        PositiveDefinite(-1.0)
    with pytest.raises(ValueError, match="floor must be less than one. Got floor=1.0"):
        Correlation(1.0)
    for parametrization in (PositiveDefinite(), PositiveSemidefinite(), Gram(), Correlation()):
        with pytest.raises(ValueError, match=r"square, .* Got shape \[3, 4\]"):
            register(parametrization, torch.zeros(3, 4))


def test_a_square_factor_starts_from_the_state_dict_of_a_triangular_one() -> None:
    lower = register(PositiveDefinite(), torch.randn(4, 4, dtype=torch.float64))
    square = register(PositiveDefinite(triangular=False), torch.eye(4, dtype=torch.float64))
    square.load_state_dict(lower.state_dict())
    torch.testing.assert_close(square.weight, lower.weight)


def test_training_a_square_factor_reaches_a_matrix_to_rounding() -> None:
    torch.manual_seed(0)
    A = torch.randn(8, 8, dtype=torch.float64)
    target = A @ A.mT / 8 + 0.2 * torch.eye(8)
    losses = {}
    for triangular in (True, False):
        module = register(PositiveDefinite(triangular=triangular), torch.randn(8, 8).double())
        optimizer = torch.optim.SGD(module.parameters(), lr=0.03)
        for _ in range(500):
            optimizer.zero_grad()
            loss = (module.weight - target).square().sum()
            loss.backward()
            optimizer.step()
        losses[triangular] = loss.item()
    assert losses[False] < 1e-8
    assert losses[True] > 100 * losses[False]


def test_entries_above_the_diagonal_get_no_gradient() -> None:
    for parametrization in (PositiveDefinite(), Correlation()):
        module = register(parametrization, torch.randn(3, 3))
        module.weight.sin().sum().backward()
        gradient = chain_of(module).original.grad
        assert not gradient.triu(1).any()
        assert gradient.tril(-1).any()
