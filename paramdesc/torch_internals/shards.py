"""DTensors: gathering them, and cutting tensors into shards again, with gradients."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Size, Tensor

from paramdesc.torch_internals.whole import is_sharded

__all__ = ["Layout", "Part", "cut", "cut_like", "gathered", "layout_of", "of_parts", "part_of"]


class Layout(NamedTuple):
    """The location of the parts of a tensor: a mesh, and a placement for each mesh dimension."""

    mesh: Any
    placements: tuple[Any, ...]

    def along(self, dims: Sequence[int | None]) -> Layout:
        """A layout in shards along `dims`, one for each dimension of the mesh. None: replicated."""
        room: Any = sys.modules["torch.distributed.tensor"]
        placements = [room.Replicate() if dim is None else room.Shard(dim) for dim in dims]
        return Layout(self.mesh, tuple(placements))

    def dims(self) -> list[int | None] | None:
        """The dimension that each dimension of the mesh cuts. None if it is cut in another way."""
        room: Any = sys.modules["torch.distributed.tensor"]
        found: list[int | None] = []
        for placement in self.placements:
            if type(placement) is room.Shard:
                found.append(placement.dim)
            elif placement.is_replicate():
                found.append(None)
            else:
                return None
        return found

    def replicated(self) -> Layout:
        return self.along([None] * len(self.placements))


class Part(NamedTuple):
    """The place of the part on this rank in a tensor that is cut along one dimension."""

    shape: Size
    """That of the whole tensor."""
    dim: int
    start: int
    """The first index of the part, along `dim`."""
    group: Any
    """The ranks that hold the parts."""

    @classmethod
    def of(cls, shape: Size, layout: Layout) -> Part | None:
        """None if the tensor is not cut, or along several dimensions of the mesh."""
        dims = layout.dims() or ()
        cut = [(place, dim) for place, dim in enumerate(dims) if dim is not None]
        if len(cut) != 1:
            return None
        place, dim = cut[0]
        length = -(-shape[dim] // layout.mesh.size(place))
        start = min(layout.mesh.get_local_rank(place) * length, shape[dim])
        return cls(shape, dim, start, layout.mesh.get_group(place))

    def total(self, x: Tensor) -> Tensor:
        """The sum of `x` over the ranks, on each of them, differentiable."""
        functional: Any = import_module("torch.distributed.nn.functional")
        if x.is_complex():  # not all backends can send complex tensors
            return torch.view_as_complex(self.total(torch.view_as_real(x).contiguous()))
        total: Tensor = functional.all_reduce(x, group=self.group)
        return total


def layout_of(tensor: Any) -> Layout | None:
    """The layout of a DTensor, and None for other tensors."""
    return Layout(tensor.device_mesh, tuple(tensor.placements)) if is_sharded(tensor) else None


def gathered(tensor: Any) -> Tensor:
    """The full `tensor`, which is a plain tensor or a DTensor.

    Each rank must get the same gradient for it; each shard gets its part of this gradient.
    """
    whole: Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor
    return whole


def cut(whole: Tensor, layout: Layout) -> Tensor:
    """A DTensor with shards of `whole`, which is equal on all ranks. Nothing is sent.

    Each rank gets the whole gradient, for which the shards are gathered in the backward pass.
    """
    replicated = replicate(whole, layout)
    shards: Tensor = replicated.redistribute(placements=layout.placements)
    return shards


def replicate(tensor: Any, layout: Layout) -> Any:
    room: Any = sys.modules["torch.distributed.tensor"]
    placements = layout.replicated().placements
    return room.DTensor.from_local(tensor, layout.mesh, placements, run_check=False)


def cut_like(new: Tensor, old: Tensor) -> Tensor:
    """`new`, equal on all ranks, in the layout of `old` if this is a DTensor and `new` is not."""
    layout = layout_of(old)
    if layout is None or is_sharded(new):
        return new
    with torch.no_grad():
        return cut(new, layout)


def part_of(tensor: Any, layout: Layout, value: Layout) -> Tensor:
    """The part of `tensor` on this rank, cut by `layout`, to compute a part of a value.

    Where the value is cut and `tensor` is not, the gradients of all ranks are summed.
    """
    room: Any = sys.modules["torch.distributed.tensor"]
    shards = tensor if is_sharded(tensor) else replicate(tensor, layout)
    shards = shards.redistribute(placements=layout.placements)
    gradient = [
        room.Partial() if own.is_replicate() and not other.is_replicate() else own
        for own, other in zip(layout.placements, value.placements, strict=True)
    ]
    part: Tensor = shards.to_local(grad_placements=gradient)
    return part


def of_parts(part: Tensor, layout: Layout, shape: Iterable[int]) -> Tensor:
    """The DTensor of that shape whose part on this rank is `part`."""
    room: Any = sys.modules["torch.distributed.tensor"]
    size = Size(shape)
    stride = torch.empty(size, device="meta").stride()
    tensor: Tensor = room.DTensor.from_local(
        part.contiguous(), *layout, run_check=False, shape=size, stride=stride
    )
    return tensor
