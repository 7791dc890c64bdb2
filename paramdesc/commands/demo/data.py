"""The handwritten digits that scikit-learn ships: the one door to scikit-learn."""

from __future__ import annotations

from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

__all__ = ["Digits", "load"]


class Digits(NamedTuple):
    """Images `(m, 64)`, one pixel after the other, in 0 to 1, and labels `(m,)` from 0 to 9."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load() -> Digits:
    """1437 digits to train on and 360 to test on, the same ones each time."""
    digits = load_digits()
    train_images, test_images, train_labels, test_labels = train_test_split(
        digits.data, digits.target, test_size=0.2, stratify=digits.target, random_state=0
    )
    return Digits(
        torch.tensor(train_images, dtype=torch.float32) / 16,
        torch.tensor(train_labels),
        torch.tensor(test_images, dtype=torch.float32) / 16,
        torch.tensor(test_labels),
    )
