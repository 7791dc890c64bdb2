"""Elements."""

import torch

from .entry import Entry
from .plots import BY_DIAGONAL, CHANGE, ROW_CHANGES, ROW_SUMS, ROWS, row_norms
from .weights import LENGTHS, SQUARE, TALL, gaussian, trained, with_tensor

__all__ = ["ENTRIES"]

ENTRIES: tuple[Entry, ...] = (
    Entry(
        "Positive()",
        SQUARE,
        CHANGE,
        "All entries are positive. Registering keeps those that are, and puts the others just "
        "above zero.",
    ),
    Entry("Interval(-0.2, 0.4)", SQUARE, CHANGE, "All entries are between two bounds."),
    Entry("UnitInterval()", 2 * SQUARE.abs(), CHANGE, "All entries are between zero and one."),
    Entry(
        "Simplex()",
        gaussian(8, 8).abs(),
        ROW_SUMS,
        "Each row is a distribution: nothing is negative, and the sum is one.",
    ),
    Entry("Ordered()", gaussian(8, 8), ROWS, "Each row increases."),
    Entry(
        "FromDistributions(constraints.lower_cholesky)",
        SQUARE + torch.eye(10),
        BY_DIAGONAL,
        "What torch.distributions has a constraint for; here, lower triangular with a positive "
        "diagonal.",
    ),
    Entry(
        "Rounded(3)",
        SQUARE,
        CHANGE,
        "All entries are on a grid, of which three bits give the place, and are trained as if "
        "they were not.",
    ),
    Entry(
        "StraightThrough(torch.sign)",
        SQUARE,
        CHANGE,
        "Any function, trained as if it were the identity; here, the sign.",
    ),
    Entry(
        "Frozen(slice(4))",
        SQUARE,
        ROW_CHANGES,
        "Some entries keep their value, here the first four rows, in a training step.",
        trained,
        "layer.weight, after a step",
    ),
    Entry(
        "Scaled(0)",
        TALL,
        row_norms(),
        "Each row has a trained scale. Registering changes nothing; here the scales were set "
        "to rise from row to row.",
        with_tensor("0.scale", LENGTHS),
        "layer.weight, new scales",
    ),
    Entry(
        "ReZero()",
        TALL,
        CHANGE,
        "The original times a trained scale that starts at zero; here, after it was set to 0.3.",
        with_tensor("0.scale", torch.tensor(0.3)),
        "layer.weight, scale 0.3",
    ),
)
