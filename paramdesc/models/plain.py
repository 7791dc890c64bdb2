"""The state_dict that a model would have without parametrizations."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.chain.layouts import SUFFIXES, keys_of
from paramdesc.errors import BakingError
from paramdesc.models.bake import choose
from paramdesc.models.baked_values import own_memory
from paramdesc.models.parametrized_tensors import OfChain, OfHook, OfProgram, ParametrizedTensor
from paramdesc.models.selection import Selector, Selectors, as_selectors
from paramdesc.registration.host import check_model
from paramdesc.registration.snapshot import Snapshot, below, split_tensors

__all__ = ["Layout", "plain_state_dict", "plain_tensors"]

Layout: TypeAlias = Literal["plain", "weight_g", "spectral_norm"]
CHAINS = "parametrizations"


def plain_state_dict(
    model: Module,
    *selectors: Selector,
    exclude: Selectors = (),
    layout: Layout = "plain",
) -> OrderedDict[str, Tensor]:
    """Return the state_dict that `model` would have without parametrizations.

    It holds the values of parametrized tensors in place of their originals, for all
    parametrizations that `bake` covers. Each value is evaluated once, in the current mode of the
    model, and detached. The model is not changed, and the states of warm starts do not advance.
    Tensors that are tied in the model share their memory in the result.

    Args:
        model: the model.
        selectors: the tensors to convert: patterns, types of modules, submodules, or tuples of
            these. By default, all. Others are stored as in `model.state_dict()`.
        exclude: the tensors to leave out: a selector, or several in a list.
        layout: `"weight_g"` stores tensors with a weight norm as `weight_g` and `weight_v`, and
            `"spectral_norm"` stores those with a spectral norm as `weight_orig`, `weight_u` and
            `weight_v`, as models with torch's older functions expect. All others are stored as
            values.

    Raises:
        SelectionError: a ValueError, if a selector or an exclusion matches no tensor of the model.
        TypeError: if `model` is not a module.
        RuntimeError: if a TorchScript program computes a tensor.
        Exception: exceptions raised by the maps propagate unchanged.

    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 3, bias=False))
    >>> _ = register_parametrization(model, "0.weight", Symmetric())
    >>> list(model.state_dict()), list(plain_state_dict(model))
    (['0.parametrizations.weight.original'], ['0.weight'])
    """
    check_model("plain_state_dict", model)
    excluded = as_selectors(exclude)
    found = OrderedDict(plain_tensors(model, *selectors, exclude=excluded, layout=layout))
    metadata = getattr(model.state_dict(), "_metadata", None)
    if metadata is not None:
        plain: Any = found
        names = {path: x for path, x in metadata.items() if f".{CHAINS}." not in f".{path}."}
        plain._metadata = OrderedDict(names) if not selectors and not excluded else metadata
    return found


def plain_tensors(
    model: Module,
    *selectors: Selector,
    exclude: Selectors = (),
    layout: Layout = "plain",
) -> Iterator[tuple[str, Tensor]]:
    """Yield the items of `plain_state_dict`, evaluating each value only when it is needed.

    So at most one value is in memory, unless the caller keeps them; a value with several names is
    kept until the last of them. The arguments and errors are those of `plain_state_dict`.

    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 3, bias=False))
    >>> _ = register_parametrization(model, "0.weight", Symmetric())
    >>> [(name, tuple(tensor.shape)) for name, tensor in plain_tensors(model)]
    [('0.weight', (3, 3))]
    """
    check_model("plain_tensors", model)
    if layout not in ("plain", "weight_g", "spectral_norm"):
        raise ValueError(f"layout must be 'plain', 'weight_g' or 'spectral_norm'. Got {layout!r}.")
    chosen, _ = choose(model, selectors, as_selectors(exclude))
    owners = find_owners(model, chosen)
    stored: dict[str, Tensor] = model.state_dict()
    return generate(owners, stored, layout)


class Owner(NamedTuple):
    """A parametrized tensor under one of its paths."""

    path: str
    tensor: ParametrizedTensor

    def key(self) -> tuple[Any, ...]:
        """What it has in common with the tensors that are tied to it."""
        return (*self.tensor.held_leaves(), *self.tensor.function())


def find_owners(model: Module, chosen: Iterable[ParametrizedTensor]) -> dict[str, Owner]:
    """The chosen tensors by what their keys are or start with, for each path of their module."""
    paths: dict[Module, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        paths.setdefault(module, []).append(f"{path}." if path else "")
    owners: dict[str, Owner] = {}
    for tensor in chosen:
        _, module, name = tensor.place
        for prefix in paths[module]:
            owner = Owner(f"{prefix}{name}", tensor)
            if isinstance(tensor, OfProgram):
                raise BakingError.of_program(owner.path, tensor.machinery)
            if isinstance(tensor, OfHook):
                for part in tensor.hooked.parts:
                    owners[f"{prefix}{part}"] = owner
                    owners[f"{prefix}{CHAINS}.{part}"] = owner  # a part may be parametrized, too
            else:
                owners.setdefault(f"{prefix}{CHAINS}.{name}", owner)
    return owners


def generate(
    owners: dict[str, Owner], stored: dict[str, Tensor], layout: str
) -> Iterator[tuple[str, Tensor]]:
    """The plain tensors, in the order of `stored`."""
    places = {key: owner_of(key, owners) for key in stored}
    waiting = Counter(x.key() for x in {x.path: x for x in places.values() if x}.values())
    values: dict[tuple[Any, ...], Tensor] = {}
    done: set[str] = set()
    for key, owner in places.items():
        if owner is None:
            yield key, stored[key]
        elif owner.path not in done:
            done.add(owner.path)
            renamed = old_roles(owner, layout)
            if renamed:
                yield from ((new, tensor_below(owner, own)) for own, new in renamed.items())
                continue
            tie = owner.key()
            value = values.pop(tie) if tie in values else value_of(owner.tensor)
            waiting[tie] -= 1
            if waiting[tie]:
                values[tie] = value
            yield owner.path, value
            del value


def owner_of(key: str, owners: dict[str, Owner]) -> Owner | None:
    """The chosen tensor that a key of the state_dict belongs to."""
    parts = key.split(".")
    if CHAINS not in parts:
        return owners.get(key)
    return owners.get(".".join(parts[: parts.index(CHAINS) + 2]))


OLD_ROLES = {
    "weight_g": ({"original0": "g", "original1": "v"}, ("WeightNorm", "_WeightNorm")),
    "spectral_norm": (
        {"original": "orig", "0._u": "u", "0._v": "v"},
        ("SpectralNorm", "_SpectralNorm"),
    ),
}


def old_roles(owner: Owner, layout: str) -> dict[str, str]:
    """The keys in an old layout, by the names of the tensors below the chain.

    Empty if the tensor is stored as its value.
    """
    roles, maps = OLD_ROLES.get(layout, ({}, ()))
    tensor = owner.tensor
    if not isinstance(tensor, OfChain) or len(tensor.maps) != 1 or tensor.maps[0] not in maps:
        return {}
    if not set(roles) <= set(tensor.chain.state_dict()):
        return {}  # a spectral norm of a vector, which has no state
    keys = keys_of(owner.path, layout, SUFFIXES[layout])
    return {own: keys[role] for own, role in roles.items()}


def tensor_below(owner: Owner, name: str) -> Tensor:
    """A tensor of the state_dict of a chain."""
    chain: Any = owner.tensor.chain  # type: ignore[attr-defined] # of a chain, see above
    found: Tensor = chain.state_dict()[name]
    return found


@torch.no_grad()
def value_of(tensor: ParametrizedTensor) -> Tensor:
    """The value of the tensor, in memory of its own or of its original. Nothing moves."""
    if isinstance(tensor, OfChain):
        snapshot = Snapshot(below([tensor.chain]), *split_tensors(tensor.chain))
    else:
        snapshot = Snapshot([tensor.place.module])
    try:
        return own_memory(tensor.value().detach(), tensor)
    finally:
        snapshot.restore()
