"""Changing the maps of a chain, with its value kept or its originals."""

from __future__ import annotations

from enum import Enum
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.caching.active import forget
from paramdesc.caching.record import Reason
from paramdesc.chain.evaluation import evaluate
from paramdesc.chain.states import start_maps
from paramdesc.chain.steps import count_steps
from paramdesc.chain.warm import is_warm
from paramdesc.errors import (
    ChainError,
    MissingRightInverseError,
    NonFiniteError,
    OriginalError,
    add_note,
)
from paramdesc.registration.assignment import assign
from paramdesc.registration.groups import gathered_holders
from paramdesc.registration.sharing import check_shared, is_shared, join
from paramdesc.registration.snapshot import Snapshot, below, differs, split_tensors, tensors_in

__all__ = ["Edit", "edit_maps"]


class Edit(Enum):
    """What stays the same when maps are changed."""

    ORIGINALS = "originals"
    KEEP_VALUE = "value"


@torch.no_grad()
def edit_maps(chain: Any, maps: list[Module], kept: Edit = Edit.ORIGINALS) -> None:
    """Replace the maps of `chain` by `maps`, and keep its originals or its value.

    The originals stay the same objects. Maps with a warm start get a new state, since they may now
    be applied to another tensor.

    Raises:
        ChainError: a ValueError, if `maps` is empty, or the shape or dtype of the value would
            change; if the value is to be kept, also if the new maps need other originals.
        SharedMapError: if a new map has a state that belongs to another tensor.
        MissingRightInverseError: if the value is to be kept, and a map has no `right_inverse`.
        Exception: whatever the maps raise. In all cases the chain stays as it was.
    """
    if not maps:
        raise ChainError.emptied(chain.tensor_name, chain.host)
    old = list(chain.maps())
    before = evaluate(chain)
    news = [x for x in maps if not any(x is known for known in old)]
    for parametrization in news:
        if is_shared(parametrization):
            check_shared(parametrization, before, chain.tensor_name)
    replaced = split_tensors(chain)[0] if kept is Edit.KEEP_VALUE else []
    snapshot = Snapshot(below([chain, *maps]), replaced, tensors_in(below([*old, *maps])))
    try:
        for parametrization in news:
            if not is_shared(parametrization):
                parametrization.train(chain.training)
        set_maps(chain, maps)
        if "_steps" in vars(chain):
            count_steps(chain)
        if kept is Edit.KEEP_VALUE:
            keep_value(chain, before.clone())
        else:
            forget(chain, Reason.MAPS)
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


def keep_value(chain: Any, value: Tensor) -> None:
    """Assign to `chain`, whose maps have changed, the value that it had before."""
    before = {name: x.detach().clone() for name, x in chain.own_originals().items()}
    try:
        assign(chain, value)
    except (MissingRightInverseError, NotImplementedError) as error:
        lacking = error.parametrization if isinstance(error, MissingRightInverseError) else None
        raise MissingRightInverseError(chain.tensor_name, lacking, is_edit=True) from error
    except NonFiniteError as error:
        add_note(error, "To change the maps without keeping the value, write keep_value=False.")
        raise
    except OriginalError as error:
        raise ChainError.originals(chain.tensor_name, str(error)) from error
    except Exception as error:
        add_note(error, "To change the maps without keeping the value, write keep_value=False.")
        raise
    for name, x in chain.own_originals().items():
        if x.shape != before[name].shape:
            fact = f"the shape of {name!r} would be {list(x.shape)}, not {list(before[name].shape)}"
            raise ChainError.originals(chain.tensor_name, fact)
    written = [x for name, x in chain.own_originals().items() if differs(x, before[name])]
    holder = next(gathered_holders(chain, written), None)
    if holder is not None:
        raise ChainError.held(chain.tensor_name, type(holder).__name__)


def set_maps(chain: Any, maps: list[Module]) -> None:
    """Set the maps of `chain`, and keep its other children."""
    modules: dict[str, Any] = chain._modules
    # never empty in between, since another thread may read
    modules.update({str(i): part for i, part in enumerate(maps)})
    for name in [name for name in modules if name.isdigit() and int(name) >= len(maps)]:
        del modules[name]
