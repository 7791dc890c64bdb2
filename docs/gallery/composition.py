"""Composition."""

from .entry import Entry
from .plots import eigenvalues, singular_values, singular_values_of_blocks
from .weights import FILTERS, SQUARE, TALL, applied, gaussian, jointly

__all__ = ["ENTRIES"]

ENTRIES: tuple[Entry, ...] = (
    Entry(
        "Compose(Symmetric(), torch.matrix_exp)",
        SQUARE,
        eigenvalues(),
        "One map after another: the exponential of a symmetric matrix is positive definite. "
        "The picture shows the original on the left.",
        applied,
    ),
    Entry(
        "Blocks([Orthogonal(), Symmetric(), None], 3)",
        gaussian(12, 4),
        singular_values_of_blocks(3),
        "Each block has a map of its own; here an orthogonal one, a symmetric one, and none.",
    ),
    Entry(
        "Stacked(Orthogonal(), 3)",
        gaussian(12, 4),
        singular_values_of_blocks(3),
        "One map for all blocks of equal size, computed in one call. Here each block is "
        "orthogonal.",
    ),
    Entry(
        "Flattened(Orthogonal(), rows=0)",
        FILTERS,
        singular_values(1),
        "A tensor treated as a matrix; here a convolution, with one row for each output channel.",
    ),
    Entry(
        "Orthogonal()",
        TALL,
        singular_values(1),
        "One map on several tensors. They are drawn below each other, and are orthogonal together.",
        jointly,
        "q.weight, k.weight",
        call="joint(Orthogonal(), [(q, 'weight'), (k, 'weight')])",
    ),
    Entry(
        "Transposed()",
        TALL,
        singular_values(),
        "The transpose of the original, which the picture shows on the left.",
        applied,
    ),
)
