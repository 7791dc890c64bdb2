"""Linear structure."""

import torch

from .entry import Entry
from .plots import BY_DIAGONAL, CHANGE, NORMALITY, eigenvalues, mirrored
from .weights import COMPLEX, NEARLY_SYMPLECTIC, SQUARE

__all__ = ["ENTRIES"]

ENTRIES: tuple[Entry, ...] = (
    Entry(
        "Symmetric()",
        SQUARE,
        mirrored(),
        "Opposite entries are equal. Registering takes their mean.",
    ),
    Entry(
        "Hermitian()",
        COMPLEX,
        mirrored(conjugate=True),
        "Opposite entries are conjugate, and the diagonal is real.",
    ),
    Entry(
        "Skew()",
        SQUARE,
        mirrored(-1),
        "Opposite entries differ in sign, and the diagonal is zero.",
    ),
    Entry(
        "SkewHermitian()",
        COMPLEX,
        eigenvalues(),
        "Opposite entries are conjugate up to the sign: all eigenvalues are imaginary.",
    ),
    Entry("Triangular()", SQUARE, BY_DIAGONAL, "Zero above the diagonal."),
    Entry("Diagonal()", SQUARE, BY_DIAGONAL, "Zero off the diagonal."),
    Entry(
        "Banded(1, 2)",
        SQUARE,
        BY_DIAGONAL,
        "Zero but for the diagonal, one side diagonal below it, and two above it.",
    ),
    Entry(
        "Masked(torch.ones(10, 10).tril().rot90())",
        SQUARE,
        CHANGE,
        "Some entries are zero for good, the others are free.",
    ),
    Entry(
        "Traceless()",
        SQUARE + 0.8 * torch.eye(10),
        eigenvalues(mean=True),
        "The trace, which is the sum of the eigenvalues, is zero.",
    ),
    Entry(
        "Toeplitz()",
        SQUARE,
        BY_DIAGONAL,
        "Each diagonal is constant. Registering takes its mean.",
    ),
    Entry(
        "Circulant()",
        SQUARE,
        BY_DIAGONAL,
        "Each row is the one above, shifted by one place in a circle.",
    ),
    Entry(
        "PermutationEquivariant()",
        SQUARE + 0.6 * torch.eye(10),
        BY_DIAGONAL,
        "One number on the diagonal, and one off it.",
    ),
    Entry(
        "Hamiltonian()",
        SQUARE,
        eigenvalues(),
        "With each eigenvalue, its negative is one, too.",
    ),
    Entry(
        "Symplectic()",
        NEARLY_SYMPLECTIC,
        eigenvalues(circle=1),
        "With each eigenvalue, its inverse is one, too.",
    ),
    Entry(
        "Normal()",
        SQUARE,
        NORMALITY,
        "The moduli of the eigenvalues are the singular values.",
    ),
)
