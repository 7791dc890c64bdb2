"""The linear structures: an orthogonal projection, found again from the equations alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from paramdesc import register_parametrization
from paramdesc.errors import ConstraintError
from paramdesc.parametrizations.structure.banded import Banded
from paramdesc.parametrizations.structure.circulant import Circulant
from paramdesc.parametrizations.structure.diagonal import Diagonal
from paramdesc.parametrizations.structure.hamiltonian import Hamiltonian
from paramdesc.parametrizations.structure.hermitian import Hermitian, SkewHermitian
from paramdesc.parametrizations.structure.linear_structure import LinearStructure
from paramdesc.parametrizations.structure.masked import Masked
from paramdesc.parametrizations.structure.permutation_equivariant import PermutationEquivariant
from paramdesc.parametrizations.structure.skew import Skew
from paramdesc.parametrizations.structure.symmetric import Symmetric
from paramdesc.parametrizations.structure.toeplitz import Toeplitz
from paramdesc.parametrizations.structure.traceless import Traceless
from paramdesc.parametrizations.structure.triangular import Triangular

MASK = torch.tensor([[True, False, True, True], [False, True, True, False]] * 2)
J = torch.tensor([[0, 0, 1, 0], [0, 0, 0, 1], [-1, 0, 0, 0], [0, -1, 0, 0]]).double()
SHIFT = torch.eye(4).double().roll(1, 0)
SWAP = torch.eye(4).double()[[1, 0, 2, 3]]
OFFSET = torch.arange(4) - torch.arange(4)[:, None]

LINEAR: dict[str, tuple[Callable[..., LinearStructure], Callable[[Tensor], Tensor]]] = {
    "symmetric": (Symmetric, lambda Y: Y - Y.mT),
    "skew": (Skew, lambda Y: Y + Y.mT),
    "hermitian": (Hermitian, lambda Y: Y - Y.mH),
    "skew-hermitian": (SkewHermitian, lambda Y: Y + Y.mH),
    "lower triangular": (Triangular, lambda Y: Y[..., OFFSET > 0]),
    "upper triangular": (lambda **k: Triangular(upper=True, **k), lambda Y: Y[..., OFFSET < 0]),
    "diagonal": (Diagonal, lambda Y: Y[..., OFFSET != 0]),
    "banded": (lambda **k: Banded(2, 1, **k), lambda Y: Y[..., (OFFSET < -2) | (OFFSET > 1)]),
    "masked": (lambda **k: Masked(MASK, **k), lambda Y: Y[..., ~MASK]),
    "traceless": (Traceless, lambda Y: Y.diagonal(0, -2, -1).sum(-1)),
    "toeplitz": (Toeplitz, lambda Y: Y[..., 1:, 1:] - Y[..., :-1, :-1]),
    "circulant": (Circulant, lambda Y: SHIFT.to(Y.dtype) @ Y - Y @ SHIFT.to(Y.dtype)),
    "permutation equivariant": (
        PermutationEquivariant,
        lambda Y: torch.stack([P.to(Y.dtype) @ Y - Y @ P.to(Y.dtype) for P in (SHIFT, SWAP)]),
    ),
    "hamiltonian": (Hamiltonian, lambda Y: J.to(Y.dtype) @ Y - (J.to(Y.dtype) @ Y).mT),
}
"""By name: the map, and the linear equations of its values, for matrices 4 x 4."""

DTYPES = [torch.float64, torch.complex128]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def nearest(equations: Callable[[Tensor], Tensor], A: Tensor) -> Tensor:
    """The matrix nearest to `A` that solves the equations, which are linear over the reals."""

    def flat(X: Tensor) -> Tensor:
        return (torch.view_as_real(X) if X.is_complex() else X).flatten()

    def matrix(x: Tensor) -> Tensor:
        shaped = x.reshape(*A.shape, -1)
        return torch.view_as_complex(shaped) if A.is_complex() else shaped.squeeze(-1)

    basis = torch.eye(flat(A).numel(), dtype=torch.float64)
    system = torch.stack([flat(equations(matrix(e))) for e in basis], -1)
    return A - matrix(torch.linalg.pinv(system) @ (system @ flat(A)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LINEAR)
def test_values_solve_the_equations(name: str, dtype: torch.dtype) -> None:
    make, equations = LINEAR[name]
    Y = make()(torch.randn(3, 4, 4, dtype=dtype))
    for one in Y:
        torch.testing.assert_close(equations(one), torch.zeros_like(equations(one)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LINEAR)
def test_any_matrix_is_replaced_by_the_nearest(name: str, dtype: torch.dtype) -> None:
    make, equations = LINEAR[name]
    structure, A = make(), torch.randn(4, 4, dtype=dtype)
    expected = nearest(equations, A)
    torch.testing.assert_close(structure(structure.right_inverse(A)), expected)
    torch.testing.assert_close(structure.project(A), expected)


@pytest.mark.parametrize("name", LINEAR)
def test_strict_admits_the_values_and_refuses_others(name: str) -> None:
    make, _ = LINEAR[name]
    structure, A = make(strict=True), torch.randn(4, 4)
    value = structure(A)
    torch.testing.assert_close(structure(structure.right_inverse(value)), value)
    with pytest.raises(ConstraintError, match=f"is not {structure.constraint}: it deviates by"):
        structure.right_inverse(A)
    assert "strict=True" in repr(structure)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LINEAR)
def test_large_entries_do_not_overflow(name: str, dtype: torch.dtype) -> None:
    make, _ = LINEAR[name]
    structure = make()
    A = torch.full((4, 4), 0.9 * torch.finfo(torch.float16).max, dtype=dtype)
    value = structure(structure.right_inverse(A))
    assert value.isfinite().all()
    assert structure.deviation(value) <= structure.tolerance(value)


@pytest.mark.parametrize(
    "structure",
    [Symmetric(), Skew(), Triangular(), Triangular(unit=True), Diagonal(), Banded(1, 0)],
    ids=repr,
)
def test_integers_are_kept_exactly(structure: LinearStructure) -> None:
    value = structure(torch.arange(16).view(4, 4))
    assert value.dtype == torch.int64
    assert structure(structure.right_inverse(value)).equal(value)
    assert structure.deviation(value) == 0


def test_booleans_have_a_deviation() -> None:
    A = torch.tensor([[True, True], [False, True]])
    assert Symmetric().deviation(A) == 1
    assert Symmetric().deviation(Symmetric()(A)) == 0
    assert Symmetric().tolerance(A) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [Toeplitz, Circulant, PermutationEquivariant, Traceless])
def test_means_of_many_entries_are_within_the_tolerance(
    make: Callable[[], LinearStructure], dtype: torch.dtype
) -> None:
    structure = make()
    for size in (64, 300):
        value = structure(torch.randn(size, size, dtype=dtype) + 1)
        assert structure.deviation(value) <= structure.tolerance(value)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (2, 5), (5, 2), (2, 3, 4, 2)])
def test_toeplitz_diagonals_are_means(shape: tuple[int, ...]) -> None:
    X = torch.randn(shape)
    Y = Toeplitz()(X)
    assert Y.shape == X.shape
    for offset in range(1 - shape[-2], shape[-1]):
        mean = X.diagonal(offset, -2, -1).mean(-1, keepdim=True)
        diagonal = Y.diagonal(offset, -2, -1)
        torch.testing.assert_close(diagonal, mean.expand_as(diagonal))


def test_circulant_is_a_cyclic_convolution() -> None:
    Y, x = Circulant()(torch.randn(6, 6).double()), torch.randn(6).double()
    spectrum = torch.fft.fft(Y[:, 0]) * torch.fft.fft(x)
    torch.testing.assert_close(Y @ x, torch.fft.ifft(spectrum).real)


def test_permutation_equivariant_blocks_treat_features_as_a_set() -> None:
    weight = PermutationEquivariant()(torch.randn(3, 2, 5, 5).double())
    x, order = torch.randn(2, 5).double(), torch.randperm(5)
    value = torch.einsum("qpij,pj->qi", weight, x)
    torch.testing.assert_close(torch.einsum("qpij,pj->qi", weight, x[:, order]), value[:, order])


@pytest.mark.parametrize("upper", [False, True])
def test_unit_triangular_has_determinant_one(upper: bool) -> None:
    triangular = Triangular(upper=upper, unit=True)
    Y = triangular(torch.randn(5, 5).double())
    assert Y.equal(Y.triu() if upper else Y.tril())
    assert Y.diagonal().equal(torch.ones(5).double())
    assert triangular(triangular.right_inverse(Y)).equal(Y)


# masks


def test_masked_entries_stay_while_the_others_are_trained() -> None:
    layer = nn.Conv2d(2, 3, 3)
    mask = torch.rand(3, 2, 3, 3) < 0.5
    register_parametrization(layer, "weight", Masked(mask, 0.25))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1, weight_decay=0.1)
    before = layer.weight.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.ones(1, 2, 4, 4)).square().sum().backward()
        optimizer.step()
    assert (layer.weight[~mask] == 0.25).all()
    assert (layer.weight[mask] != before[mask]).all()


@pytest.mark.parametrize("fill", [0.0, 3.0])
def test_what_a_mask_hides_reaches_neither_value_nor_gradient(fill: float) -> None:
    X = torch.tensor([1.0, 1e30], requires_grad=True)
    Y = Masked(torch.tensor([1, 0]), fill)(X)
    Y.square().sum().backward()
    assert Y.tolist() == [1.0, fill]
    assert X.grad is not None
    assert X.grad.tolist() == [2.0, 0.0]


def test_mask_may_fill_with_infinity() -> None:
    masked = Masked(torch.ones(3, 3).tril(), -math.inf, strict=True)
    value = masked(torch.randn(3, 3))
    assert value.softmax(-1).triu(1).count_nonzero() == 0
    assert masked(masked.right_inverse(value)).equal(value)
    with pytest.raises(ConstraintError):
        masked.right_inverse(torch.randn(3, 3))


@pytest.mark.parametrize("fill", [0, 7])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float16, torch.complex64])
def test_mask_keeps_the_dtype(dtype: torch.dtype, fill: int) -> None:
    value = Masked(torch.tensor([True, False]), fill)(torch.tensor([1, 2], dtype=dtype))
    assert value.equal(torch.tensor([1, fill], dtype=dtype))


def test_mask_does_not_follow_the_tensor_it_was_made_of_and_may_be_written() -> None:
    mask = torch.tensor([True, True])
    masked = Masked(mask)
    mask[0] = False
    assert masked(torch.ones(2)).tolist() == [1.0, 1.0]
    masked.mask[1] = False
    assert masked(torch.ones(2)).tolist() == [1.0, 0.0]
    assert "mask" in masked.state_dict()


@pytest.mark.parametrize("shape", [(3, 3), (2, 3), (3, 1), (4,), (1, 4, 4, 4)])
def test_mask_of_another_shape_is_refused_with_both(shape: tuple[int, ...]) -> None:
    masked = Masked(torch.ones(shape))
    with pytest.raises(ValueError, match="does not broadcast to") as caught:
        masked(torch.ones(4, 3))
    assert str(list(shape)) in str(caught.value)
    assert "[4, 3]" in str(caught.value)


@pytest.mark.parametrize("shape", [(4, 3), (1, 3), (4, 1), (3,), (), (1, 1)])
def test_mask_is_broadcast(shape: tuple[int, ...]) -> None:
    assert Masked(torch.zeros(shape))(torch.ones(4, 3)).equal(torch.zeros(4, 3))


def test_mask_that_is_no_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match="mask must be a tensor, got list"):
        Masked([True, False])  # type: ignore[arg-type]


# what they refuse


@pytest.mark.parametrize(
    "name",
    [
        "symmetric",
        "skew",
        "hermitian",
        "skew-hermitian",
        "traceless",
        "circulant",
        "permutation equivariant",
        "hamiltonian",
    ],
)
@pytest.mark.parametrize("shape", [(3, 4), (4,), ()])
def test_shapes_that_are_not_square_are_refused(name: str, shape: tuple[int, ...]) -> None:
    structure = LINEAR[name][0](strict=True)
    for method in (structure, structure.right_inverse):
        with pytest.raises(ValueError, match="square") as caught:
            method(torch.zeros(shape))
        assert str(list(shape)) in str(caught.value)


def test_hamiltonian_of_odd_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"of even size, .* Got shape \[3, 3\]"):
        Hamiltonian()(torch.zeros(3, 3))


@pytest.mark.parametrize("structure", [Triangular(), Diagonal(), Banded(0, 0), Toeplitz()])
def test_vectors_are_refused(structure: LinearStructure) -> None:
    with pytest.raises(ValueError, match=r"Got shape \[3\]"):
        structure(torch.zeros(3))


@pytest.mark.parametrize(("lower", "upper"), [(-1, 0), (0, -1)])
def test_negative_bandwidths_are_refused(lower: int, upper: int) -> None:
    with pytest.raises(ValueError, match=f"lower={lower}, upper={upper}"):
        Banded(lower, upper)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (0, 4, 4)])
@pytest.mark.parametrize("structure", [Triangular(), Diagonal(), Banded(1, 1), Toeplitz()])
def test_empty_matrices_stay_empty(structure: LinearStructure, shape: tuple[int, ...]) -> None:
    assert structure(structure.right_inverse(torch.empty(shape))).shape == shape


def test_structure_without_projection_says_what_to_define() -> None:
    with pytest.raises(NotImplementedError, match=r"LinearStructure defines no project\(\)"):
        LinearStructure()(torch.zeros(2, 2))
