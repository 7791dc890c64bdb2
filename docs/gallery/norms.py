"""Norms."""

from .entry import Entry
from .plots import FROBENIUS_NORM, MOMENTS, OPERATOR, ROW_MEANS, row_norms, singular_values
from .weights import KERNEL, LENGTHS, TALL, with_tensor

__all__ = ["ENTRIES"]

ENTRIES: tuple[Entry, ...] = (
    Entry("SpectralNorm()", TALL, singular_values(1), "The largest singular value is one."),
    Entry(
        "ConvolutionSpectralNorm((6, 6), padding=1)",
        KERNEL,
        OPERATOR,
        "The largest singular value of the convolution itself is one, as a map of images.",
    ),
    Entry(
        "WeightNorm()",
        TALL,
        row_norms(),
        "Lengths and directions of rows are trained apart. Registering changes nothing; here "
        "the lengths were set to rise from row to row.",
        with_tensor("original0", LENGTHS),
        "layer.weight, new lengths",
    ),
    Entry("FrobeniusNorm(2.0)", TALL, FROBENIUS_NORM, "The root of the sum of squares is two."),
    Entry("MaxNorm()", TALL, row_norms(1), "No row is longer than one."),
    Entry("Centered()", TALL + 0.3, ROW_MEANS, "All rows have mean zero."),
    Entry(
        "WeightStandardization()",
        TALL + 0.3,
        MOMENTS,
        "All rows have mean zero and variance one.",
    ),
)
