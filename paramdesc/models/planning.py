"""Which tensors `parametrize` is about, by which key, and which of them are one tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch.nn import Module, Parameter

from paramdesc.errors import PlacementError
from paramdesc.models.makers import Maker, MapSource, make_maker
from paramdesc.models.selection import (
    Place,
    Selector,
    iterate_places,
    make_test,
    members,
    tensor_at,
)
from paramdesc.models.unmatched import refuse_unmatched
from paramdesc.registration.host import chains_of
from paramdesc.registration.lazy import PendingRegistration
from paramdesc.torch_internals.forward_hooks import hooked_tensors

__all__ = ["Target", "plan"]


@dataclass
class Target:
    """One tensor of the model, with the places that hold it.

    Args:
        places: the place where the map is registered, then those that share it.
        chosen: the places that the keys name. The others hold the same tensor.
        key: the key that decides.
        is_exact: whether the key is the path of the tensor.
        problem: why it must not be parametrized, if so.
    """

    places: list[Place]
    chosen: list[Place]
    key: Selector
    maker: Maker
    is_exact: bool
    problem: PlacementError | None = None


def plan(
    model: Module,
    maps: Mapping[Any, MapSource],
    exclude: Sequence[Selector],
    append: bool,
) -> list[Target]:
    """The tensors to parametrize, in the order of the model.

    Raises:
        SelectionError: if a selector chooses no tensor.
        PlacementError: if a value cannot make maps, or a key chooses only what others have chosen.
    """
    makers = {key: make_maker(key, value) for key, value in maps.items()}
    places = [place for place in iterate_places(model) if is_there(place)]
    chosen, excluded = choose(list(maps), exclude, places)
    targets = []
    for holders in group(places).values():
        own = [place for place in holders if place.path in chosen]
        if own:
            first = min(own, key=lambda place: chosen[place.path].order)
            order, key = chosen[first.path]
            others = [place for place in holders if place is not first]
            target = Target([first, *others], own, key, makers[key], order == EXACT)
            kept = [place.path for place in holders if place.path in excluded]
            if kept:
                target.problem = PlacementError.excluded(first.path, kept[0])
            targets.append(target)
    add_problems(targets, places, append)
    refuse_single_maps(targets)
    return targets


class Choice(NamedTuple):
    """The key that decides for a tensor, and its place among the keys; `EXACT` for a path."""

    order: int
    key: Selector


EXACT = -1


def choose(
    keys: Sequence[Selector], exclude: Sequence[Selector], places: Sequence[Place]
) -> tuple[dict[str, Choice], set[str]]:
    """The key that decides for each chosen path, and the excluded paths.

    An exact path comes before all other keys. Otherwise the first key that matches decides.
    """
    tests = [(selector, key, make_test(selector)) for key in keys for selector in members(key)]
    exclusions = [(selector, make_test(selector)) for selector in exclude]
    chosen: dict[str, Choice] = {}
    excluded: set[str] = set()
    used: list[Any] = []
    for place in places:
        is_buffer = not is_parameter(place)
        for i, (selector, key, test) in enumerate(tests):
            if not test(place) or (is_buffer and not names_tensor(selector)):
                continue
            used.append(key)
            choice = Choice(EXACT if selector == place.path else i, key)
            if place.path not in chosen or choice.order < chosen[place.path].order:
                chosen[place.path] = choice
        for selector, exclusion in exclusions:
            if exclusion(place):
                used.append(selector)
                excluded.add(place.path)
    refuse_unmatched(keys, used, places)
    refuse_unmatched(exclude, used, places, "exclude")
    refuse_hidden(keys, chosen, places)
    return {path: choice for path, choice in chosen.items() if path not in excluded}, excluded


def refuse_hidden(
    keys: Sequence[Selector], chosen: Mapping[str, Choice], places: Sequence[Place]
) -> None:
    """Refuse a key whose tensors are all chosen by earlier keys: it would do nothing."""
    deciding = {id(choice.key) for choice in chosen.values()}
    for key in keys:
        if id(key) not in deciding:
            test = make_test(key)
            path = next(place.path for place in places if test(place))
            raise PlacementError.unused(key, path)


def names_tensor(selector: Selector) -> bool:
    """Whether a selector names tensors without a wildcard. Buffers are not chosen otherwise."""
    return isinstance(selector, str) and not any(sign in selector for sign in "*?[")


def is_there(place: Place) -> bool:
    """Whether there is a tensor: a bias may be None."""
    return tensor_at(place) is not None or chain_at(place) is not None


def is_parameter(place: Place) -> bool:
    return isinstance(place.module._parameters.get(place.tensor_name), Parameter) or (
        chain_at(place) is not None
    )


def pending_maps(place: Place) -> list[Module]:
    """The maps that wait for the shape of the tensor."""
    hooks = place.module._forward_pre_hooks.values()
    waiting = [hook for hook in hooks if isinstance(hook, PendingRegistration)]
    return [x.parametrization for x in waiting if x.tensor_name == place.tensor_name]


def chain_at(place: Place) -> Any:
    """The chain on a tensor, by paramdesc or torch; None if there is none."""
    for chains in chains_of(place.module):
        return chains._modules.get(place.tensor_name)
    return None


def group(places: Iterable[Place]) -> dict[int, list[Place]]:
    """The places by the identity of their tensor, or of their chain. No reference is kept."""
    groups: dict[int, list[Place]] = {}
    for place in places:
        chain = chain_at(place)
        groups.setdefault(id(tensor_at(place) if chain is None else chain), []).append(place)
    return groups


def add_problems(targets: Sequence[Target], places: Sequence[Place], append: bool) -> None:
    """Note the targets that are parametrized already, and those that are originals of others."""
    chains = [(place, chain_at(place)) for place in places]
    originals = {
        id(x): place.path
        for place, chain in chains
        if chain is not None
        for x in chain.parameters(recurse=False)
    }
    for target in targets:
        first = target.places[0]
        if not target.is_exact:
            target.problem = target.problem or problem_of_hook(first)
        if chain_at(first) is not None or pending_maps(first):
            if not append:
                target.problem = target.problem or PlacementError.parametrized(first.path)
        elif originals and id(tensor_at(first)) in originals:
            other = originals[id(tensor_at(first))]
            target.problem = PlacementError.original(first.path, other)


def problem_of_hook(place: Place) -> PlacementError | None:
    """What to say of a tensor from which one of torch's older functions computes another."""
    for hooked in hooked_tensors(place.module):
        if place.tensor_name in hooked.parts:
            return PlacementError.hooked(place.path, hooked.tensor_name, hooked.machinery)
    return None


def refuse_single_maps(targets: Sequence[Target]) -> None:
    """Refuse a map, instead of what makes maps, for several tensors."""
    for target in targets:
        if target.maker.kind == "map":
            paths = [x.places[0].path for x in targets if x.maker.value is target.maker.value]
            if len(paths) > 1:
                raise PlacementError.one_map(target.key, target.maker.value, paths)
