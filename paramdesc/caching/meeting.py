"""The processes that divide batches, and the points at which they exchange something.

A process that waits for another one, which does something else, would wait forever, or receive what
was meant for another exchange. So before each exchange, and at the end of a block in which there
was one, all processes tell each other where they are. They continue if all are at the same point,
and otherwise raise an error, all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Any
from weakref import WeakKeyDictionary

import torch

from paramdesc.errors import DividedBatchError
from paramdesc.torch_internals.between_ranks import all_told, rank_and_size

__all__ = ["Meeting", "Point"]

_BATCHES: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
"""The number of batches that each group has divided. All of its processes have the same number."""
_LENGTH = 3
"""How many numbers are told besides the point. The same at all points."""


class Point(IntEnum):
    """Where a process is when it tells the others."""

    READ = 0
    BACKWARD = 1
    END = 2


class Meeting:
    """The processes between which the batches of one block are divided.

    Args:
        group: the processes, as `torch.distributed` gives them.
    """

    __slots__ = ("device", "group", "names")

    def __init__(self, group: Any) -> None:
        self.group = group
        self.device: torch.device | None = None  # of the last batch in this block
        self.names: Sequence[str] = ()

    @property
    def size(self) -> int:
        """The number of processes. Zero in a process that is not one of them."""
        return rank_and_size(self.group)[1]

    def count_batch(self, device: torch.device) -> int:
        """Count a batch that all processes have evaluated. Returns its number."""
        number = _BATCHES[self.group] = _BATCHES.get(self.group, 0) + 1
        self.device = device
        return number

    def tell(
        self, point: Point, names: Sequence[str], numbers: Sequence[int], device: torch.device
    ) -> list[list[int]]:
        """What all processes tell at this point, in the order of ranks.

        Raises:
            DividedBatchError: in all processes, if one of them is at another point, or has ended.
        """
        self.names = names
        padded = [*numbers, *[0] * (_LENGTH - len(numbers))]
        with self.exchanging(names):
            told = all_told([point, *padded], self.group, device)
        others = {rank: Point(x[0]).name for rank, x in enumerate(told) if x[0] != point}
        if others:
            raise DividedBatchError.apart(point.name, names, others)
        return [x[1:] for x in told]

    def before_backward(self, names: Sequence[str], number: int, device: torch.device) -> Any:
        """Make sure that all processes are in the backward pass of the batch with this number.

        Returns a context for the exchange of its gradients.
        """
        told = self.tell(Point.BACKWARD, names, [number], device)
        if len({x[0] for x in told}) > 1:
            raise DividedBatchError.disordered(names)
        return self.exchanging(names)

    def end(self) -> None:
        """Make sure that all processes are at the end of the block, if they divided batches in it.

        Otherwise another one may be in a backward pass that this one has not run.
        """
        device, self.device = self.device, None
        if device is not None:
            self.tell(Point.END, self.names, [], device)

    @contextmanager
    def exchanging(self, names: Sequence[str]) -> Iterator[None]:
        """A block in which processes send each other something about the tensors in `names`.

        Raises:
            DividedBatchError: if another process has ended, or does not answer in time.
        """
        try:
            yield
        except DividedBatchError:
            raise
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise DividedBatchError.lost(names, error) from error
