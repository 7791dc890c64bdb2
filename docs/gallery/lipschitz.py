"""Lipschitz layers."""

from .entry import Entry
from .plots import ABSOLUTE_SUMS, CIRCULAR_OPERATOR, OPERATOR, singular_values
from .weights import KERNEL, TALL

__all__ = ["ENTRIES"]

ENTRIES: tuple[Entry, ...] = (
    Entry(
        "OrthogonalConvolution()",
        KERNEL,
        CIRCULAR_OPERATOR,
        "All singular values of the convolution are one, as a map of images with circular padding.",
    ),
    Entry(
        "LipschitzRescaled()",
        KERNEL,
        OPERATOR,
        "No singular value of the convolution is above one: each input has a factor.",
    ),
    Entry(
        "LipschitzResidual()",
        TALL,
        singular_values(1),
        "With this weight `W`, `x - 2 Wᵀ relu(W x + b)` enlarges no distance.",
    ),
    Entry(
        "Bjorck()",
        TALL,
        singular_values(1),
        "All singular values are one to a chosen accuracy, by a fixed number of iterations.",
    ),
    Entry(
        "AbsoluteSums(by='each')",
        TALL,
        ABSOLUTE_SUMS,
        "The absolute values of each row sum to one at most.",
    ),
)
