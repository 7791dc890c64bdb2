"""Spectrum and determinant."""

import torch

from .entry import Entry
from .plots import DETERMINANT, eigenvalues
from .weights import SQUARE, applied

__all__ = ["ENTRIES"]

ENTRIES: tuple[Entry, ...] = (
    Entry(
        "PositiveDefinite()",
        SQUARE + 0.3 * torch.eye(10),
        eigenvalues(),
        "Symmetric, with positive eigenvalues.",
    ),
    Entry(
        "PositiveSemidefinite(rank=2)",
        SQUARE + 0.3 * torch.eye(10),
        eigenvalues(),
        "Symmetric, with eigenvalues that are not negative; here two that are not zero.",
    ),
    Entry(
        "Gram()",
        SQUARE,
        eigenvalues(),
        "The inner products of the rows of the original, which the picture shows on the left.",
        applied,
    ),
    Entry(
        "Correlation()",
        SQUARE + 0.3 * torch.eye(10),
        eigenvalues(),
        "Positive definite, with ones on the diagonal.",
    ),
    Entry(
        "PositiveDeterminant()",
        1.6 * SQUARE,
        DETERMINANT,
        "The determinant is positive. If it was not, one direction is turned over.",
    ),
    Entry("SpecialLinear()", 1.6 * SQUARE, DETERMINANT, "The determinant is one."),
    Entry(
        "HurwitzStable(margin=0.1)",
        SQUARE,
        eigenvalues(left_of=-0.1),
        "The real parts of all eigenvalues are less than minus the margin.",
    ),
    Entry(
        "SchurStable()",
        1.8 * SQUARE,
        eigenvalues(circle=1),
        "All eigenvalues are within the unit circle.",
    ),
)
