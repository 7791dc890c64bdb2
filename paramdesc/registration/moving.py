"""Moves base points after steps of optimizers, see `Parametrization.recenter`.

The originals are written then, so nothing else may hold them: not another module, and not the
optimizer, as some do that keep a second copy of what they train.
"""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Sequence
from operator import gt
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.nn import Parameter

from paramdesc.chain.bases import count_anew, movable_map, steps_of
from paramdesc.chain.chain import Chain
from paramdesc.chain.explain import explain
from paramdesc.chain.parametrization import Parametrization
from paramdesc.chain.transient import transient_of
from paramdesc.chain.watched import StepMade, tell_of_whole_steps, watched_chains
from paramdesc.registration.tied import modules_with
from paramdesc.torch_internals.captures import is_capturing
from paramdesc.torch_internals.optimizer_copies import copies_of, enclosing_optimizers
from paramdesc.torch_internals.whole import whole, write_whole

__all__ = ["move_base"]


def count_and_move(chains: Sequence[Any], step: StepMade) -> None:
    """Count a step of an optimizer, and move the base points for which it is time."""
    if is_capturing():
        return  # each replay of the graph counts
    due = []
    for chain in chains:
        steps = steps_of(chain)
        if steps is not None and is_trained_by(chain, step):
            count_anew(chain, steps + 1)
            parametrization = movable_map(chain)
            if parametrization is not None and parametrization.is_move_due(steps + 1):
                due.append(chain)
    moved: set[int] = set()
    for chain, group in zip(due, groups_of(due), strict=True):
        if group and id(chain) not in moved and not is_copied(chain, step):
            move(group)
            moved.update(map(id, group))


tell_of_whole_steps(count_and_move)


def is_trained_by(chain: Any, step: StepMade) -> bool:
    """Whether `step` wrote to all originals of `chain`, each with all its numbers."""
    originals = trained_originals(chain)
    return bool(originals) and all(
        id(x) in step.identities or step.wrote([x], ()) for x in originals
    )


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
    counts = [count_references(chain) for chain in chains]
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


def count_references(chain: Any) -> list[int]:
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
    """Whether `other` stays right if `chain` is moved, and it along with it."""
    one = movable_map(chain)
    if other is chain or one is None:
        return other is chain
    if not isinstance(other, Chain):  # a program of TorchScript has the tensors of the map, too
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


_WARNED: set[type] = set()


def is_copied(chain: Any, step: StepMade) -> bool:
    """Whether an optimizer of the step keeps a copy of an original, which would be outdated.

    It warns, once for each class of optimizer.
    """
    for original in trained_originals(chain):
        optimizers = [*step.optimizers, *enclosing_optimizers()]
        for optimizer, name in copies_of(original, optimizers):
            if type(optimizer) not in _WARNED:
                _WARNED.add(type(optimizer))
                warnings.warn(
                    f"the base point of {chain.tensor_name!r} of {chain.host} does not follow the "
                    f"training: {type(optimizer).__name__} keeps a copy of the original "
                    f"({name}), which moving the base point would make meaningless. To use this "
                    "optimizer without this warning, construct the map with rebase=None.",
                    stacklevel=2,
                )
            return True
    return False


def move_base(chain: Any) -> None:
    """Move the base point of `chain` to its present value, and its originals with it.

    Raises:
        ValueError: if the first map has no base point, or something else holds an original.
    """
    if movable_map(chain) is None or not trained_originals(chain):
        raise ValueError(
            f"{chain.tensor_name!r} of {chain.host} has no base point to move: its first map has "
            "none, or its original is not trained."
        )
    (group,) = groups_of([chain])
    if not group:
        raise ValueError(
            f"cannot move the base point of {chain.tensor_name!r} of {chain.host}: another module "
            "holds the same original."
        )
    move(group)
    for member in group:
        count_anew(member)


@torch.no_grad()
def move(chains: Sequence[Any]) -> None:
    """Move the base points of chains that share their originals. On an error, none is changed."""
    targets: list[Tensor] = list(trained_originals(chains[0]))
    originals = [whole(x) for x in targets]
    maps: dict[int, Parametrization] = {}
    bases: list[tuple[Tensor, Tensor]] = []
    results: tuple[Tensor, ...] = ()
    for chain in chains:
        parametrization = movable_map(chain)
        if parametrization is None or id(parametrization) in maps:
            continue
        maps[id(parametrization)] = parametrization
        try:
            results, base = parametrization.moved(*originals)
            check_shapes([*zip(targets, results, strict=True), *base])
        except Exception as error:
            explain(error, chain, "moving the base point of", parametrization)
            raise
        bases += base
    write([*zip(targets, results, strict=True), *bases])


def check_shapes(news: list[tuple[Tensor, Tensor]]) -> None:
    """Refuse new numbers of another shape, of which only some could be written."""
    for old, new in news:
        if new.shape != old.shape:
            raise ValueError(
                f"recenter() must keep the shapes of the originals and of the base point. It "
                f"returned {list(new.shape)} in place of {list(old.shape)}."
            )


def write(news: list[tuple[Tensor, Tensor]]) -> None:
    """Write new numbers into tensors, if all are finite. That is decided on the device."""
    news = [(old, new.to(old.dtype)) for old, new in news]
    is_finite = torch.stack([torch.isfinite(new).all() for _, new in news]).all()
    kept = [(old, torch.where(is_finite, new, whole(old))) for old, new in news]
    try:
        for old, new in kept:
            write_whole(old, new)
    except BaseException:  # an interrupt: originals without their base would be another weight
        for old, new in kept:
            write_whole(old, new)
        raise
