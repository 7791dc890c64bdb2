"""The ready-made maps, and functions that register each of them in one line."""

from paramdesc.parametrizations.almost_orthogonal import AlmostOrthogonal
from paramdesc.parametrizations.banded import Banded
from paramdesc.parametrizations.blocks import Blocks, Stacked
from paramdesc.parametrizations.centered import Centered
from paramdesc.parametrizations.circulant import Circulant
from paramdesc.parametrizations.compose import Compose
from paramdesc.parametrizations.convolution_norm import ConvolutionSpectralNorm
from paramdesc.parametrizations.correlation import Correlation
from paramdesc.parametrizations.diagonal import Diagonal
from paramdesc.parametrizations.fixed_rank import FixedRank
from paramdesc.parametrizations.flattened import Flattened
from paramdesc.parametrizations.frobenius_norm import FrobeniusNorm
from paramdesc.parametrizations.from_distributions import FromDistributions
from paramdesc.parametrizations.frozen import Frozen
from paramdesc.parametrizations.gram import Gram
from paramdesc.parametrizations.grassmann import Grassmann
from paramdesc.parametrizations.hamiltonian import Hamiltonian
from paramdesc.parametrizations.hermitian import Hermitian, SkewHermitian
from paramdesc.parametrizations.interval import Interval, UnitInterval
from paramdesc.parametrizations.joint import Transposed
from paramdesc.parametrizations.linear_structure import LinearStructure
from paramdesc.parametrizations.lora import LoRA
from paramdesc.parametrizations.low_rank import LowRank
from paramdesc.parametrizations.masked import Masked
from paramdesc.parametrizations.max_norm import MaxNorm
from paramdesc.parametrizations.normal import Normal
from paramdesc.parametrizations.oblique import Oblique
from paramdesc.parametrizations.ordered import Ordered
from paramdesc.parametrizations.orthogonal import Orthogonal
from paramdesc.parametrizations.permutation_equivariant import PermutationEquivariant
from paramdesc.parametrizations.positive import Positive
from paramdesc.parametrizations.positive_definite import PositiveDefinite
from paramdesc.parametrizations.positive_determinant import PositiveDeterminant
from paramdesc.parametrizations.positive_semidefinite import PositiveSemidefinite
from paramdesc.parametrizations.rank_one import RankOne
from paramdesc.parametrizations.scaled import ReZero, Scaled
from paramdesc.parametrizations.simplex import Simplex
from paramdesc.parametrizations.skew import Skew
from paramdesc.parametrizations.special_linear import SpecialLinear
from paramdesc.parametrizations.special_orthogonal import SpecialOrthogonal
from paramdesc.parametrizations.spectral_norm import SpectralNorm
from paramdesc.parametrizations.sphere import Sphere
from paramdesc.parametrizations.stable import HurwitzStable, SchurStable
from paramdesc.parametrizations.straight_through import Rounded, StraightThrough
from paramdesc.parametrizations.symmetric import Symmetric
from paramdesc.parametrizations.symplectic import Symplectic
from paramdesc.parametrizations.toeplitz import Toeplitz
from paramdesc.parametrizations.torch_layouts import TorchOrthogonal
from paramdesc.parametrizations.traceless import Traceless
from paramdesc.parametrizations.triangular import Triangular
from paramdesc.parametrizations.weight_norm import WeightNorm
from paramdesc.parametrizations.weight_standardization import WeightStandardization
from paramdesc.parametrizations.entry_functions import centered, constrained, frobenius_norm, frozen, interval, magnitude_mask, masked, max_norm, oblique, ordered, positive, pruned, rezero, rounded, scaled, simplex, sphere, unit_interval, weight_standardization
from paramdesc.parametrizations.functions import orthogonal, spectral_norm, weight_norm
from paramdesc.parametrizations.jointly import assign_jointly, joint, tie
from paramdesc.parametrizations.lora import lora, merge_lora
from paramdesc.parametrizations.matrix_functions import almost_orthogonal, banded, circulant, correlation, diagonal, fixed_rank, gram, grassmann, hamiltonian, hermitian, hurwitz_stable, low_rank, normal, permutation_equivariant, positive_definite, positive_determinant, positive_semidefinite, rank_one, schur_stable, skew, skew_hermitian, special_linear, special_orthogonal, symmetric, symplectic, toeplitz, traceless, triangular

__all__ = [
    "AlmostOrthogonal",
    "Banded",
    "Blocks",
    "Centered",
    "Circulant",
    "Compose",
    "ConvolutionSpectralNorm",
    "Correlation",
    "Diagonal",
    "FixedRank",
    "Flattened",
    "FrobeniusNorm",
    "FromDistributions",
    "Frozen",
    "Gram",
    "Grassmann",
    "Hamiltonian",
    "Hermitian",
    "HurwitzStable",
    "Interval",
    "LinearStructure",
    "LoRA",
    "LowRank",
    "Masked",
    "MaxNorm",
    "Normal",
    "Oblique",
    "Ordered",
    "Orthogonal",
    "PermutationEquivariant",
    "Positive",
    "PositiveDefinite",
    "PositiveDeterminant",
    "PositiveSemidefinite",
    "RankOne",
    "ReZero",
    "Rounded",
    "Scaled",
    "SchurStable",
    "Simplex",
    "Skew",
    "SkewHermitian",
    "SpecialLinear",
    "SpecialOrthogonal",
    "SpectralNorm",
    "Sphere",
    "Stacked",
    "StraightThrough",
    "Symmetric",
    "Symplectic",
    "Toeplitz",
    "TorchOrthogonal",
    "Traceless",
    "Transposed",
    "Triangular",
    "UnitInterval",
    "WeightNorm",
    "WeightStandardization",
    "almost_orthogonal",
    "assign_jointly",
    "banded",
    "centered",
    "circulant",
    "constrained",
    "correlation",
    "diagonal",
    "fixed_rank",
    "frobenius_norm",
    "frozen",
    "gram",
    "grassmann",
    "hamiltonian",
    "hermitian",
    "hurwitz_stable",
    "interval",
    "joint",
    "lora",
    "low_rank",
    "magnitude_mask",
    "masked",
    "max_norm",
    "merge_lora",
    "normal",
    "oblique",
    "ordered",
    "orthogonal",
    "permutation_equivariant",
    "positive",
    "positive_definite",
    "positive_determinant",
    "positive_semidefinite",
    "pruned",
    "rank_one",
    "rezero",
    "rounded",
    "scaled",
    "schur_stable",
    "simplex",
    "skew",
    "skew_hermitian",
    "special_linear",
    "special_orthogonal",
    "spectral_norm",
    "sphere",
    "symmetric",
    "symplectic",
    "tie",
    "toeplitz",
    "traceless",
    "triangular",
    "unit_interval",
    "weight_norm",
    "weight_standardization",
]
