"""The ready-made maps, and functions that register each of them in one line."""

from paramdesc.parametrizations.composition.blocks import Blocks, Stacked
from paramdesc.parametrizations.composition.compose import Compose
from paramdesc.parametrizations.composition.flattened import Flattened
from paramdesc.parametrizations.composition.joint import JointPart, Transposed
from paramdesc.parametrizations.composition.nested import Applied, Unchanged
from paramdesc.parametrizations.entries.from_distributions import FromDistributions
from paramdesc.parametrizations.entries.frozen import Frozen
from paramdesc.parametrizations.entries.interval import Interval, UnitInterval
from paramdesc.parametrizations.entries.ordered import Ordered
from paramdesc.parametrizations.entries.positive import Positive
from paramdesc.parametrizations.entries.scaled import ReZero, Scaled
from paramdesc.parametrizations.entries.simplex import Simplex
from paramdesc.parametrizations.entries.stick_breaking import StickBreaking
from paramdesc.parametrizations.entries.straight_through import Rounded, StraightThrough
from paramdesc.parametrizations.functions.adapter_states import (
    adapter_state_dict,
    load_adapters,
    unmerge_lora,
)
from paramdesc.parametrizations.functions.adapters import lora, merge_lora
from paramdesc.parametrizations.functions.entry_functions import (
    centered,
    constrained,
    frobenius_norm,
    frozen,
    interval,
    magnitude_mask,
    masked,
    max_norm,
    oblique,
    ordered,
    positive,
    pruned,
    rezero,
    rounded,
    scaled,
    simplex,
    sphere,
    unit_interval,
    weight_standardization,
)
from paramdesc.parametrizations.functions.jointly import assign_jointly, joint, tie
from paramdesc.parametrizations.functions.lipschitz_functions import (
    kernel_spectral_norm,
    lipschitz_rescaled,
    lipschitz_residual,
    operator_norm_1,
    operator_norm_inf,
    orthogonal_convolution,
)
from paramdesc.parametrizations.functions.matrix_functions import (
    almost_orthogonal,
    banded,
    bjorck,
    circulant,
    correlation,
    diagonal,
    fixed_rank,
    gram,
    grassmann,
    hamiltonian,
    hermitian,
    hurwitz_stable,
    low_rank,
    normal,
    permutation_equivariant,
    positive_definite,
    positive_determinant,
    positive_semidefinite,
    rank_one,
    schur_stable,
    skew,
    skew_hermitian,
    special_linear,
    special_orthogonal,
    symmetric,
    symplectic,
    toeplitz,
    traceless,
    triangular,
)
from paramdesc.parametrizations.functions.old_checkpoints import OldSpectralNorm, OldWeightNorm
from paramdesc.parametrizations.functions.torch_functions import (
    orthogonal,
    spectral_norm,
    weight_norm,
)
from paramdesc.parametrizations.lipschitz.orthogonal_convolution import OrthogonalConvolution
from paramdesc.parametrizations.lipschitz.rescaled import LipschitzRescaled
from paramdesc.parametrizations.lipschitz.residual import LipschitzResidual
from paramdesc.parametrizations.norms.absolute_sums import AbsoluteSums
from paramdesc.parametrizations.norms.centered import Centered
from paramdesc.parametrizations.norms.convolution_norm import ConvolutionSpectralNorm
from paramdesc.parametrizations.norms.frobenius_norm import FrobeniusNorm
from paramdesc.parametrizations.norms.max_norm import MaxNorm
from paramdesc.parametrizations.norms.spectral_norm import SpectralNorm
from paramdesc.parametrizations.norms.weight_norm import WeightNorm
from paramdesc.parametrizations.norms.weight_standardization import WeightStandardization
from paramdesc.parametrizations.orthogonality.almost_orthogonal import AlmostOrthogonal
from paramdesc.parametrizations.orthogonality.bjorck import Bjorck
from paramdesc.parametrizations.orthogonality.grassmann import Grassmann
from paramdesc.parametrizations.orthogonality.oblique import Oblique
from paramdesc.parametrizations.orthogonality.orthogonal import Orthogonal
from paramdesc.parametrizations.orthogonality.special_orthogonal import SpecialOrthogonal
from paramdesc.parametrizations.orthogonality.sphere import Sphere
from paramdesc.parametrizations.orthogonality.torch_layouts import TorchOrthogonal
from paramdesc.parametrizations.spectra.correlation import Correlation
from paramdesc.parametrizations.spectra.fixed_rank import FixedRank
from paramdesc.parametrizations.spectra.gram import Gram
from paramdesc.parametrizations.spectra.lora import LoRA
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
from paramdesc.parametrizations.structure.linear_structure import LinearStructure
from paramdesc.parametrizations.structure.masked import Masked
from paramdesc.parametrizations.structure.normal import Normal
from paramdesc.parametrizations.structure.permutation_equivariant import PermutationEquivariant
from paramdesc.parametrizations.structure.skew import Skew
from paramdesc.parametrizations.structure.symmetric import Symmetric
from paramdesc.parametrizations.structure.symplectic import Symplectic
from paramdesc.parametrizations.structure.toeplitz import Toeplitz
from paramdesc.parametrizations.structure.traceless import Traceless
from paramdesc.parametrizations.structure.triangular import Triangular

__all__ = [
    "AbsoluteSums",
    "AlmostOrthogonal",
    "Banded",
    "Bjorck",
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
    "LipschitzRescaled",
    "LipschitzResidual",
    "LoRA",
    "LowRank",
    "Masked",
    "MaxNorm",
    "Normal",
    "Oblique",
    "Ordered",
    "Orthogonal",
    "OrthogonalConvolution",
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
    "adapter_state_dict",
    "almost_orthogonal",
    "assign_jointly",
    "banded",
    "bjorck",
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
    "kernel_spectral_norm",
    "lipschitz_rescaled",
    "lipschitz_residual",
    "load_adapters",
    "lora",
    "low_rank",
    "magnitude_mask",
    "masked",
    "max_norm",
    "merge_lora",
    "normal",
    "oblique",
    "operator_norm_1",
    "operator_norm_inf",
    "ordered",
    "orthogonal",
    "orthogonal_convolution",
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
    "unmerge_lora",
    "weight_norm",
    "weight_standardization",
]

# A pickle names the module of each class in it. With this public module for all of them, a pickle
# from one release loads in the next, even if a class has moved to another file. The six helpers are
# in pickles of maps and of registered models.
for _class in (
    *(globals()[name] for name in __all__),
    Applied,
    JointPart,
    OldSpectralNorm,
    OldWeightNorm,
    StickBreaking,
    Unchanged,
):
    if isinstance(_class, type):
        _class.__module__ = __name__
del _class
