"""One-line functions for the maps of matrices.

Each function registers the class of the same name with its arguments, and returns the module. With
`strict=True`, a weight that does not satisfy the constraint is rejected with an error. `flatten`
gives the axes that become the rows of a matrix, and the others become the columns: 0 reads the
weight of a convolution as `(out, in * height * width)`. By default, the last two axes are the
matrix, and the leading ones are batch dimensions.

>>> conv = low_rank(torch.nn.Conv2d(4, 8, 3), rank=2, flatten=0)
>>> torch.linalg.matrix_rank(conv.weight.flatten(1)).item()
2
"""

from __future__ import annotations

from typing import TypeVar

from torch.nn import Module

from paramdesc.parametrizations.functions.argument_order import name_first
from paramdesc.parametrizations.functions.torch_functions import Flatten, register
from paramdesc.parametrizations.orthogonality.almost_orthogonal import AlmostOrthogonal
from paramdesc.parametrizations.orthogonality.bjorck import Bjorck
from paramdesc.parametrizations.orthogonality.grassmann import Grassmann
from paramdesc.parametrizations.orthogonality.special_orthogonal import SpecialOrthogonal
from paramdesc.parametrizations.spectra.correlation import Correlation
from paramdesc.parametrizations.spectra.fixed_rank import FixedRank
from paramdesc.parametrizations.spectra.gram import Gram
from paramdesc.parametrizations.spectra.low_rank import LowRank
from paramdesc.parametrizations.spectra.positive_definite import PositiveDefinite
from paramdesc.parametrizations.spectra.positive_determinant import PositiveDeterminant
from paramdesc.parametrizations.spectra.positive_semidefinite import PositiveSemidefinite
from paramdesc.parametrizations.spectra.rank_one import RankOne
from paramdesc.parametrizations.spectra.special_linear import SpecialLinear
from paramdesc.parametrizations.spectra.stable import HurwitzStable, SchurStable
from paramdesc.parametrizations.structure.banded import Banded
from paramdesc.parametrizations.structure.circulant import Circulant
from paramdesc.parametrizations.structure.diagonal import Diagonal
from paramdesc.parametrizations.structure.hamiltonian import Hamiltonian
from paramdesc.parametrizations.structure.hermitian import Hermitian, SkewHermitian
from paramdesc.parametrizations.structure.normal import Normal
from paramdesc.parametrizations.structure.permutation_equivariant import PermutationEquivariant
from paramdesc.parametrizations.structure.skew import Skew
from paramdesc.parametrizations.structure.symmetric import Symmetric
from paramdesc.parametrizations.structure.symplectic import Symplectic
from paramdesc.parametrizations.structure.toeplitz import Toeplitz
from paramdesc.parametrizations.structure.traceless import Traceless
from paramdesc.parametrizations.structure.triangular import Triangular

__all__ = [
    "almost_orthogonal",
    "banded",
    "bjorck",
    "circulant",
    "correlation",
    "diagonal",
    "fixed_rank",
    "gram",
    "grassmann",
    "hamiltonian",
    "hermitian",
    "hurwitz_stable",
    "low_rank",
    "normal",
    "permutation_equivariant",
    "positive_definite",
    "positive_determinant",
    "positive_semidefinite",
    "rank_one",
    "schur_stable",
    "skew",
    "skew_hermitian",
    "special_linear",
    "special_orthogonal",
    "symmetric",
    "symplectic",
    "toeplitz",
    "traceless",
    "triangular",
]

M = TypeVar("M", bound=Module)


def symmetric(
    module: M, name: str = "weight", *, flatten: Flatten = None, strict: bool = False
) -> M:
    """Make `module.<name>` symmetric: `Symmetric`."""
    return register(module, name, Symmetric(strict=strict), flatten)


def hermitian(
    module: M, name: str = "weight", *, flatten: Flatten = None, strict: bool = False
) -> M:
    """Make `module.<name>` Hermitian: `Hermitian`."""
    return register(module, name, Hermitian(strict=strict), flatten)


def skew(module: M, name: str = "weight", *, flatten: Flatten = None, strict: bool = False) -> M:
    """Make `module.<name>` skew-symmetric: `Skew`."""
    return register(module, name, Skew(strict=strict), flatten)


def skew_hermitian(
    module: M, name: str = "weight", *, flatten: Flatten = None, strict: bool = False
) -> M:
    """Make `module.<name>` skew-Hermitian: `SkewHermitian`."""
    return register(module, name, SkewHermitian(strict=strict), flatten)


def triangular(
    module: M,
    name: str = "weight",
    *,
    upper: bool = False,
    unit: bool = False,
    flatten: Flatten = None,
    strict: bool = False,
) -> M:
    """Make `module.<name>` triangular, lower by default: `Triangular`."""
    return register(module, name, Triangular(upper=upper, unit=unit, strict=strict), flatten)


def diagonal(
    module: M, name: str = "weight", *, flatten: Flatten = None, strict: bool = False
) -> M:
    """Make `module.<name>` diagonal: `Diagonal`."""
    return register(module, name, Diagonal(strict=strict), flatten)


@name_first("lower", "upper")
def banded(
    module: M,
    name: str = "weight",
    *,
    lower: int,
    upper: int,
    flatten: Flatten = None,
    strict: bool = False,
) -> M:
    """Set `module.<name>` to zero outside `lower` and `upper` side diagonals: `Banded`."""
    return register(module, name, Banded(lower, upper, strict=strict), flatten)


def traceless(
    module: M, name: str = "weight", *, flatten: Flatten = None, strict: bool = False
) -> M:
    """Give `module.<name>` trace zero: `Traceless`."""
    return register(module, name, Traceless(strict=strict), flatten)


def toeplitz(
    module: M, name: str = "weight", *, flatten: Flatten = None, strict: bool = False
) -> M:
    """Make `module.<name>` constant along its diagonals: `Toeplitz`."""
    return register(module, name, Toeplitz(strict=strict), flatten)


def circulant(
    module: M, name: str = "weight", *, flatten: Flatten = None, strict: bool = False
) -> M:
    """Make `module.<name>` circulant: `Circulant`."""
    return register(module, name, Circulant(strict=strict), flatten)


def permutation_equivariant(
    module: M, name: str = "weight", *, flatten: Flatten = None, strict: bool = False
) -> M:
    """Make `module.<name>` commute with permutations: `PermutationEquivariant`."""
    return register(module, name, PermutationEquivariant(strict=strict), flatten)


def hamiltonian(
    module: M, name: str = "weight", *, flatten: Flatten = None, strict: bool = False
) -> M:
    """Make `module.<name>` Hamiltonian: `Hamiltonian`."""
    return register(module, name, Hamiltonian(strict=strict), flatten)


def symplectic(
    module: M,
    name: str = "weight",
    *,
    rebase: int | None = 50,
    flatten: Flatten = None,
    strict: bool = False,
) -> M:
    """Make `module.<name>` symplectic: `Symplectic`."""
    return register(module, name, Symplectic(rebase=rebase, strict=strict), flatten)


def normal(
    module: M,
    name: str = "weight",
    *,
    rebase: int | None = 50,
    flatten: Flatten = None,
    strict: bool = False,
) -> M:
    """Make `module.<name>` normal, so that it commutes with its adjoint: `Normal`."""
    return register(module, name, Normal(rebase=rebase, strict=strict), flatten)


def special_orthogonal(
    module: M,
    name: str = "weight",
    *,
    rebase: int | None = 50,
    flatten: Flatten = None,
    strict: bool = False,
) -> M:
    """Make `module.<name>` a rotation: `SpecialOrthogonal`."""
    return register(module, name, SpecialOrthogonal(rebase=rebase, strict=strict), flatten)


def grassmann(
    module: M,
    name: str = "weight",
    *,
    rebase: int | None = 50,
    flatten: Flatten = None,
    strict: bool = False,
) -> M:
    """Make `module.<name>` an orthonormal basis of a trainable subspace: `Grassmann`."""
    return register(module, name, Grassmann(rebase=rebase, strict=strict), flatten)


def bjorck(
    module: M,
    name: str = "weight",
    *,
    accuracy: float = 1e-3,
    condition: float = 100.0,
    flatten: Flatten = None,
    strict: bool = False,
) -> M:
    """Make `module.<name>` orthogonal to a given accuracy: `Bjorck`."""
    return register(module, name, Bjorck(accuracy, condition=condition, strict=strict), flatten)


def almost_orthogonal(
    module: M,
    name: str = "weight",
    *,
    band: float | tuple[float, float] = 0.1,
    rebase: int | None = 50,
    flatten: Flatten = None,
    strict: bool = False,
) -> M:
    """Keep the singular values of `module.<name>` in a band around one: `AlmostOrthogonal`."""
    return register(
        module, name, AlmostOrthogonal(band=band, rebase=rebase, strict=strict), flatten
    )


@name_first("rank")
def low_rank(
    module: M, name: str = "weight", *, rank: int, flatten: Flatten = None, strict: bool = False
) -> M:
    """Limit the rank of `module.<name>` to `rank`: `LowRank`."""
    return register(module, name, LowRank(rank, strict=strict), flatten)


@name_first("rank")
def fixed_rank(
    module: M,
    name: str = "weight",
    *,
    rank: int,
    rebase: int | None = 50,
    flatten: Flatten = None,
    strict: bool = False,
) -> M:
    """Give `module.<name>` the rank `rank`: `FixedRank`."""
    return register(module, name, FixedRank(rank, rebase=rebase, strict=strict), flatten)


def rank_one(
    module: M, name: str = "weight", *, flatten: Flatten = None, strict: bool = False
) -> M:
    """Make `module.<name>` an outer product of two vectors: `RankOne`."""
    return register(module, name, RankOne(strict=strict), flatten)


def positive_definite(
    module: M,
    name: str = "weight",
    *,
    floor: float = 1e-6,
    triangular: bool = True,
    flatten: Flatten = None,
    strict: bool = False,
) -> M:
    """Make `module.<name>` positive definite: `PositiveDefinite`."""
    parametrization = PositiveDefinite(floor=floor, triangular=triangular, strict=strict)
    return register(module, name, parametrization, flatten)


def positive_semidefinite(
    module: M,
    name: str = "weight",
    *,
    rank: int | None = None,
    fixed: bool = False,
    flatten: Flatten = None,
    strict: bool = False,
) -> M:
    """Make `module.<name>` positive semidefinite: `PositiveSemidefinite`."""
    return register(
        module, name, PositiveSemidefinite(rank=rank, fixed=fixed, strict=strict), flatten
    )


def correlation(
    module: M,
    name: str = "weight",
    *,
    rebase: int | None = 50,
    flatten: Flatten = None,
    strict: bool = False,
) -> M:
    """Make `module.<name>` a correlation matrix: `Correlation`."""
    return register(module, name, Correlation(rebase=rebase, strict=strict), flatten)


def gram(module: M, name: str = "weight", *, flatten: Flatten = None, strict: bool = False) -> M:
    """Make `module.<name>` the Gram matrix of its original: `Gram`."""
    return register(module, name, Gram(strict=strict), flatten)


def positive_determinant(
    module: M,
    name: str = "weight",
    *,
    rebase: int | None = 50,
    flatten: Flatten = None,
    strict: bool = False,
) -> M:
    """Make `module.<name>` invertible with positive determinant: `PositiveDeterminant`."""
    return register(module, name, PositiveDeterminant(rebase=rebase, strict=strict), flatten)


def special_linear(
    module: M,
    name: str = "weight",
    *,
    rebase: int | None = 50,
    flatten: Flatten = None,
    strict: bool = False,
) -> M:
    """Give `module.<name>` determinant one: `SpecialLinear`."""
    return register(module, name, SpecialLinear(rebase=rebase, strict=strict), flatten)


def hurwitz_stable(
    module: M,
    name: str = "weight",
    *,
    margin: float = 0.0,
    flatten: Flatten = None,
    strict: bool = False,
) -> M:
    """Keep the eigenvalues of `module.<name>` left of `-margin`: `HurwitzStable`."""
    return register(module, name, HurwitzStable(margin=margin, strict=strict), flatten)


def schur_stable(
    module: M,
    name: str = "weight",
    *,
    bound: float = 1.0,
    flatten: Flatten = None,
    strict: bool = False,
) -> M:
    """Keep the spectral radius of `module.<name>` below `bound`: `SchurStable`."""
    return register(module, name, SchurStable(bound=bound, strict=strict), flatten)
