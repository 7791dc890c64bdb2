"""Evaluating a chain whose originals are sharded, as under tensor parallelism.

A map that defines `cuts` or `forward_part` is applied to the part on each rank. Before any other
map, the tensors are gathered from all ranks. Then each rank computes the same value, and keeps its
part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.chain.cuts import Cuts
from paramdesc.chain.parametrization import Parametrization, has_own
from paramdesc.torch_internals.shards import (
    Layout,
    Part,
    cut,
    gathered,
    layout_of,
    of_parts,
    part_of,
)
from paramdesc.torch_internals.whole import is_sharded

__all__ = [
    "LAYOUT",
    "apply_sharded",
    "apply_whole",
    "are_sharded",
    "cuts_of",
    "layout_of_original",
    "layout_of_value",
]

LAYOUT = "_dims"
"""The attribute of a chain that says along which dimensions the value is cut, if this is known."""


def are_sharded(tensors: Iterable[Any]) -> bool:
    """Whether any of `tensors` is a DTensor."""
    return any(map(is_sharded, tensors))


def apply_sharded(
    chain: Any, originals: tuple[Any, ...], lap: Callable[[int, Module], None] | None = None
) -> Tensor:
    """The value of `chain`, in shards.

    Args:
        originals: some of them are DTensors.
        lap: called after each map, with its number.
    """
    layout = layout_of_value(chain, originals)
    values: tuple[Any, ...] = originals
    is_whole = False
    for place, parametrization in enumerate(chain.maps()):
        value = None if is_whole else apply_split(parametrization, values, layout)
        if value is None:
            value = apply_whole(parametrization, [gathered(x) for x in values])
            is_whole = True
        values = (value,)
        if lap is not None:
            lap(place, parametrization)
    (result,) = values
    return cut(result, fitting(layout, result.ndim)) if is_whole else result


def apply_split(parametrization: Any, values: Sequence[Any], layout: Layout) -> Tensor | None:
    """The value in shards, computed from the shards. None if they must be gathered."""
    cuts = cuts_of(parametrization, values, layout)
    if cuts is not None:
        return apply_to_parts(parametrization, values, layout, cuts)
    if not isinstance(parametrization, Parametrization) or len(values) != 1:
        return None
    (X,) = values
    part = Part.of(X.shape, layout) if is_sharded(X) else None
    if part is None or not has_own(type(parametrization), "forward_part"):
        return None
    found = parametrization.forward_part(part_of(X, layout, layout), part)
    return None if found is None else of_parts(found, layout, X.shape)


def layout_of_value(chain: Any, originals: Sequence[Any]) -> Layout:
    """The layout of the value: the one that was noted, or that of an original."""
    layouts = [layout for layout in map(layout_of, originals) if layout is not None]
    cuts = [layout for layout in layouts if any(dim is not None for dim in layout.dims() or ())]
    layout = (cuts or layouts)[0]
    dims = vars(chain).get(LAYOUT)
    if dims is None or len(dims) != len(layout.placements):
        dims = layout.dims()
    return layout.replicated() if dims is None else layout.along(dims)


def fitting(layout: Layout, ndim: int) -> Layout:
    """`layout`, replicated where it cuts a dimension that the tensor does not have."""
    dims = layout.dims() or ()
    return layout.along([dim if dim is not None and dim < ndim else None for dim in dims])


def layout_of_original(
    shape: Sequence[int], number: int, chain: Any, value: Sequence[int], layout: Layout
) -> Layout:
    """How to place an original of `chain`, so that as little as possible is sent.

    Args:
        shape: of the original.
        number: which original it is.
        value: the shape of the value.
        layout: that of the value.
    """
    if chain.is_tensor:
        return fitting(layout, len(shape))
    cuts = find_cuts(next(iter(chain.maps())), layout, len(value))
    if cuts is not None:
        return layout.along([None if found is None else found[0][number] for found in cuts])
    return layout if tuple(shape) == tuple(value) else layout.replicated()


def find_cuts(parametrization: Module, layout: Layout, ndim: int) -> list[Cuts | None] | None:
    """The cuts of a map for each dimension of the mesh that cuts its value.

    None if the map needs all of its originals, or does not define cuts.
    """
    dims = layout.dims()
    if dims is None or not isinstance(parametrization, Parametrization):
        return None
    if parametrization.warm_start or not has_own(type(parametrization), "cuts"):
        return None
    found = [None if dim is None else parametrization.cuts(dim, ndim) for dim in dims]
    if any(dim is not None and x is None for dim, x in zip(dims, found, strict=True)):
        return None
    return found


def cuts_of(
    parametrization: Module, values: Sequence[Any], layout: Layout
) -> list[Cuts | None] | None:
    """`find_cuts`, for inputs that are all DTensors and match the cuts of the map."""
    cuts = find_cuts(parametrization, layout, max(x.ndim for x in values))
    if cuts is None or not all(map(is_sharded, values)):
        return None
    is_fit = all(found is None or len(found[0]) == len(values) for found in cuts)
    return cuts if is_fit else None


def apply_to_parts(
    parametrization: Module, values: Sequence[Any], layout: Layout, cuts: list[Cuts | None]
) -> Tensor:
    """Apply a map to the part of its inputs on each rank."""
    parts = [
        part_of(x, layout.along([None if s is None else s[0][i] for s in cuts]), layout)
        for i, x in enumerate(values)
    ]
    own = {
        name: part_of(
            x, layout.along([None if s is None else s[1].get(name) for s in cuts]), layout
        )
        for name, x in tensors_of(parametrization)
    }
    part = apply_with(parametrization, own, parts)
    shape = list(part.shape)
    for dim, found in zip(layout.dims() or (), cuts, strict=True):
        if dim is not None and found is not None:
            number = next(i for i, d in enumerate(found[0]) if d is not None)
            cut_dim: Any = found[0][number]
            shape[dim] = values[number].shape[cut_dim]
    return of_parts(part, layout, shape)


def apply_whole(parametrization: Module, values: Sequence[Tensor]) -> Any:
    """Apply a map to whole tensors. If its own tensors are DTensors, they are gathered."""
    own = {name: gathered(x) for name, x in tensors_of(parametrization) if is_sharded(x)}
    return apply_with(parametrization, own, values)


def apply_with(parametrization: Module, own: dict[str, Tensor], values: Sequence[Tensor]) -> Any:
    if not own:
        return parametrization(*values)
    return torch.func.functional_call(parametrization, own, tuple(values))


def tensors_of(parametrization: Module) -> list[tuple[str, Tensor]]:
    return [*parametrization.named_parameters(), *parametrization.named_buffers()]
