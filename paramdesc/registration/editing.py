"""Changing the maps of a chain by hand: `del chain[0]`, `chain[1] = map`, `chain += [map]`."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import Module

from paramdesc.chain.evaluation import evaluate
from paramdesc.chain.states import start_maps
from paramdesc.chain.steps import count_steps
from paramdesc.chain.warm import is_warm
from paramdesc.errors import ChainError
from paramdesc.registration.sharing import check_shared, is_shared, join
from paramdesc.registration.snapshot import Snapshot, below, tensors_in

__all__ = ["edit_maps"]


@torch.no_grad()
def edit_maps(chain: Any, maps: list[Module]) -> None:
    """Replace the maps of `chain` by `maps`, and keep its originals.

    Maps with a warm start get a new state, since they may now be applied to another tensor.

    Raises:
        ChainError: a ValueError, if `maps` is empty, or the shape or dtype of the value would
            change.
        SharedMapError: if a new map has a state that belongs to another tensor.
        Exception: whatever the maps raise. In all cases the chain stays as it was.
    """
    if not maps:
        raise ChainError.emptied(chain.tensor_name, chain.host)
    old = list(chain.maps())
    before = evaluate(chain)
    for parametrization in maps:
        is_new = not any(parametrization is known for known in old)
        if is_new and is_shared(parametrization):
            check_shared(parametrization, before, chain.tensor_name)
    written = tensors_in(below([*old, *maps]))
    snapshot = Snapshot(below([chain, *maps]), (), written)
    try:
        set_maps(chain, maps)
        if "_steps" in vars(chain):
            count_steps(chain)
        start_maps(chain, anew=True)
        after = evaluate(chain)
        for aspect in () if chain.unsafe else ("dtype", "shape"):
            if getattr(after, aspect) != getattr(before, aspect):
                raise ChainError.changed(
                    aspect, chain.tensor_name, getattr(before, aspect), getattr(after, aspect)
                )
        join(chain)
        for part in below(old):
            if is_warm(part) and not is_shared(part):
                part.is_led = False
    except BaseException:
        snapshot.restore()
        raise


def set_maps(chain: Any, maps: list[Module]) -> None:
    """Set the maps of `chain`, and keep its other children."""
    modules: dict[str, Any] = chain._modules
    # never empty in between, since another thread may read
    modules.update({str(i): part for i, part in enumerate(maps)})
    for name in [name for name in modules if name.isdigit() and int(name) >= len(maps)]:
        del modules[name]
