"""Finds what shares the originals of a chain, and can be moved along with it or not.

A move writes to the originals, so nothing else may hold them, such as another module that uses one
as a plain weight.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from operator import gt
from typing import Any
from weakref import ref

from torch import Tensor
from torch.nn import Parameter

from paramdesc.chain.bases import movable_map
from paramdesc.chain.chain import Chain
from paramdesc.chain.transient import transient_of
from paramdesc.chain.watched import watched_chains
from paramdesc.registration.tied import modules_with

__all__ = ["gathered_holders", "groups_of", "trained_originals"]


def trained_originals(chain: Any) -> list[Parameter]:
    """The originals of `chain`; empty if not all of them are Parameters that are trained."""
    parameters: dict[str, Any] = chain._parameters
    found = [parameters.get(name) for name in chain.original_names()]
    if any(x is None or x.is_meta or not x.requires_grad or is_flattened(x) for x in found):
        return []
    return found  # type: ignore[return-value]


def is_flattened(original: Parameter) -> bool:
    """Whether FSDP1 has made `original` a part of a flat buffer, where it has lost its shape."""
    return "_fsdp_flattened" in vars(original)


def groups_of(chains: Sequence[Any]) -> list[list[Any]]:
    """For each chain, the chains that are moved with it, since they share its originals.

    Empty if something else holds an original, which would get the numbers for another base point.
    This takes a search of all objects, so it is done once per chain and original, and again when
    there are more references to an original than at the last search.
    """
    counts = [reference_counts(chain) for chain in chains]
    known = [known_group(*pair) for pair in zip(chains, counts, strict=True)]
    unknown = [i for i, group in enumerate(known) if group is None]
    if unknown:
        listed, listed_counts = [chains[i] for i in unknown], [counts[i] for i in unknown]
        if not all(find_groups(listed, listed_counts)):
            gc.collect()  # garbage that is not freed yet must not count
            find_groups(listed, listed_counts)
        for i in unknown:
            known[i] = known_group(chains[i], counts[i])
    return [group or [] for group in known]


def reference_counts(chain: Any) -> list[int]:
    """How often each original of `chain` is referred to."""
    return [sys.getrefcount(x) for x in trained_originals(chain)]


def find_groups(chains: Sequence[Any], counts: Sequence[list[int]]) -> list[bool]:
    """Find the chains to move with each of these. Returns where nothing else holds an original."""
    originals = {id(chain): trained_originals(chain) for chain in chains}
    holders = modules_with([x for listed in originals.values() for x in listed])
    for other in watched_chains():  # the search does not see what `gc.freeze` has hidden
        for x in other._parameters.values():
            if id(x) in holders:
                holders[id(x)].append(other)
    are_free = []
    for chain, count in zip(chains, counts, strict=True):
        own = originals[id(chain)]
        group = unique([module for x in own for module in holders[id(x)]], chain)
        are_free.append(all(may_join(other, chain) for other in group))
        references = [ref(x) for x in group] if are_free[-1] else []
        transient_of(chain).group = (tuple(map(id, own)), count, references)
    return are_free


def known_group(chain: Any, counts: list[int]) -> list[Any] | None:
    """The result of the last search; None if there was none, or if it may be outdated."""
    identities, known, group = transient_of(chain).group or (None, (), ())
    if identities != tuple(map(id, trained_originals(chain))):
        return None
    if counts != known and (not group or any(map(gt, counts, known))):
        return None  # there may be another holder, or one less
    members = [reference() for reference in group]
    return [member for member in members if isinstance(member, Chain)]


def unique(modules: Sequence[Any], first: Any) -> list[Any]:
    found = {id(first): first, **{id(module): module for module in modules}}
    return list(found.values())


def may_join(other: Any, chain: Any) -> bool:
    """Whether `other` stays valid if it is moved along with `chain`."""
    one = movable_map(chain)
    if other is chain or one is None:
        return other is chain
    if not isinstance(other, Chain):  # a TorchScript program has the tensors of the map too
        return holds_all(other, one.base_tensors())
    two = movable_map(other)
    return (
        two is not None
        and two.moves_with(one)
        and not other.__dict__.get("is_tied")
        and list(map(id, chain.originals())) == list(map(id, other.originals()))
    )


def holds_all(module: Any, tensors: Sequence[Tensor]) -> bool:
    held = {id(x) for x in module.buffers()}
    return bool(tensors) and all(id(x) in held for x in tensors)


def gathered_holders(chain: Any, originals: Sequence[Tensor]) -> Iterator[Any]:
    """The modules besides `chain` that hold one of `originals` as a Parameter.

    This takes a search of all objects.
    """
    if not originals:
        return
    if any(x is not chain for found in modules_with(originals).values() for x in found):
        gc.collect()  # garbage that is not freed yet must not count
        found = modules_with(originals).values()
        yield from (x for modules in found for x in modules if x is not chain)
