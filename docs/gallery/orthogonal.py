"""Orthogonal matrices and spheres."""

from .entry import Entry
from .plots import eigenvalues, row_norms, singular_values
from .weights import SQUARE, TALL, WIDE

__all__ = ["ENTRIES"]

ENTRIES: tuple[Entry, ...] = (
    Entry("Orthogonal()", TALL, singular_values(1), "All singular values are one."),
    Entry(
        "TorchOrthogonal('cayley')",
        WIDE,
        singular_values(1),
        "As `Orthogonal`, from the tensors that torch's function saves.",
    ),
    Entry(
        "SpecialOrthogonal()",
        SQUARE,
        eigenvalues(circle=1),
        "A rotation: all eigenvalues are on the unit circle, and their product is one.",
    ),
    Entry(
        "Grassmann()",
        TALL,
        singular_values(1),
        "An orthonormal basis of a subspace; training turns the subspace alone.",
    ),
    Entry(
        "AlmostOrthogonal(0.25)",
        TALL,
        singular_values(0.75, 1.25),
        "All singular values are within a band around one.",
    ),
    Entry("Sphere()", TALL, row_norms(1), "All rows have length one."),
    Entry("Oblique()", TALL, row_norms(1, axis=0), "All columns have length one."),
)
