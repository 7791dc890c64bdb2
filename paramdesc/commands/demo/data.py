"""The handwritten digits that scikit-learn ships."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Digits", "load"]

FILE = "datasets/data/digits.csv.gz"


class Digits(NamedTuple):
    """Images `(m, 64)`, one pixel after the other, in 0 to 1, and labels `(m,)` from 0 to 9."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load() -> Digits:
    """1437 digits to train on and 360 to test on, the same ones each time.

    Every fifth image of each digit is for testing.
    """
    rows = torch.tensor(read_rows())
    images, labels = rows[:, :-1] / 16, rows[:, -1].long()
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    for digit in range(10):
        is_test[(labels == digit).nonzero()[::5]] = True
    return Digits(images[~is_test], labels[~is_test], images[is_test], labels[is_test])


def read_rows() -> list[list[float]]:
    """The 64 pixels, from 0 to 16, and the digit of each image."""
    found = find_spec("sklearn")
    file = Path(found.origin).parent / FILE if found and found.origin else None
    if file is not None and file.exists():  # importing scikit-learn takes more than a second
        with gzip.open(file, "rt") as lines:
            return [[float(number) for number in line.split(",")] for line in lines]
    from sklearn.datasets import load_digits  # noqa: PLC0415 # only for other versions

    digits = load_digits()
    return [[*image, digit] for image, digit in zip(digits.data, digits.target, strict=True)]
