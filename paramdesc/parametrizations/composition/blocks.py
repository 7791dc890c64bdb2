"""Maps on the blocks of one tensor.

No `from __future__ import annotations`: TorchScript needs the annotations of the class as objects.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from paramdesc.chain.parametrization import Move, Parametrization
from paramdesc.chain.protocols import ParametrizationProto, TensorMap
from paramdesc.parametrizations.composition.nested import (
    MovesInner,
    assign_inner,
    constraint_of,
    inner_map,
    movable_in,
)

__all__ = ["Blocks", "Stacked"]

Map = ParametrizationProto | TensorMap | None


class Blocks(MovesInner):
    """Apply a separate map to each block of `layer.weight`.

    The tensor is split along `dim`, for example into the gates of an LSTM in `weight_hh_l0`, the
    heads of an attention projection, or the experts or groups in a leading dimension. `Y` is the
    concatenation of the blocks `maps[i](X_i)`.

    Shapes `(*) -> (*)`; dtypes are those of the maps. Assignment and registration go block by
    block. The cost is that of the maps plus one copy. `Stacked` is faster if all blocks have the
    same size and the map takes a batch.

    Args:
        maps: a list with one map for each block, where None leaves a block as it is; or a single
            map, of which each block gets a deep copy.
        blocks: the number of blocks of equal size, or a list with the size of each. By default,
            there are as many as maps in the list.
        dim: the dimension to split.
        strict: whether to reject a value with a block that its map does not reach.

    Raises:
        ValueError: if the numbers of maps and blocks differ, or the dimension cannot be split into
            these blocks.
        NotImplementedError: on assignment, if a map has no `right_inverse`.

    >>> lstm = torch.nn.LSTM(3, 4)
    >>> lstm = register_parametrization(lstm, "weight_hh_l0", Blocks(Symmetric(), 4))
    >>> input_gate, forget_gate, cell_gate, output_gate = lstm.weight_hh_l0.chunk(4)
    >>> bool((forget_gate == forget_gate.T).all())
    True
    """

    constraint = "composed of blocks that their maps reach"
    sizes: list[int]

    def __init__(
        self,
        maps: Map | Sequence[Map],
        blocks: int | Sequence[int] | None = None,
        *,
        dim: int = 0,
        strict: bool = False,
    ) -> None:
        super().__init__(strict=strict)
        is_list = isinstance(maps, (list, tuple, nn.ModuleList))
        listed: list[Map] = list(maps) if is_list else []  # type: ignore[arg-type]
        if blocks is None:
            blocks = len(listed)
        self.sizes = [] if isinstance(blocks, int) else list(blocks)
        self.count = blocks if isinstance(blocks, int) else len(self.sizes)
        self.dim = dim
        if self.count <= 0 or (is_list and len(listed) != self.count):
            given = f"{len(listed)} maps" if is_list else "one map"
            raise ValueError(
                f"Blocks got {given} for blocks={blocks!r}. Give a list of maps, one for each "
                "block, or one map and the number or the sizes of the blocks."
            )
        if not is_list:
            first = inner_map(maps)
            listed = [first, *(copy.deepcopy(first) for _ in range(self.count - 1))]
        self.maps = nn.ModuleList(inner_map(parametrization) for parametrization in listed)

    def cut(self, X: Tensor) -> list[Tensor]:
        """The blocks of `X`, as views."""
        if not -X.ndim <= self.dim < X.ndim:
            raise ValueError(f"a weight of shape {list(X.shape)} has no dimension {self.dim}.")
        length = X.shape[self.dim]
        sizes = self.sizes
        if len(sizes) == 0:
            if length % self.count != 0:
                raise ValueError(
                    f"dimension {self.dim} of shape {list(X.shape)} cannot be split into "
                    f"{self.count} blocks of the same size. Pass their sizes: blocks=[...]."
                )
            sizes = [length // self.count] * self.count
        elif sum(sizes) != length:
            raise ValueError(
                f"blocks of sizes {sizes} do not fill dimension {self.dim} of shape "
                f"{list(X.shape)}."
            )
        return list(torch.split(X, sizes, self.dim))

    def forward(self, X: Tensor) -> Tensor:
        blocks = self.cut(X)
        for i, parametrization in enumerate(self.maps):
            blocks[i] = parametrization(blocks[i])
        return torch.cat(blocks, self.dim)

    def right_inverse(self, Y: Tensor) -> Tensor:
        self.admit(Y)
        originals = []
        for parametrization, block in zip(self.maps, self.cut(Y), strict=True):
            original = assign_inner(parametrization, block)
            if not isinstance(original, Tensor):
                raise one_original(parametrization)
            originals.append(original)
        return torch.cat(originals, self.dim)

    def movable(self) -> list[Parametrization]:
        return movable_in(self.maps)

    def moved(self, *originals: Tensor, steps: int | None = None) -> Move:
        blocks, bases = self.cut(originals[0]), []
        for i, parametrization in enumerate(self.maps):
            for inner in movable_in([parametrization]):
                if steps is None or inner.is_move_due(steps):
                    (blocks[i],), base = inner.moved(blocks[i], steps=steps)
                    bases += base
        return (torch.cat(blocks, self.dim),), bases

    def deviation(self, Y: Tensor) -> Tensor:
        """The largest deviation of a block from the constraint of its map."""
        parts = zip(self.maps, self.cut(Y), strict=True)
        return torch.stack([constraint_of(*part)[0] for part in parts]).amax()

    def tolerance(self, Y: Tensor) -> float:
        return max(constraint_of(*part)[1] for part in zip(self.maps, self.cut(Y), strict=True))

    def extra_repr(self) -> str:
        shown = [f"dim={self.dim}"] + [f"blocks={self.sizes}"] * bool(self.sizes)
        return ", ".join(shown + ["strict=True"] * self.strict)


class Stacked(MovesInner):
    """Apply one map to all equal blocks of `layer.weight` at once, as a batch.

    The blocks along `dim` are passed to the map as a batch, `(count, *block)`, and concatenated
    again. This calls the map once, where `Blocks` makes `count` calls.

    Shapes `(*) -> (*)`; the map must accept batches, as most maps in this library do. The
    exceptions are `SpectralNorm`, `ConvolutionSpectralNorm`, `WeightNorm`, and `FrobeniusNorm`
    without `dim`, which would treat all blocks as one tensor: use `Blocks` for them. The state of
    the map, such as a base point, is a batch too. Assignment and registration call its
    `right_inverse` with the batch. The cost is that of the map, plus one copy if `dim` is not 0.

    Args:
        parametrization: the map.
        count: the number of blocks.
        dim: the dimension to split.
        strict: whether to reject a value with a block that the map does not reach.

    Raises:
        ValueError: if the dimension cannot be split into `count` equal blocks.

    >>> heads = torch.nn.Linear(6, 12)
    >>> heads = register_parametrization(heads, "weight", Stacked(Symmetric(), 2))
    >>> bool((heads.weight[6:] == heads.weight[6:].T).all())
    True
    """

    constraint = "composed of blocks that the map reaches"

    def __init__(
        self,
        parametrization: ParametrizationProto | TensorMap,
        count: int,
        *,
        dim: int = 0,
        strict: bool = False,
    ) -> None:
        super().__init__(strict=strict)
        if count <= 0:
            raise ValueError(f"the number of blocks must be positive. Got count={count}.")
        self.map = inner_map(parametrization)
        self.count = count
        self.dim = dim

    def stack(self, X: Tensor) -> Tensor:
        """The blocks of `X` as a batch."""
        if not -X.ndim <= self.dim < X.ndim:
            raise ValueError(f"a weight of shape {list(X.shape)} has no dimension {self.dim}.")
        dim = self.dim % X.ndim
        if X.shape[dim] % self.count != 0:
            raise ValueError(
                f"dimension {self.dim} of shape {list(X.shape)} cannot be split into "
                f"{self.count} blocks of the same size."
            )
        shape = list(X.shape)
        shape[dim] = shape[dim] // self.count
        shape.insert(dim, self.count)
        return X.reshape(shape).movedim(dim, 0)

    def unstack(self, blocks: Tensor) -> Tensor:
        """The tensor whose stacked blocks are `blocks`."""
        dim = self.dim % (blocks.ndim - 1)
        return blocks.movedim(0, dim).flatten(dim, dim + 1)

    def forward(self, X: Tensor) -> Tensor:
        return self.unstack(self.map(self.stack(X)))

    def right_inverse(self, Y: Tensor) -> Tensor:
        self.admit(Y)
        original = assign_inner(self.map, self.stack(Y))
        if not isinstance(original, Tensor):
            raise one_original(self.map)
        return self.unstack(original)

    def movable(self) -> list[Parametrization]:
        return movable_in([self.map])

    def moved(self, *originals: Tensor, steps: int | None = None) -> Move:
        (inner,) = self.movable()
        (stack,), bases = inner.moved(self.stack(originals[0]), steps=steps)
        return (self.unstack(stack),), bases

    def deviation(self, Y: Tensor) -> Tensor:
        """The deviation of the stacked blocks from the constraint of the map."""
        return constraint_of(self.map, self.stack(Y))[0]

    def tolerance(self, Y: Tensor) -> float:
        return constraint_of(self.map, self.stack(Y))[1]

    def extra_repr(self) -> str:
        shown = f"count={self.count}, dim={self.dim}"
        return f"{shown}, strict=True" if self.strict else shown


def one_original(parametrization: nn.Module) -> ValueError:
    name = type(parametrization).__name__
    return ValueError(
        f"{name} has several originals, and maps of blocks must have one. Register it on a "
        "separate tensor, or use a map with one original."
    )
