"""Assigning to a parametrized tensor: the value goes through `right_inverse` to the originals."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from paramdesc.caching.active import active_scopes, forget
from paramdesc.caching.switched_off import FRESH, find_stand_in
from paramdesc.chain.chain import Chain
from paramdesc.chain.explain import explain
from paramdesc.chain.shards import are_sharded
from paramdesc.chain.states import start_maps
from paramdesc.errors import DisabledError, MissingRightInverseError
from paramdesc.registration.fitting import check_assigned, check_inverted, check_originals
from paramdesc.registration.placing import whole_tensors
from paramdesc.registration.snapshot import Snapshot, split_tensors
from paramdesc.torch_internals.replacing import replace_data
from paramdesc.torch_internals.shards import cut_like, gathered
from paramdesc.torch_internals.tensors import shares_storage

__all__ = ["assign"]


def assign(chain: Chain, value: Tensor, *, replace: bool = False, resizes: bool = True) -> None:
    """Set the originals so that `chain` evaluates to `value`. After an error, none is changed.

    Args:
        replace: whether the originals become new tensors, of the dtype and on the device that the
            maps give them. They may share their memory with `value`.
        resizes: whether the value may have another shape, if the maps keep the shape.

    Raises:
        DisabledError: a RuntimeError, if the chain is disabled here: a later read would not return
            `value`.
    """
    stand_in = find_stand_in(active_scopes(), chain)
    if stand_in is not None and stand_in.how != FRESH:
        raise DisabledError.assigned(chain.tensor_name, stand_in.how)
    replaced, written = split_tensors(chain)
    snapshot = Snapshot(chain.modules(), replaced, written)
    try:
        with torch.no_grad():
            results = invert(chain, value)
            news = check_originals(chain, results[-1][1] if results else value, any_dtype=replace)
            check_inverted(results, value, chain.tensor_name)
            if not resizes:
                check_assigned(chain, news[0], value)
        forget(chain)  # the graph of a kept value would prevent swapping the originals
        own = chain.own_originals()
        for name, new in zip(chain.original_names(), news, strict=True):
            original = own.get(name)
            if original is None:  # the original is parametrized itself
                setattr(chain, name, new)
            elif replace:
                setattr(chain, name, renewed(original, cut_like(new, original)))
            else:
                new = cut_like(new, original)
                replace_data(original, new.clone() if shares_storage(new, value) else new)
        start_maps(chain, anew=True)
    except BaseException:
        snapshot.restore()
        raise


def renewed(original: Tensor, new: Tensor) -> Tensor:
    """`new` in place of `original`: a Parameter if `original` is one, and trained if it is."""
    if isinstance(original, Parameter):
        return Parameter(new.detach(), requires_grad=original.requires_grad)
    return new.detach()


def invert(chain: Chain, value: Tensor) -> list[tuple[Module, Any]]:
    """The maps, last to first, each with the result of its `right_inverse`."""
    results: list[tuple[Module, Any]] = []
    result: Any = gathered(value.detach()) if are_sharded(chain.originals()) else value
    for parametrization in reversed(list(chain.maps())):
        right_inverse: Any = getattr(parametrization, "right_inverse", None)
        if right_inverse is None:
            raise MissingRightInverseError(chain.tensor_name, parametrization)
        try:
            with whole_tensors(parametrization):
                result = right_inverse(result)
        except Exception as error:
            explain(error, chain, "assigning", parametrization)
            raise
        results.append((parametrization, result))
    return results
