"""Originals that several chains share stay shared when those of one chain are replaced.

`parallelize_module` puts a DTensor in the place of each Parameter of a module. torch can seldom
turn the old Parameter object into the new one, so other chains that hold it must get the new one.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from paramdesc.chain.chain import Chain
from paramdesc.chain.steps import count_steps
from paramdesc.registration.references import ALONE, count_references

__all__ = ["kept_shared"]


@contextmanager
def kept_shared(chains: Iterable[Any]) -> Iterator[None]:
    """If the block replaces an original of `chains`, all chains that hold it get the new one.

    They are found by a search of all objects, if anything but the chain refers to an original.
    """
    places = [(chain, name) for chain in chains for name in chain.own_originals()]
    shared = [place for place in places if count_references(vars(place[0]), place[1]) > ALONE]
    before = {place: place[0].own_originals()[place[1]] for place in shared}
    holders = chains_with(before.values()) if before else {}
    try:
        yield
    finally:
        for (chain, name), old in before.items():
            new = chain.own_originals().get(name)
            if new is not None and new is not old:
                for other, place in holders[id(old)]:
                    give(other, place, old, new)


def holder_of(chain: Any, name: str) -> Any:
    """The dict in which `chain` keeps an original."""
    buffers = chain._buffers
    plain = getattr(buffers, "__wrapped__", buffers)
    return chain._parameters if name in chain._parameters else plain


def chains_with(originals: Iterable[Tensor]) -> dict[int, list[tuple[Any, str]]]:
    """The chains that hold each of `originals`, with its name there, by its identity."""
    found: dict[int, list[tuple[Any, str]]] = {id(x): [] for x in originals}
    classes = set(classes_below(Chain))
    for chain in [x for x in gc.get_objects() if type(x) in classes]:  # isinstance takes longer
        for name, x in chain.own_originals().items():
            if id(x) in found:
                found[id(x)].append((chain, name))
    return found


def classes_below(cls: type) -> Iterator[type]:
    """`cls`, and its subclasses at any depth."""
    yield cls
    below: list[type] = cls.__subclasses__()
    for each in below:
        yield from classes_below(each)


def give(chain: Any, name: str, old: Tensor, new: Tensor) -> None:
    """Replace an original of `chain`, unless this has been done."""
    holder = holder_of(chain, name)
    if holder[name] is old:
        holder[name] = new
        if "_steps" in vars(chain):
            count_steps(chain)
