"""Registers parametrizations on many tensors of a model in one call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch.nn import Module
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from paramdesc.errors import ArgumentError, add_note
from paramdesc.models.collector import without_collector
from paramdesc.models.makers import MapSource
from paramdesc.models.placing import Placed, describe, place
from paramdesc.models.planning import Target, chain_at, plan
from paramdesc.models.result import Outcome, ParametrizeResult
from paramdesc.models.selection import Selectors, as_selectors, tensor_at
from paramdesc.registration.collection import ParametrizationSet
from paramdesc.registration.host import check_model
from paramdesc.registration.optimizer_groups import Change, check_optimizer, hand_over, trained_at
from paramdesc.registration.references import ALONE, count_references
from paramdesc.registration.sharing import leave
from paramdesc.registration.snapshot import Snapshot
from paramdesc.registration.tied import known_to_be_free, modules_with

__all__ = ["parametrize"]


def parametrize(
    model: Module,
    maps: Mapping[Any, MapSource],
    *,
    exclude: Selectors = (),
    append: bool = False,
    unsafe: bool = False,
    optimizer: Optimizer | None = None,
) -> ParametrizeResult:
    """Register parametrizations on all tensors of a model that the keys of `maps` select.

    Each tensor gets its own map. A tensor that several modules share gets one parametrization,
    which they share too. If an exception is raised, the model is unchanged.

    A key that is the exact path of a tensor takes precedence; otherwise the first matching key
    applies. A tensor selected by a type, a submodule or a wildcard is skipped if the map does not
    fit it or if it is already parametrized; the result says why. An exception is raised for a
    tensor that is named exactly, and for a key whose map fits none of its tensors.

    Args:
        model: the model, changed in place.
        maps: a dict from selectors to parametrizations. A key is a type of module, for its weights;
            a pattern for paths or names of tensors, such as `"encoder.*.weight"` or
            `"in_proj_weight"`; a submodule, for all of its parameters; or a tuple of these. A value
            is a class of maps, a function without arguments that returns a map, or a function of
            module and tensor name, such as `orthogonal`. Buffers are selected only by patterns
            without wildcards.
        exclude: the tensors to leave out: a selector of the same kinds, or several in a list.
        append: whether to add maps to tensors that are already parametrized, after their existing
            maps.
        unsafe: as in `register_parametrization`.
        optimizer: as in `register_parametrization`; it trains the new Parameters from now on.

    Returns:
        A record of what was done for each tensor, and which tensors were skipped and why. It prints
        as a table.

    Raises:
        SelectionError: a ValueError, if a key or an exclusion matches no tensor. A tuple is refused
            only if none of its members matches.
        PlacementError: a ValueError, if a single map is given for several tensors, or if a tensor
            that is named exactly cannot be parametrized.
        TypeError: if `model` is not a module, or `maps` is not a dict.
        Exception: exceptions raised by the maps propagate unchanged.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> print(parametrize(model, {"0.weight": Symmetric, nn.Linear: lambda: SpectralNorm(0.9)}))
    0.weight  parametrized  Symmetric
    2.weight  parametrized  SpectralNorm
    """
    check_model("parametrize", model)
    if not isinstance(maps, Mapping):
        raise ArgumentError.of_maps(maps)
    if optimizer is not None:
        check_optimizer(optimizer)
    targets = plan(model, maps, as_selectors(exclude), append)
    for target in targets:
        if target.is_exact and target.problem is not None:
            raise target.problem
    free = free_tensors(targets)  # asked while we hold the tensors nowhere
    state = State(targets, has_optimizer=optimizer is not None)
    try:
        with without_collector(), known_to_be_free(free):
            placed = [
                place(
                    target,
                    unsafe,
                    optimizer is not None,
                    id(tensor_at(target.places[0])) in free,
                    state.history,
                )
                for target in targets
            ]
        raise_if_nothing_fits(placed)
        if optimizer is not None:
            hand_over(optimizer, state.changes())
        return ParametrizeResult(
            tuple(outcome for one in placed for outcome in outcomes_of(one)),
            ParametrizationSet.named(
                (one.target.places[0].path, chain_at(one.target.places[0]))
                for one in placed
                if one.what == "parametrized"
            ),
        )
    except BaseException:
        state.restore()
        raise


def free_tensors(targets: Sequence[Target]) -> set[int]:
    """The identities of the Parameters that no module holds besides those of the model."""
    free: list[Target] = []
    suspects: list[Target] = []
    for target in targets:
        module, name = target.places[0][1:]
        if chain_at(target.places[0]) is None and name in module._parameters:
            is_referred_to = count_references(vars(module), name) > ALONE + len(target.places) - 1
            (suspects if is_referred_to else free).append(target)
    tensors: list[Any] = [tensor_at(target.places[0]) for target in suspects]
    found = modules_with(tensors) if suspects else {}
    for target in suspects:
        known = {id(x.module) for x in target.places}
        if all(id(module) in known for module in found[id(tensor_at(target.places[0]))]):
            free.append(target)
    return {id(tensor_at(target.places[0])) for target in free}


class State:
    """The state to restore if a later target fails, and the tensors trained before."""

    def __init__(self, targets: Sequence[Target], has_optimizer: bool) -> None:
        self.targets = targets
        self.chains = [chain_at(target.places[0]) for target in targets]
        self.history: list[Snapshot] = []
        modules = dict.fromkeys(place.module for target in targets for place in target.places)
        self.requires_grad = [(x, x.requires_grad) for m in modules for x in m.parameters(False)]
        self.before = [trained_on(target) for target in targets] if has_optimizer else []

    def changes(self) -> list[Change]:
        """The tensors that are trained now, by those that they replace."""
        after = [trained_on(target) for target in self.targets]
        return [Change(*pair) for pair in zip(self.before, after, strict=True)]

    def restore(self) -> None:
        for target, old in zip(self.targets, self.chains, strict=True):
            new = chain_at(target.places[0])
            if new is not None and new is not old:
                leave(new)
        for snapshot in reversed(self.history):
            snapshot.restore()
        for x, requires_grad in self.requires_grad:
            if not is_lazy(x):  # torch refuses to touch those, and nothing has
                x.requires_grad_(requires_grad)


def trained_on(target: Target) -> dict[str, Any]:
    return dict(trained_at(target.places[0].module, target.places[0].tensor_name))


def raise_if_nothing_fits(placed: Sequence[Placed]) -> None:
    """Raise the first exception of a key whose map fits none of its tensors."""
    failed: dict[int, tuple[Exception, Target]] = {}
    for one in placed:
        if one.error is not None and one.error is not one.target.problem:
            failed.setdefault(id(one.target.key), (one.error, one.target))
    for one in placed:
        if one.error is None or one.error is one.target.problem:
            failed.pop(id(one.target.key), None)
    for error, target in failed.values():
        add_note(
            error,
            f"in parametrize(), at {target.places[0].path!r}. No tensor that {target.key!r:.100} "
            "selects accepted a map.",
        )
        raise error


def outcomes_of(placed: Placed) -> Iterator[Outcome]:
    """The lines of the result for one target."""
    first, *others = placed.target.places
    if placed.error is not None:
        reason = str(placed.error).strip().partition("\n")[0]
        for chosen in placed.target.chosen:
            yield Outcome(chosen.path, "left", reason=reason)
        return
    yield Outcome(first.path, placed.what, describe(first))
    for other in others:
        yield Outcome(other.path, "tied", reason=f"shares the parametrization of {first.path!r}")
