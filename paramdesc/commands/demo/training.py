"""Training the variants side by side, with measurements between the steps."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from random import Random
from statistics import median

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from paramdesc.commands.demo.data import Digits
from paramdesc.commands.demo.variants import Variant

__all__ = ["Run", "make_runs", "train"]

BATCH = 128
LEARNING_RATE = 2e-2
SLOW_LEARNING_RATE = 3e-3
N_TESTS = 60


class Run:
    """One variant in training, and what was measured of it.

    `seconds` and both deviations have an item per training step. `accuracies` go with `tested_at`,
    in steps.
    """

    def __init__(self, variant: Variant, steps: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.variant = variant
        self.model = variant.make()
        self.optimizer, self.schedule = make_optimizer(self.model, steps)
        self.seconds: list[float] = []
        self.kernel_deviations: list[float] = []
        self.norm_deviations: list[float] = []
        self.accuracies: list[float] = []
        self.tested_at: list[int] = []
        self.uses: list[bool] = []  # which of `USES` work afterwards

    def step(self, images: Tensor, labels: Tensor) -> None:
        """Make one training step and time it. The clock stands still for the measurements."""
        start = time.perf_counter()
        self.optimizer.zero_grad()
        with self.variant.training_scope(self.model):
            loss = cross_entropy(self.model(images), labels)
            torch.autograd.backward(loss)
            pause = time.perf_counter()
            self.measure()
            resume = time.perf_counter()
        self.optimizer.step()
        self.seconds.append(time.perf_counter() - resume + pause - start)
        self.schedule.step()

    @torch.no_grad()
    def measure(self) -> None:
        """Measure how far the weights of this step are from orthogonal and from norm one."""
        kernel = self.model.cell.weight_hh.detach()
        product = kernel.T @ kernel
        product.diagonal().sub_(1)
        self.kernel_deviations.append(product.norm().item())
        norm = torch.linalg.matrix_norm(self.model.readout.weight.detach(), 2).item()
        self.norm_deviations.append(abs(norm - 1))

    @torch.no_grad()
    def test(self, images: Tensor, labels: Tensor) -> None:
        """Measure the fraction of `images` that is read correctly."""
        self.model.eval()
        with self.variant.training_scope(self.model):
            guesses = self.model(images).argmax(dim=1)
        self.accuracies.append((guesses == labels).float().mean().item())
        self.tested_at.append(len(self.seconds))
        self.model.train()

    @property
    def time_per_step(self) -> float:
        """The median, in seconds."""
        return median(self.seconds)


def make_optimizer(
    model: torch.nn.Module, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Adam with one cycle of learning rates, lower for the kernel and the read-out."""
    slow: list[Tensor] = []
    fast: list[Tensor] = []
    for name, parameter in model.named_parameters():
        is_slow = "weight_hh" in name or name.startswith("readout.")
        (slow if is_slow else fast).append(parameter)
    optimizer = torch.optim.Adam([{"params": slow}, {"params": fast}])
    rates: list[float] = [SLOW_LEARNING_RATE, LEARNING_RATE]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps)
    return optimizer, schedule


def make_runs(variants: Sequence[Variant], steps: int, seed: int) -> list[Run]:
    """A run for each variant, all from the same initial values."""
    return [Run(variant, steps, seed) for variant in variants]


def train(runs: Sequence[Run], digits: Digits, steps: int, seed: int) -> Iterator[int]:
    """Train all runs on the same batches; yields the number of steps made.

    They take turns step by step, so that whatever else the machine does slows all alike, and
    in an order drawn anew each time, so that none gains by what runs before it.
    """
    batches = make_batches(digits, seed)
    order = Random(seed)
    test_all(runs, digits)
    yield 0
    for step in range(1, steps + 1):
        batch = next(batches)
        for run in order.sample(runs, len(runs)):
            run.step(digits.train_images[batch], digits.train_labels[batch])
        if step % max(1, steps // N_TESTS) == 0 or step == steps:
            test_all(runs, digits)
        yield step


def test_all(runs: Sequence[Run], digits: Digits) -> None:
    for run in runs:
        run.test(digits.test_images, digits.test_labels)


def make_batches(digits: Digits, seed: int) -> Iterator[Tensor]:
    """Indices of training images, shuffled anew each time that all full batches were given."""
    generator = torch.Generator().manual_seed(seed)
    count = len(digits.train_images)
    while True:
        order = torch.randperm(count, generator=generator)
        yield from (order[i : i + BATCH] for i in range(0, count - BATCH + 1, BATCH))
