"""Rank."""

from .entry import Entry
from .plots import DIFFERENCE, singular_values
from .weights import TALL, gaussian, with_tensor

__all__ = ["ENTRIES"]

ENTRIES: tuple[Entry, ...] = (
    Entry("LowRank(3)", TALL, singular_values(), "Three singular values at most are not zero."),
    Entry(
        "FixedRank(3, floor=0.4)",
        gaussian(12, 2) @ gaussian(2, 6) * 0.8,
        singular_values(0.4),
        "Three singular values are `floor` at least, and the others are zero. In the picture, "
        "the weight has rank two at first.",
    ),
    Entry("RankOne()", TALL, singular_values(), "A column times a row."),
    Entry(
        "LoRA(2)",
        TALL,
        DIFFERENCE,
        "A frozen weight plus a trained matrix of low rank, which is zero at first. In the "
        "picture it is random.",
        with_tensor("0.lora_B", gaussian(12, 2, seed=1)),
        "layer.weight, lora_B random",
    ),
)
