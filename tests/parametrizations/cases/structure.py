"""Cases of the maps onto matrices of linear and algebraic structure."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.parametrizations.structure.banded import Banded
from paramdesc.parametrizations.structure.circulant import Circulant
from paramdesc.parametrizations.structure.diagonal import Diagonal
from paramdesc.parametrizations.structure.hamiltonian import Hamiltonian
from paramdesc.parametrizations.structure.hermitian import Hermitian, SkewHermitian
from paramdesc.parametrizations.structure.masked import Masked
from paramdesc.parametrizations.structure.normal import Normal
from paramdesc.parametrizations.structure.permutation_equivariant import PermutationEquivariant
from paramdesc.parametrizations.structure.skew import Skew
from paramdesc.parametrizations.structure.symmetric import Symmetric
from paramdesc.parametrizations.structure.symplectic import Symplectic
from paramdesc.parametrizations.structure.toeplitz import Toeplitz
from paramdesc.parametrizations.structure.traceless import Traceless
from paramdesc.parametrizations.structure.triangular import Triangular
from tests.parametrizations.cases.case import Case

__all__ = ["CASES"]


def complex_weight(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.complex64)


CASES: dict[str, Case] = {
    "symmetric": Case(lambda: Symmetric(), 4, 4),
    "symmetric, complex": Case(lambda: Symmetric(), weight=lambda: complex_weight(3, 3)),
    "hermitian": Case(lambda: Hermitian(), 4, 4),
    "hermitian, complex": Case(lambda: Hermitian(), weight=lambda: complex_weight(2, 3, 3)),
    "skew": Case(lambda: Skew(), 4, 4),
    "skew, batch": Case(lambda: Skew(), 2, 3, 3),
    "skew-hermitian": Case(lambda: SkewHermitian(), weight=lambda: complex_weight(3, 3)),
    "lower triangular": Case(lambda: Triangular(), 4, 3),
    "upper triangular": Case(lambda: Triangular(upper=True), 3, 4),
    "unit triangular": Case(lambda: Triangular(unit=True), 4, 4),
    "diagonal": Case(lambda: Diagonal(), 3, 4),
    "tridiagonal": Case(lambda: Banded(1, 1), 5, 5),
    "lower bidiagonal, wide": Case(lambda: Banded(1, 0), 3, 5),
    "masked": Case(lambda: Masked(torch.eye(4)), 4, 4),
    "masked rows, filled": Case(lambda: Masked(torch.tensor([[True], [False]]), 2.5), 2, 3),
    "traceless": Case(lambda: Traceless(), 4, 4),
    "toeplitz, tall": Case(lambda: Toeplitz(), 5, 3),
    "toeplitz, wide": Case(lambda: Toeplitz(), 2, 3, 5),
    "toeplitz, complex": Case(lambda: Toeplitz(), weight=lambda: complex_weight(3, 3)),
    "circulant": Case(lambda: Circulant(), 5, 5),
    "permutation equivariant": Case(lambda: PermutationEquivariant(), 4, 4),
    "hamiltonian": Case(lambda: Hamiltonian(), 4, 4),
    "hamiltonian, complex": Case(lambda: Hamiltonian(), weight=lambda: complex_weight(4, 4)),
    "symplectic": Case(lambda: Symplectic(), 4, 4),
    "symplectic, complex": Case(lambda: Symplectic(), weight=lambda: complex_weight(2, 4, 4)),
    "normal": Case(lambda: Normal(), 5, 5),
    "normal, batch": Case(lambda: Normal(), 2, 4, 4),
    "normal, complex": Case(lambda: Normal(), weight=lambda: complex_weight(4, 4)),
}
