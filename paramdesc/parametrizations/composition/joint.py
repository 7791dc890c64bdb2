"""One map on several tensors: the part that belongs to one of them.

No `from __future__ import annotations`: TorchScript needs the annotations of the class as objects.
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
    """Make `layer.weight` one part of the value of a map on several concatenated tensors.

    `joint` registers one `JointPart` on each tensor. All parts share the same originals, so
    reading, training, moving or saving one part involves the others.

    Shapes: parts that are concatenated along a dimension must agree in all others. A part that
    lacks this dimension, such as a bias next to its weight, is treated as having size 1 there.
    `dim=None` concatenates all entries into one vector. Reading a part costs one evaluation of the
    map on the whole.

    A single part cannot be assigned to, because its originals belong to all parts: use
    `assign_jointly`.

    Args:
        parametrization: the map of the whole.
        index: the index of this part.
        dim: the dimension along which the parts are concatenated.

    Raises:
        RuntimeError: if a value is assigned to this part alone.
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
                parts.append(X)  # noqa: PERF401  # TorchScript supports no such extend
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
    """Make `layer.weight` the transpose of its original, `Xᵀ`.

    Shapes `(*, m, n) -> (*, n, m)`, of any dtype. Register it with `unsafe=True`, or use `tie`.
    Assignment keeps any value. The cost is zero: the value is a view.

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
    """The concatenation of the parts."""
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
    """The pieces of `value` that belong to the parts, in their shapes."""
    sizes: list[int] = []
    for X in parts:
        if whole:
            sizes.append(X.numel())
        else:
            sizes.append(X.shape[dim] if X.ndim == value.ndim else 1)
    blocks = torch.split(value, sizes, dim)
    shaped: list[Tensor] = []
    for block, X in zip(blocks, parts):  # noqa: B905  # TorchScript does not support strict=True
        shaped.append(block.reshape(X.shape))
    return shaped
