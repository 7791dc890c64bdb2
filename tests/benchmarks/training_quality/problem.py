"""What is trained: a problem with a known solution, and the contestants that solve it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["Contestant", "NewOptimizer", "Problem", "Trainee", "of_torch", "random"]

NewOptimizer = Callable[[Sequence[nn.Parameter], str, float], Optimizer | None]
"""Makes the optimizer of that name and learning rate, or None if the library has none."""


def of_torch(parameters: Sequence[nn.Parameter], name: str, rate: float) -> Optimizer:
    if name == "Adam":
        return torch.optim.Adam(parameters, lr=rate)
    if name == "AdamW":
        return torch.optim.AdamW(parameters, lr=rate)
    return torch.optim.SGD(parameters, lr=rate, momentum=0.9 if name == "momentum" else 0.0)


@dataclass(frozen=True)
class Trainee:
    """A constrained weight that is ready to be trained."""

    read: Callable[[], Tensor]
    parameters: Sequence[nn.Parameter]
    new_optimizer: NewOptimizer = of_torch


@dataclass(frozen=True)
class Contestant:
    """A way to constrain a weight. `make` takes the value that training starts from."""

    library: str
    make: Callable[[Tensor], Trainee]

    @property
    def is_ours(self) -> bool:
        return self.library == "paramdesc"


@dataclass(frozen=True)
class Problem:
    """A loss of a constrained weight, zero at the solution.

    `loss` takes the weight and the tensors of `data`, in the dtype of the weight. `project` takes
    a weight to the nearest one that satisfies the constraint, where `loss` may be below zero for
    others.
    """

    text: str
    start: Tensor
    loss: Callable[..., Tensor]
    data: tuple[Tensor, ...]
    deviation: Callable[[Tensor], Any]
    contestants: Mapping[str, Contestant]
    steps: int = 300
    project: Callable[[Tensor], Tensor] = field(default=lambda weight: weight)


class Numbers:
    """Random tensors in double precision, the same in each run."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator, dtype=torch.float64)

    def orthogonal(self, n: int, k: int) -> Tensor:
        """With orthonormal columns, and determinant one if it is square."""
        Q: Tensor = torch.linalg.qr(self.normal(n, k)).Q
        if n == k and torch.linalg.det(Q) < 0:
            Q[:, 0] *= -1
        return Q

    def spectrum(self, values: Tensor) -> Tensor:
        """A symmetric matrix of these eigenvalues."""
        Q = self.orthogonal(len(values), len(values))
        return (Q * values) @ Q.mT

    def sample(self, count: int, n: int) -> Tensor:
        """Inputs of a regression; their covariance is about the identity."""
        return self.normal(count, n)


random = Numbers
