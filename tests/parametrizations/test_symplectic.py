"""`Symplectic`: every value preserves the form, and what is symplectic is kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paramdesc import register_parametrization
from paramdesc.errors import ConstraintError
from paramdesc.parametrizations.structure.hamiltonian import Hamiltonian
from paramdesc.parametrizations.structure.symplectic import Symplectic

DTYPES = [torch.float64, torch.complex128]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def form(n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """`J`, written entry by entry."""
    J = torch.zeros(2 * n, 2 * n, dtype=dtype)
    for i in range(n):
        J[i, n + i], J[n + i, i] = 1, -1
    return J


def error(Y: Tensor) -> Any:
    """How far `Y` is from symplectic, relative to what rounding does to a matrix of its size."""
    J = form(Y.shape[-1] // 2, Y.dtype)
    return ((Y.mT @ J @ Y - J).abs().max() / torch.linalg.matrix_norm(Y).max() ** 2).item()


def flow(n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """A symplectic matrix that is not orthogonal: the flow of a Hamiltonian one."""
    X: Tensor = torch.linalg.matrix_exp(Hamiltonian()(torch.randn(2 * n, 2 * n, dtype=dtype)))
    return X


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 10])
def test_every_original_gives_a_symplectic_matrix(n: int, dtype: torch.dtype) -> None:
    symplectic = Symplectic()
    symplectic.right_inverse(flow(n, dtype))
    for scale in (0.0, 0.3, 3.0):
        assert error(symplectic(scale * torch.randn(3, 2 * n, 2 * n, dtype=dtype))) < 1e-14


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("n", [1, 3, 16])
def test_symplectic_matrix_is_kept_exactly(n: int, dtype: torch.dtype) -> None:
    wide = torch.complex128 if dtype.is_complex else torch.float64
    Y = torch.linalg.matrix_exp(Hamiltonian()(torch.randn(2 * n, 2 * n, dtype=wide)) / n).to(dtype)
    symplectic = Symplectic(strict=True)
    assert symplectic(symplectic.right_inverse(Y)).equal(Y)


def test_zero_moves_in_all_directions() -> None:
    symplectic, n = Symplectic(), 3
    X = symplectic.right_inverse(flow(n))
    jacobian = torch.func.jacrev(symplectic)(X).reshape(4 * n * n, 4 * n * n)
    assert torch.linalg.matrix_rank(jacobian) == 2 * n * n + n


@pytest.mark.parametrize("dtype", DTYPES)
def test_derivative_without_base_is_the_hamiltonian_matrix(dtype: torch.dtype) -> None:
    symplectic, H = Symplectic(), torch.randn(4, 4, dtype=dtype)
    derivative = (symplectic(1e-6 * H) - symplectic(-1e-6 * H)) / 2e-6
    P, B, C = H[:2, :2], H[:2, 2:], H[2:, :2]
    B, C = B.triu() + B.triu(1).mT, C.triu() + C.triu(1).mT
    expected = torch.cat([torch.cat([P, B], 1), torch.cat([C, -P.mT], 1)])
    torch.testing.assert_close(derivative, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("n", [1, 4])
def test_matrix_near_a_symplectic_one_is_replaced_by_one_as_near(n: int) -> None:
    symplectic, Y = Symplectic(), flow(n)
    noise = 1e-6 * torch.randn_like(Y)
    value = symplectic(symplectic.right_inverse(Y + noise))
    assert error(value) < 1e-14
    growth = torch.linalg.cond(Y)
    assert torch.linalg.matrix_norm(value - Y) < growth * torch.linalg.matrix_norm(noise)


def test_polar_factor_solves_its_equation() -> None:
    J, Y = form(3), flow(3)
    adjoint = torch.linalg.inv(J) @ (S := torch.eye(6).double() + 0.05 * torch.randn(6, 6)).mT @ J
    A = Y @ (S + adjoint) / 2  # the second factor is its own adjoint, near one
    symplectic = Symplectic()
    torch.testing.assert_close(symplectic(symplectic.right_inverse(A)), Y)


def test_rotations_are_found_for_what_is_far_from_symplectic() -> None:
    symplectic = Symplectic()
    weight = torch.tensor([[2.0, 1.0], [0.5, -1.0]]).double()  # of negative determinant
    value = symplectic(symplectic.right_inverse(weight))
    assert error(value) < 1e-14
    torch.testing.assert_close(value.mT @ value, torch.eye(2).double())
    # no rotation is nearer
    angles = torch.linspace(0, 7, 100).double()
    distances = [
        torch.dist(torch.tensor([[c, s], [-s, c]]).double(), weight).item()
        for c, s in zip(angles.cos(), angles.sin(), strict=True)
    ]
    assert torch.dist(value, weight).item() <= min(distances) + 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.float16])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_weights_have_a_symplectic_matrix_nearby(value: float, dtype: torch.dtype) -> None:
    symplectic = Symplectic()
    Y = symplectic(symplectic.right_inverse(torch.full((2, 6, 6), value, dtype=dtype)))
    assert symplectic.deviation(Y) <= symplectic.tolerance(Y)


def test_training_from_a_random_layer_stays_symplectic() -> None:
    layer: Any = register_parametrization(nn.Linear(6, 6), "weight", Symplectic())
    target = flow(3).float()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    losses = []
    for _ in range(200):
        optimizer.zero_grad()
        loss = (layer.weight - target).square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert error(layer.weight.detach()) < 1e-6
    assert losses[-1] < losses[0] / 4


def test_strict_refuses_and_leaves_the_base() -> None:
    symplectic = Symplectic(strict=True)
    symplectic.right_inverse(form(2))
    base = symplectic.base
    with pytest.raises(ConstraintError, match="is not symplectic: it deviates by 3"):
        symplectic.right_inverse(2 * form(2))
    assert symplectic.base is base


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4,), ()])
def test_odd_and_rectangular_shapes_are_refused(shape: tuple[int, ...]) -> None:
    for method in (Symplectic(), Symplectic().right_inverse):
        with pytest.raises(ValueError, match="of even size") as caught:
            method(torch.zeros(shape))
        assert str(list(shape)) in str(caught.value)


@pytest.mark.parametrize("shape", [(0, 0), (0, 4, 4), (2, 0, 2, 2)])
def test_empty_batches_and_matrices_stay_empty(shape: tuple[int, ...]) -> None:
    symplectic = Symplectic(strict=True)
    assert symplectic(symplectic.right_inverse(torch.empty(shape))).shape == shape


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_are_those_of_the_formula(dtype: torch.dtype) -> None:
    symplectic = Symplectic()
    symplectic.right_inverse(flow(2, dtype))
    X = torch.randn(4, 4, dtype=dtype, requires_grad=True)
    assert torch.autograd.gradcheck(symplectic, X)
    assert torch.autograd.gradgradcheck(symplectic, X)
