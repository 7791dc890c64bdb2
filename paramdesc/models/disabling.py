"""`disabled`, the context manager that makes parametrized tensors read as their originals."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

from torch import Tensor
from torch.jit import ScriptModule
from torch.nn import Module

from paramdesc.caching.active import active_scopes, end_scope, innermost_of, open_first
from paramdesc.caching.left_open import remember_opener
from paramdesc.caching.switched_off import (
    GIVEN,
    ORIGINAL,
    DisablingScope,
    StandIn,
    disabling_scopes,
)
from paramdesc.chain.chain import Chain
from paramdesc.errors import ArgumentError, DisabledError
from paramdesc.models.selection import (
    Place,
    Selector,
    Selectors,
    as_selectors,
    iterate_places,
    make_test,
    parametrized_names,
)
from paramdesc.models.unmatched import refuse_unknown, refuse_unmatched
from paramdesc.registration.collection import map_types
from paramdesc.registration.host import check_model
from paramdesc.torch_internals.dynamo import is_dynamo_compiling, uncompiled

__all__ = ["disabled"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


class disabled:  # noqa: N801
    """Disable parametrizations inside the block: tensors read as their originals.

    Parameters, `requires_grad`, the `state_dict` and the optimizer are not changed, and gradients
    reach the originals directly. The block applies to the calling thread or asyncio task, and to
    tasks started inside. Blocks can be nested; for each tensor, the innermost one that names it
    applies. Inside, values are neither read from `cached` or `auto_cache` nor stored there.
    Compiled code respects the block.

    The original of a map with a base point, such as `Orthogonal`, is a coordinate relative to that
    point, and zero after registration: pass a value for it in `values`. Assigning to a disabled
    tensor raises an error.

    Args:
        model: the model, or one `ParametrizationList`.
        selectors: the tensors to disable: patterns for their paths or names, types of modules,
            submodules, or tuples of these. Without selectors and `values`, all parametrized tensors
            are disabled.
        exclude: the tensors to leave as they are: a selector, or several in a list.
        values: a dict from patterns to tensors, which are read instead of the originals. The
            tensors that match are disabled as well.
        maps: types of maps. If given, only these maps are disabled, and the others are still
            applied.

    Raises:
        SelectionError: a ValueError, if a selector matches no parametrized tensor, or an exclusion
            no tensor of the model.
        TypeError: if `model` is not a module, or `maps` are not types.
        DisabledError: a RuntimeError, if a tensor has several originals and no value is given, or
            if it is parametrized by `torch.nn.utils.parametrize` or in a TorchScript program.

    >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", Symmetric())
    >>> with disabled(linear):
    ...     print(linear.weight is linear.parametrizations.weight.original)
    True
    >>> with disabled(linear, values={"weight": torch.eye(3)}):
    ...     linear.weight.trace().item()
    3.0

    As a decorator, it runs each call of the function in a block.
    """

    def __init__(
        self,
        model: Module,
        *selectors: Selector,
        exclude: Selectors = (),
        values: Mapping[str, Tensor] | None = None,
        maps: type[Module] | tuple[type[Module], ...] = (),
    ) -> None:
        check_model("disabled", model)
        if values is not None and not isinstance(values, Mapping):
            raise ArgumentError.of_values(values)
        self._model = model
        self._selectors = selectors
        self._exclude = as_selectors(exclude)
        self._values = dict(values or {})
        self._maps = map_types("maps", maps)
        self._scopes: list[Any] = []

    def __enter__(self) -> None:
        if is_dynamo_compiling():
            uncompiled(disabled.__enter__)(self)
            return
        around = next(iter(disabling_scopes(active_scopes())), None)
        scope = DisablingScope(self._stand_ins(), around)
        remember_opener(scope, sys._getframe(1))
        try:
            self._scopes.append(scope)
            open_first(scope)
            return  # inside the try: an interrupt right after open_first must be handled
        except BaseException as error:
            end_scope(scope, self._scopes, error)
            raise

    def __exit__(self, *exception: object) -> None:
        if is_dynamo_compiling():
            uncompiled(disabled.__exit__)(self, *exception)
            return
        scope = None
        try:
            scope = innermost_of(self._scopes)
            end_scope(scope, self._scopes)
        except BaseException as error:  # an interrupt may have stopped end_scope halfway
            found = innermost_of(self._scopes) if scope is None else scope
            end_scope(found, self._scopes, error)
            raise

    def __call__(self, function: Callable[_P, _T]) -> Callable[_P, _T]:
        """Run each call of `function` in a block. Also works for coroutine functions."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise DisabledError.generator(function.__qualname__)
        run: Any
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_coroutine(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await function(*args, **kwargs)

            run = run_coroutine
        else:

            @functools.wraps(function)
            def run_function(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return function(*args, **kwargs)

            run = run_function
        return run  # type: ignore[no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        """The settings. A copy shares no open block."""
        return {**self.__dict__, "_scopes": []}

    def __repr__(self) -> str:
        names = ", ".join(repr(path) for path, _ in self._chosen())
        maps = f" without {', '.join(x.__name__ for x in self._maps)}" if self._maps else ""
        return f"<disabled {names or 'nothing'}{maps}>"

    def _stand_ins(self) -> dict[Any, StandIn]:
        chosen = self._chosen()
        if not self._maps:
            return {chain: stand_in for _, (chain, stand_in) in chosen}
        found = {}
        for path, (chain, stand_in) in chosen:
            maps = list(chain.maps())
            left = [i for i, part in enumerate(maps) if not isinstance(part, self._maps)]
            if stand_in.how == GIVEN:
                found[chain] = stand_in
            elif not left:
                found[chain] = stand_in_of(path, chain)
            elif len(left) < len(maps):
                if 0 not in left and not chain.is_tensor:
                    raise DisabledError.several(path, chain.ntensors)
                found[chain] = StandIn(chain, ",".join(map(str, left)))
        if not found:
            parts = {type(part).__name__ for _, (chain, _) in chosen for part in chain.maps()}
            raise DisabledError.without_map(self._maps, sorted(parts))
        return found

    def _chosen(self) -> list[tuple[str, tuple[Any, StandIn]]]:
        """The tensors that are switched off, by path, each with its chain."""
        if isinstance(self._model, Chain):
            chain = self._model
            return [(chain.tensor_name, (chain, self._stand_in(chain.tensor_name, chain, None)))]
        places = list(parametrized_places(self._model))
        given = {key: make_test(key) for key in self._values}
        tests = [(selector, make_test(selector)) for selector in self._selectors]
        excluded = [make_test(selector) for selector in self._exclude]
        used: list[Any] = []
        found: list[tuple[str, tuple[Any, StandIn]]] = []
        for place in places:
            keys: list[Any] = [key for key, test in given.items() if test(place)]
            matching = [selector for selector, test in tests if test(place)]
            used += [*keys, *matching]
            is_meant = keys or matching or not (tests or given)
            if is_meant and not any(test(place) for test in excluded):
                chain = chain_at(place)
                found.append((place.path, (chain, self._stand_in(place.path, chain, keys))))
        refuse_unmatched(self._selectors, used, places, kind="parametrized tensor")
        refuse_unmatched(self._values, used, places, "values", "parametrized tensor")
        refuse_unknown(self._exclude, places, self._model, "exclude")
        return found

    def _stand_in(self, path: str, chain: Any, keys: list[str] | None) -> StandIn:
        if keys is None:  # a chain was given, and the only value is its own
            keys = list(self._values)
        if not keys:
            return StandIn(chain) if self._maps else stand_in_of(path, chain)
        value: Any = self._values[keys[-1]]
        if not isinstance(value, Tensor):
            raise DisabledError.given(path, value)
        if chain.is_tensor and not chain.unsafe and value.shape != chain.original.shape:
            raise DisabledError.shape(path, list(value.shape), list(chain.original.shape))
        return StandIn(chain, GIVEN, value)


def stand_in_of(path: str, chain: Any) -> StandIn:
    """The one original of `chain`."""
    if not chain.is_tensor:
        raise DisabledError.several(path, chain.ntensors)
    return StandIn(chain, ORIGINAL)


def parametrized_places(model: Module) -> Iterator[Place]:
    """The parametrized tensors of `model`."""
    for path, module in model.named_modules():
        if isinstance(module, ScriptModule):
            raise DisabledError.program(path)
    for place in iterate_places(model):
        if place.tensor_name in parametrized_names(place.module):
            yield place


def chain_at(place: Place) -> Any:
    chains: Any = place.module._modules["parametrizations"]
    chain = chains._modules[place.tensor_name]
    if not isinstance(chain, Chain):
        raise DisabledError.foreign(place.path)
    return chain
