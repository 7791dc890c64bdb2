"""Values whose originals FSDP2 gathers: they are watched through the shards.

A gathered original is the same each time until its shards change. So its value may be reused
whenever the original is gathered, in later forward passes and in backward passes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from paramdesc.caching.expiry import expire
from paramdesc.caching.holders import Attributes
from paramdesc.caching.record import Reason
from paramdesc.caching.watch import UNCOUNTED, Place, Watch, form_of, watch
from paramdesc.chain.transient import transient_of
from paramdesc.torch_internals.gathered import (
    Gathering,
    find_gathering,
    gathering_behind,
    remember,
)
from paramdesc.torch_internals.tensors import inner_tensors
from paramdesc.torch_internals.whole import is_sharded

__all__ = ["note_original", "watch_place"]


def note_original(chain: Any, name: str, value: Any) -> None:
    """Expire the kept values of `chain`, which gets another original, unless they stay current.

    They do if FSDP2 gathers the same entries as before, and while it shards them.
    """
    found = gathering_of(chain, name, value)
    if found is not None and (
        found.is_one_of(value) or (value is found.gathered and is_gathered_again(found))
    ):
        return
    expire(chain, Reason.REPLACED, name)


def is_gathered_again(found: Gathering) -> bool:
    remember(found)
    return found.gives_the_same() and gathering_behind(found.gathered) is found  # type: ignore[arg-type]


def gathering_of(chain: Any, name: str, value: Any) -> Gathering | None:
    """What is known of the original if FSDP2 manages it."""
    transient = transient_of(chain)
    known: Gathering | None = (
        None if transient.gatherings is None else transient.gatherings.get(name)
    )
    if known is not None:
        return known
    now = chain.__dict__.get("_parameters", {}).get(name)
    if not any(isinstance(x, Tensor) and is_sharded(x) for x in (now, value)):
        return None
    found = find_gathering(chain, name)
    if found is not None:
        transient.gatherings = {**(transient.gatherings or {}), name: found}
    return found


def watch_place(place: Place, closely: bool) -> list[Watch]:
    """The watches for the tensor at `place`: one, and two more for the shard of a gathered one."""
    found = gathering_behind(place.value)
    if found is None:
        return [watch(place, closely)]
    holder, key, tensor = place
    version = UNCOUNTED if tensor.is_inference() else tensor._version
    # FSDP2 frees its memory and allocates it anew, so it has no address
    form = form_of(tensor, False)
    shard = found.shard
    return [
        Watch(holder, key, tensor, version, 0, form, tensor.requires_grad, None),
        watch(Place(vars(found.parameter), "sharded_param", shard), closely),
        *(
            watch(Place(Attributes(shard), inner, getattr(shard, inner)), closely)
            for inner in inner_tensors(shard)
        ),
    ]
