"""Selecting tensors of a model by type of module, by path or name, or by submodule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor
from torch.nn import Module

from paramdesc.errors import SelectionError

__all__ = [
    "Place",
    "Selector",
    "is_weight_name",
    "iterate_places",
    "make_test",
    "refuse_unmatched",
    "tensor_at",
]

Selector: TypeAlias = str | type[Module] | Module
"""One way to name tensors of a model.

- A pattern, with `*` and `?` as in a shell: for the path of a tensor (`"encoder.*.weight"`), or
  for its own name (`"weight"`, `"in_proj_weight"`).
- A type of module: the weights of its instances.
- A submodule: all tensors at and below it.
"""


class Place(NamedTuple):
    """The location of a tensor: `module.<tensor_name>`, and its path in the model."""

    path: str
    module: Module
    tensor_name: str


def is_weight_name(tensor_name: str) -> bool:
    """Whether the name is that of a weight, such as `weight_ih_l0`, and not of a bias."""
    return tensor_name.startswith("weight") or tensor_name.endswith("_weight")


def iterate_places(model: Module) -> Iterator[Place]:
    """The parameters, buffers and parametrized tensors of `model`, as in `named_modules`.

    A tensor that several modules share is found in each of them; a module that is in several places
    is found once.
    """
    for path, module in model.named_modules():
        if is_engine_part(path):
            continue
        prefix = f"{path}." if path else ""
        names: dict[str, Any] = dict.fromkeys(parametrized_names(module))
        names.update(dict.fromkeys((*module._parameters, *dict(module._buffers.items()))))
        for name in names:
            yield Place(f"{prefix}{name}", module, name)


def is_engine_part(path: str) -> bool:
    """Whether the module at `path` is part of a parametrization, and not of the user's model."""
    return "parametrizations" in path.split(".")


def parametrized_names(module: Module) -> list[str]:
    """The tensors of `module` that are parametrized, by this library or by torch's engine."""
    chains = module._modules.get("parametrizations")
    return list(chains._modules) if isinstance(chains, Module) else []


def make_test(selector: Selector) -> Callable[[Place], bool]:
    """A function that tells whether `selector` names the tensor at a place."""
    if isinstance(selector, str):
        return lambda place: any(
            fnmatchcase(name, selector) for name in (place.path, place.tensor_name)
        )
    if isinstance(selector, type) and issubclass(selector, Module):
        return lambda place: (
            isinstance(place.module, selector) and is_weight_name(place.tensor_name)
        )
    if isinstance(selector, Module):
        below = set(selector.modules())
        return lambda place: place.module in below
    raise SelectionError.of_type(selector)


def refuse_unmatched(
    selectors: Iterable[Selector], used: Iterable[Selector], places: Iterable[Place]
) -> None:
    """Raise an error for a selector that matches no tensor, usually because of a typo.

    Raises:
        SelectionError: with the nearest names.
    """
    used = list(used)
    for selector in selectors:
        if not any(selector is other for other in used):
            known = sorted({name for place in places for name in (place.path, place.tensor_name)})
            near = get_close_matches(selector, known, 3) if isinstance(selector, str) else []
            raise SelectionError.unmatched(selector, near)


def tensor_at(place: Place) -> Tensor | None:
    """The parameter or buffer at `place`; None if there is none, or if it is parametrized."""
    found: Any = place.module._parameters.get(place.tensor_name)
    return dict(place.module._buffers.items()).get(place.tensor_name) if found is None else found
