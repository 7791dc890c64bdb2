"""Selectors that match nothing, usually because of a typo, and what was probably meant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn import Module

from paramdesc.errors import (
    SelectionError,
    hint_for_pattern,
    hint_for_submodule,
    hint_for_type,
)
from paramdesc.models.selection import (
    Place,
    Selector,
    is_weight_name,
    iterate_places,
    make_test,
    members,
)

__all__ = ["refuse_unknown", "refuse_unmatched"]


def refuse_unmatched(
    selectors: Iterable[Selector],
    used: Iterable[Selector],
    places: Iterable[Place],
    argument: str = "",
    kind: str = "tensor",
) -> None:
    """Raise an error for a selector that is not among `used`, those that match a tensor.

    Args:
        places: the tensors that the selectors were compared with.
        argument: the name of the keyword argument that has the selectors.
        kind: what the tensors are.

    Raises:
        SelectionError: with what was probably meant.
    """
    used = list(used)
    for selector in selectors:
        if not any(selector is other for other in used):
            known = list(places)
            hints = dict.fromkeys(hint_for(member, known, kind) for member in members(selector))
            raise SelectionError.unmatched(shown(selector), argument, kind, "".join(hints))


def refuse_unknown(
    selectors: Iterable[Selector], places: Sequence[Place], model: Module, argument: str = ""
) -> None:
    """Raise an error for a selector that matches neither one of `places` nor a plain tensor.

    Raises:
        SelectionError: with what was probably meant.
    """
    missing = [x for x in selectors if not any(map(make_test(x), places))]
    if missing:
        every = [*places, *iterate_places(model)]
        used = [x for x in missing if any(map(make_test(x), every))]
        refuse_unmatched(missing, used, every, argument)


def shown(selector: Selector) -> str:
    """A selector as it is written, in one line."""
    if isinstance(selector, tuple):
        return f"({', '.join(map(shown, selector))}{',' * (len(selector) == 1)})"
    return selector.__name__ if isinstance(selector, type) else " ".join(repr(selector).split())


def hint_for(selector: str | type[Module] | Module, places: Sequence[Place], kind: str) -> str:
    """A sentence about what may have been meant by a selector that matches none of `places`."""
    paths = sorted({prefix for place in places for prefix in prefixes(place.path)})
    if isinstance(selector, Module):
        return hint_for_submodule(paths)
    if isinstance(selector, type):
        own = [place.tensor_name for place in places if isinstance(place.module, selector)]
        weights = [place for place in places if is_weight_name(place.tensor_name)]
        types = [type(place.module).__name__ for place in weights]
        return hint_for_type(selector.__name__, sorted({*own}), sorted({*types}), kind)
    names = {name for place in places for name in (place.path, place.tensor_name)}
    names.update(f"{path}.*" for path in paths)
    if "*" in selector:
        wild = [generalized(name) for name in names]
        names.update(name for name in wild if name.strip("*."))
    return hint_for_pattern(
        selector,
        any(fnmatchcase(path, selector) for path in paths),
        name_of_class(selector.rpartition(".")[2], places),
        sorted(names),
    )


def prefixes(path: str) -> list[str]:
    """The paths of the submodules that contain the tensor at `path`."""
    parts = path.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def generalized(path: str) -> str:
    """The path with a wildcard for each number."""
    return ".".join("*" if part.isdigit() else part for part in path.split("."))


def name_of_class(name: str, places: Iterable[Place]) -> str:
    """How to write the class of modules with weights that has this name; empty if there is none."""
    for place in places:
        for cls in type(place.module).__mro__ if is_weight_name(place.tensor_name) else ():
            if issubclass(cls, Module) and cls is not Module and cls.__name__ == name:
                return f"nn.{name}" if getattr(nn, name, None) is cls else name
    return ""
