"""One way to make a training step, and what measures what a map makes of it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from tests.chain.step_table.subjects import SPECTRAL_NORM, SUBJECTS, Subject

__all__ = ["FOLLOWS", "MOVES", "STAYS", "STEPS", "Case", "Loss", "Step", "isolated"]

STEPS = 150
FOLLOWS, DRIFTS, MOVES, STAYS = "follows", "drifts", "moves", "stays"
"""In the table: it moves at each step, and the norm at the end is right; or it is not; it moves
where no step was made; it does not move at all, or not at each step.
"""

Loss = Callable[[], Any]
Step = Callable[[Loss], None]
"""It makes one step for a loss: the forward pass, the backward pass, and the write."""


def unwrapped(model: nn.Module) -> nn.Module:
    return model


@dataclass(frozen=True)
class Case:
    """A way to train a model, which the stepper is made for."""

    group: str
    title: str
    stepper: Callable[[Any], Step]
    wrap: Callable[[nn.Module], Any] = unwrapped
    is_distributed: bool = False
    has_matrices_only: bool = False
    evaluates_often: bool = False

    def train(self, subject: Subject, steps: int) -> tuple[list[int], float]:
        """How often the state had moved at each step, and the norm of the layer at the end."""
        with isolated():
            model, state = subject.build()
            model = self.wrap(model)
            loss, step = subject.loss(model), self.stepper(model)
            moves = []
            start = state._version
            for _ in range(steps):
                step(loss)
                moves.append(state._version - start)
            loss()
            moves.append(state._version - start)
            return moves, subject.norm(model)

    def takes(self, subject: Subject) -> bool:
        return len(subject.shape) == 1 or not self.has_matrices_only

    def verdict(self, subject: Subject) -> str:
        """What the table says of the map."""
        if not self.takes(subject):
            return ""
        moves, norm = self.train(subject, STEPS)
        if any(after <= before for before, after in pairwise(moves)):
            return STAYS
        return FOLLOWS if 0.99 <= norm <= 1.1 else DRIFTS

    def verdict_without_samples(self) -> str:
        """The same where no numbers are looked at, as on a GPU."""
        with patch("paramdesc.chain.steps.sample", lambda _: None):
            return self.verdict(SPECTRAL_NORM)

    def row(self) -> list[str]:
        """The cells of the table."""
        return [*map(self.verdict, SUBJECTS), self.verdict_without_samples()]


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """The same numbers each time, and none of the warnings that optimizers and wrappers give."""
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        yield
