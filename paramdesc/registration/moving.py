"""Moves base points after steps of optimizers, see `Parametrization.recenter`.

A move writes to the originals, so nothing else may depend on them: no other module, and no
optimizer that keeps a second copy of its parameters.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from paramdesc.chain.bases import count_anew, movable_map, steps_of
from paramdesc.chain.explain import explain
from paramdesc.chain.parametrization import Parametrization
from paramdesc.chain.watched import StepMade, tell_of_whole_steps
from paramdesc.registration.groups import groups_of, trained_originals
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
            is_due = parametrization is not None and parametrization.is_move_due(steps + 1)
            if is_due and is_on_one_device(chain):
                due.append(chain)
    moved: set[int] = set()
    for chain, group in zip(due, groups_of(due), strict=True):
        if group and id(chain) not in moved and not is_copied(chain, step):
            move(group, steps_of(chain))
            moved.update(map(id, group))


tell_of_whole_steps(count_and_move)


def is_trained_by(chain: Any, step: StepMade) -> bool:
    """Whether `step` wrote to all entries of all originals of `chain`."""
    originals = trained_originals(chain)
    return bool(originals) and all(
        id(x) in step.identities or step.wrote([x], ()) for x in originals
    )


def is_on_one_device(chain: Any) -> bool:
    """Whether the base point is where the originals are, which may be offloaded to the CPU."""
    first: Any = movable_map(chain)
    return len({x.device for x in (*trained_originals(chain), *first.base_tensors())}) == 1


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
                    f"the base point of {chain.tensor_name!r} of {chain.host} stays fixed: "
                    f"{type(optimizer).__name__} keeps a copy of the original ({name}), which "
                    "would become meaningless if the base point moved. To silence this warning, "
                    "construct the map with rebase=None.",
                    stacklevel=2,
                )
            return True
    return False


def move_base(chain: Any) -> None:
    """Move the base point of `chain` to its current value, and adapt its originals.

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
            f"cannot move the base point of {chain.tensor_name!r} of {chain.host}: another "
            "module uses the same original."
        )
    move(group)
    for member in group:
        count_anew(member)


@torch.no_grad()
def move(chains: Sequence[Any], steps: int | None = None) -> None:
    """Move the base points of chains that share their originals. On an error, none is changed.

    With a number of steps, only those for which it is time.
    """
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
            results, base = parametrization.moved(*originals, steps=steps)
            check_shapes([*zip(targets, results, strict=True), *base])
        except Exception as error:
            explain(error, chain, "moving the base point of", parametrization)
            raise
        bases += base
    write([*zip(targets, originals, results, strict=True), *((x, x, new) for x, new in bases)])


def check_shapes(news: list[tuple[Tensor, Tensor]]) -> None:
    """Reject new tensors of another shape, which could only be written in part."""
    for old, new in news:
        if new.shape != old.shape:
            raise ValueError(
                f"recenter() must keep the shapes of the originals and of the base point. It "
                f"returned {list(new.shape)} in place of {list(old.shape)}."
            )


def write(news: list[tuple[Tensor, Tensor, Tensor]]) -> None:
    """Write new entries into tensors if all are finite, which is decided on the device.

    Each tensor comes with its current entries, which are gathered if it is sharded.
    """
    cast = [(tensor, old, new.to(old.dtype)) for tensor, old, new in news]
    is_finite = torch.stack([torch.isfinite(new).all() for *_, new in cast]).all()
    kept = [(tensor, torch.where(is_finite, new, old)) for tensor, old, new in cast]
    try:
        for tensor, numbers in kept:
            write_whole(tensor, numbers)
    except BaseException:  # an interrupt: originals without their base would be another weight
        for tensor, numbers in kept:
            write_whole(tensor, numbers)
        raise
