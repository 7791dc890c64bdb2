"""`Normal`: every value is normal, and every normal matrix is reached."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paramdesc import register_parametrization
from paramdesc.errors import ConstraintError
from paramdesc.parametrizations.structure.normal import Normal

DTYPES = [torch.float64, torch.complex128]


RNG = torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def orthogonal(n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    Q: Tensor = torch.linalg.qr(torch.randn(n, n, dtype=dtype, generator=RNG)).Q
    return Q


def with_eigenvalues(pairs: list[complex], real: list[float]) -> Tensor:
    """A real normal matrix with these pairs of eigenvalues, and these real ones."""
    D = torch.diag(torch.tensor([z.real for z in pairs for _ in range(2)] + real).double())
    for i, z in enumerate(pairs):
        D[2 * i + 1, 2 * i], D[2 * i, 2 * i + 1] = z.imag, -z.imag
    Q = orthogonal(len(D))
    Y: Tensor = Q @ D @ Q.mT
    return Y


def error(Y: Tensor) -> Any:
    size = torch.linalg.matrix_norm(Y).max() ** 2
    return ((Y @ Y.mH - Y.mH @ Y).abs().max() / size).item()


RANDOM = torch.randn(40, dtype=torch.complex128, generator=RNG).tolist()

NORMAL: dict[str, Tensor] = {
    "pairs": with_eigenvalues(RANDOM[:10], []),
    "pairs and real": with_eigenvalues(RANDOM[:5], [1.0, -2.0, 0.3]),
    "one real": with_eigenvalues(RANDOM[:4], [0.5]),
    "pairs repeated": with_eigenvalues([1 + 2j] * 4 + [1 - 1j] * 2, [1.0] * 3),
    "pairs that share real parts": with_eigenvalues([1 + 1j, 1 + 2j, 1 + 3j], [1.0, 1.0]),
    "pairs that share imaginary parts": with_eigenvalues([1 + 1j, 2 + 1j, 3 + 1j], []),
    "nearly real": with_eigenvalues([1 + 10.0**-k * 1j for k in range(16)], [1.0]),
    "many": with_eigenvalues(RANDOM, list(range(20))),
    "symmetric": with_eigenvalues([], [3.0, 1.0, -1.0, -1.0]),
    "skew": with_eigenvalues([1j, 2j, 2j], [0.0]),
    "orthogonal": orthogonal(9),
    "scalar": 3 * torch.eye(5).double(),
    "zero": torch.zeros(4, 4).double(),
    "cyclic shift": torch.eye(7).double().roll(1, 0),
    "circulant of ones": torch.ones(6, 6).double(),
    "1 x 1": torch.tensor([[2.0]]).double(),
    "symplectic form": torch.tensor([[0.0, 1.0], [-1.0, 0.0]]).double(),
}


@pytest.mark.parametrize("name", NORMAL)
def test_normal_matrix_is_kept_to_rounding(name: str) -> None:
    Y = NORMAL[name]
    scale = torch.linalg.matrix_norm(Y).item()
    for dtype in (torch.float64, torch.float32, torch.complex128):
        normal = Normal(strict=True)
        value = normal(normal.right_inverse(Y.to(dtype)))
        assert value.dtype == dtype
        limit = 20 * torch.finfo(dtype).eps * scale
        assert torch.linalg.matrix_norm(value - Y.to(dtype)) <= limit


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_kept_to_its_rounding(dtype: torch.dtype) -> None:
    for name in ("pairs and real", "orthogonal", "symmetric"):
        normal, Y = Normal(), NORMAL[name].to(dtype)
        value = normal(normal.right_inverse(Y))
        scale = torch.linalg.matrix_norm(Y.float()).item()
        difference = torch.linalg.matrix_norm((value - Y).float()).item()
        assert difference <= 20 * torch.finfo(dtype).eps * scale


@pytest.mark.parametrize("count", [1, 2, 16])
def test_complex_normal_matrix_is_kept_to_rounding(count: int) -> None:
    eigenvalues = torch.tensor(RANDOM[:count])
    Q = orthogonal(count, torch.complex128)
    normal, Y = Normal(strict=True), (Q * eigenvalues) @ Q.mH
    torch.testing.assert_close(normal(normal.right_inverse(Y)), Y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_every_original_gives_a_normal_matrix(n: int, dtype: torch.dtype) -> None:
    for is_assigned in (False, True):
        normal = Normal()
        if is_assigned:
            normal.right_inverse(orthogonal(n, dtype))
        assert error(normal(3 * torch.randn(4, n, n, dtype=dtype))) < 1e-14


def test_eigenvalues_are_those_that_the_original_holds() -> None:
    X = torch.tensor([[1.0, 9.0, 9.0], [2.0, 3.0, 9.0], [9.0, 9.0, 5.0]]).double()
    found = torch.linalg.eigvals(Normal()(X))
    expected = torch.tensor([2 - 2j, 2 + 2j, 5]).to(found.dtype)
    order = (found.real * 10 + found.imag).argsort()
    torch.testing.assert_close(found[order], expected)


def test_rotating_tells_pairs_from_real_eigenvalues() -> None:
    normal = Normal()
    normal.right_inverse(NORMAL["pairs and real"])
    assert isinstance(normal.rotating, Tensor)
    assert normal.rotating.sum() == 5
    assert len(normal.rotating) == 6


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [2, 3, 10])
def test_other_matrices_are_replaced_by_a_normal_one_nearby(n: int, dtype: torch.dtype) -> None:
    A = torch.randn(n, n, dtype=dtype)
    normal = Normal()
    value = normal(normal.right_inverse(A))
    assert error(value) < 1e-14
    # at least as near as the multiple of the unitary polar factor, which is normal too
    U, S, Vh = torch.linalg.svd(A)
    assert torch.dist(value, A) <= torch.dist(U @ Vh * S.mean(), A) + 1e-12


@pytest.mark.parametrize("name", ["pairs and real", "pairs repeated", "symmetric", "orthogonal"])
def test_matrix_near_a_normal_one_is_replaced_by_one_as_near(name: str) -> None:
    normal, Y = Normal(), NORMAL[name]
    noise = 1e-5 * torch.randn_like(Y)
    value = normal(normal.right_inverse(Y + noise))
    assert torch.dist(value, Y) < 10 * torch.linalg.matrix_norm(noise)


def test_each_matrix_of_a_batch_has_its_own_form() -> None:
    matrices = [with_eigenvalues([1j, 2 + 1j], [1.0]), with_eigenvalues([], [1.0, 2, 3, 4, 5])]
    Y, normal = torch.stack(matrices), Normal(strict=True)
    torch.testing.assert_close(normal(normal.right_inverse(Y)), Y)
    assert isinstance(normal.rotating, Tensor)
    assert normal.rotating.tolist() == [[True, True], [False, False]]


def test_training_changes_eigenvalues_and_eigenvectors() -> None:
    target = with_eigenvalues([1 + 1j, -1 + 2j], [0.5]).float()
    start = with_eigenvalues([1 + 2j, 2j], [-0.5]).float()
    layer: Any = nn.Linear(5, 5)
    register_parametrization(layer, "weight", Normal())
    layer.weight = start
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.03)
    for _ in range(400):
        optimizer.zero_grad()
        loss = (layer.weight - target).square().sum()
        loss.backward()
        optimizer.step()
    assert error(layer.weight.detach()) < 1e-6
    assert loss < 0.1 * (start - target).square().sum()


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_are_those_of_the_formula(dtype: torch.dtype) -> None:
    for Y in (NORMAL["one real"][:3, :3], orthogonal(4), torch.zeros(3, 3).double()):
        normal = Normal()
        X = normal.right_inverse(Y.to(dtype)).requires_grad_()
        assert torch.autograd.gradcheck(normal, X)
        assert torch.autograd.gradgradcheck(normal, X)


def test_strict_refuses_and_leaves_the_base() -> None:
    normal = Normal(strict=True)
    normal.right_inverse(torch.eye(2))
    base = normal.base
    with pytest.raises(ConstraintError, match="is not normal: it deviates by 1,"):
        normal.right_inverse(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    assert normal.base is base


@pytest.mark.parametrize("shape", [(2, 3), (3,), ()])
def test_shapes_that_are_not_square_are_refused(shape: tuple[int, ...]) -> None:
    for method in (Normal(), Normal().right_inverse):
        with pytest.raises(ValueError, match="square") as caught:
            method(torch.zeros(shape))
        assert str(list(shape)) in str(caught.value)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3, 3), (2, 0, 1, 1)])
def test_empty_batches_and_matrices_stay_empty(shape: tuple[int, ...]) -> None:
    normal = Normal(strict=True)
    assert normal(normal.right_inverse(torch.empty(shape))).shape == shape
