"""One map on several tensors: what belongs to one of them.

Without postponed annotations: TorchScript takes those of a class as they are.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from paramdesc.chain.parametrization import Move, Parametrization
from paramdesc.chain.protocols import ParametrizationProto, TensorMap
from paramdesc.parametrizations.composition.nested import MovesInner, inner_map, movable_in

__all__ = ["JointPart", "Transposed", "split_like", "stacked"]

LARGEST_COUNT = 8
"""TorchScript wants each original of a map written out."""


class JointPart(MovesInner):
    """`layer.weight` will be one part of what a map makes of several tensors put together.

    `joint` registers these, one on each tensor. Each has all originals, which are shared, so
    that whatever reads, trains, moves or saves one sees the others.

    Shapes: parts that are put together along a dimension agree in all others; one that lacks
    this dimension, as a bias beside its weight, is taken for one of size 1. `dim=None` puts all
    entries in one vector. The cost is that of the map on the whole, for each part that is read.

    A single part cannot be assigned to, as the originals of all change together: see
    `assign_jointly`.

    Args:
        parametrization: the map of the whole.
        index: which part this is.
        dim: the dimension along which the parts are put together.

    Raises:
        RuntimeError: if it is assigned to by itself.
    """

    pending: list[Tensor] | None

    def __init__(
        self,
        parametrization: ParametrizationProto | TensorMap,
        index: int,
        dim: int | None = 0,
    ) -> None:
        super().__init__()
        self.map = inner_map(parametrization)
        self.index = index
        self.whole = dim is None
        self.dim = 0 if dim is None else dim
        self.pending = None

    def forward(
        self,
        X0: Tensor,
        X1: Tensor | None = None,
        X2: Tensor | None = None,
        X3: Tensor | None = None,
        X4: Tensor | None = None,
        X5: Tensor | None = None,
        X6: Tensor | None = None,
        X7: Tensor | None = None,
    ) -> Tensor:
        parts = [X0]
        for X in [X1, X2, X3, X4, X5, X6, X7]:
            if X is not None:
                parts.append(X)  # noqa: PERF401  # TorchScript knows no extend by such a list
        value: Tensor = self.map(stacked(parts, self.dim, self.whole))
        return split_like(value, parts, self.dim, self.whole)[self.index]

    def right_inverse(self, Y: Tensor) -> Sequence[Tensor]:
        if self.pending is None:
            raise RuntimeError(
                "cannot assign to one part of a joint map: the originals of all parts change "
                "together. Write assign_jointly([(module, name), ...], [value, ...]) with all "
                "of them."
            )
        return self.pending

    def movable(self) -> list[Parametrization]:
        return movable_in([self.map])

    def moves_with(self, other: Parametrization) -> bool:
        return isinstance(other, JointPart)  # each part has a copy of the map

    def moved(self, *originals: Tensor, steps: int | None = None) -> Move:
        parts = list(originals)
        (inner,) = self.movable()
        (original,), bases = inner.moved(stacked(parts, self.dim, self.whole), steps=steps)
        return tuple(split_like(original, parts, self.dim, self.whole)), bases

    def extra_repr(self) -> str:
        return f"part {self.index}, dim={None if self.whole else self.dim}"


class Transposed(Parametrization):
    """`layer.weight` will be `Xᵀ`.

    Shapes `(*, m, n) -> (*, n, m)`, of any dtype; register it with `unsafe=True`, or see `tie`.
    Assigning keeps any value. It costs nothing: the value is a view.

    >>> linear = torch.nn.Linear(3, 2)
    >>> linear = register_parametrization(linear, "weight", Transposed(), unsafe=True)
    >>> linear.parametrizations.weight.original.shape
    torch.Size([3, 2])
    """

    def forward(self, X: Tensor) -> Tensor:
        return X.mT

    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y.mT.contiguous()  # FSDP shards contiguous Parameters only


def stacked(parts: list[Tensor], dim: int, whole: bool) -> Tensor:
    """The parts, put together."""
    if whole:
        return torch.cat([X.reshape([-1]) for X in parts])
    ndim = 0
    for X in parts:
        ndim = max(ndim, X.ndim)
    columns: list[Tensor] = []
    for X in parts:
        columns.append(X if X.ndim == ndim else X.unsqueeze(dim))  # noqa: PERF401
    return torch.cat(columns, dim)


def split_like(value: Tensor, parts: list[Tensor], dim: int, whole: bool) -> list[Tensor]:
    """What `value` holds at the places of the parts, in their shapes."""
    sizes: list[int] = []
    for X in parts:
        if whole:
            sizes.append(X.numel())
        else:
            sizes.append(X.shape[dim] if X.ndim == value.ndim else 1)
    blocks = torch.split(value, sizes, dim)
    shaped: list[Tensor] = []
    for block, X in zip(blocks, parts):  # noqa: B905  # TorchScript knows no strict=True
        shaped.append(block.reshape(X.shape))
    return shaped
