"""Selecting tensors of a model by type of module, by path or name, or by submodule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor
from torch.nn import Module

from paramdesc.errors import SelectionError

__all__ = [
    "Place",
    "Selector",
    "Selectors",
    "as_selectors",
    "is_weight_name",
    "iterate_places",
    "make_test",
    "members",
    "tensor_at",
]

Selector: TypeAlias = str | type[Module] | Module | tuple["Selector", ...]
"""One way to name tensors of a model.

- A pattern, with `*` and `?` as in a shell: for the path of a tensor (`"encoder.*.weight"`), or
  for its own name (`"weight"`, `"in_proj_weight"`).
- A type of module: the weights of its instances.
- A submodule: all tensors at and below it.
- A tuple of these: what at least one of them selects.
"""

Selectors: TypeAlias = Selector | Iterable[Selector]
"""One selector, or several in a list or another iterable."""


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
    if isinstance(selector, tuple):
        tests = [make_test(member) for member in selector]
        return lambda place: any(test(place) for test in tests)
    raise SelectionError.of_type(selector)


def members(selector: Selector) -> list[Any]:
    """The selectors in a tuple, with nested tuples flattened; otherwise the selector itself."""
    if not isinstance(selector, tuple):
        return [selector]
    return [found for member in selector for found in members(member)]


def as_selectors(given: Selectors) -> list[Selector]:
    """What an argument such as `exclude` contains: itself, if it is a selector.

    Raises:
        SelectionError: if it is neither a selector nor an iterable.
    """
    if isinstance(given, (str, type, Module)) or (isinstance(given, tuple) and given):
        return [given]
    if isinstance(given, Iterable):
        return list(given)
    raise SelectionError.of_type(given)


def tensor_at(place: Place) -> Tensor | None:
    """The parameter or buffer at `place`; None if there is none, or if it is parametrized."""
    found: Any = place.module._parameters.get(place.tensor_name)
    return dict(place.module._buffers.items()).get(place.tensor_name) if found is None else found
