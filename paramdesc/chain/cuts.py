"""How a map computes a part of its value from parts of its originals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

__all__ = ["Cuts", "cuts_across", "cuts_of_broadcast"]

Cuts = tuple[tuple[int | None, ...], dict[str, int]]
"""The dimension along which each original is cut, None if it is needed whole; and the tensors of
the map that are cut, with the dimension."""


def cuts_across(dims: Sequence[int] | None, dim: int, ndim: int) -> Cuts | None:
    """The cuts of a map of one original that mixes the entries along `dims`; None means all."""
    if dims is None or any(dim == mixed % ndim for mixed in dims):
        return None
    return (dim,), {}


def cuts_of_broadcast(tensors: Mapping[str, Tensor | None], dim: int, ndim: int) -> dict[str, int]:
    """Where to cut tensors that are broadcast to the shape of a value."""
    found = {}
    for name, tensor in tensors.items():
        own = -1 if tensor is None else dim - ndim + tensor.ndim
        if tensor is not None and own >= 0 and tensor.shape[own] > 1:
            found[name] = own
    return found
