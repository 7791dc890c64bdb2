"""The chain of maps on one tensor, with the originals it starts from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.nn import Module
from torch.nn.modules.module import (
    _global_backward_hooks,
    _global_backward_pre_hooks,
    _global_forward_hooks,
    _global_forward_pre_hooks,
)
from torch.nn.utils import parametrize as torch_engine

from paramdesc.base import Parametrization
from paramdesc.errors import MissingRightInverseError, OriginalError
from paramdesc.explain import explain
from paramdesc.local_classes import picklable
from paramdesc.mode import has_transforms
from paramdesc.scopes import forget
from paramdesc.snapshot import Snapshot
from paramdesc.tensors import alias, replace_data, shares_storage

__all__ = ["ParametrizationList", "evaluate", "is_warm"]

_CALL = Module.__call__


def evaluate(chain: ParametrizationList) -> Any:
    """A fresh value of `chain`: what its call gives, at a fraction of the price.

    The call of a module costs nine times what an empty `forward` does, so it is made only
    where it does more: for hooks, for a class with a call of its own, for torch.fx, and for
    maps with a state.
    """
    state = chain.__dict__
    parameters = state["_parameters"]
    if (
        "original" not in parameters
        or Module.__call__ is not _CALL
        or state["_forward_hooks"]
        or state["_forward_pre_hooks"]
        or state["_backward_hooks"]
        or state["_backward_pre_hooks"]
        or _global_forward_hooks
        or _global_forward_pre_hooks
        or _global_backward_hooks
        or _global_backward_pre_hooks
        or "_steps" in state
    ):
        return chain()
    value = parameters["original"]
    parametrization: Any = None
    try:
        for parametrization in state["_modules"].values():
            own = parametrization.__dict__
            if (
                own["_forward_hooks"]
                or own["_forward_pre_hooks"]
                or own["_backward_hooks"]
                or own["_backward_pre_hooks"]
                or "_compiled_call_impl" in own
                or type(parametrization).__call__ is not _CALL
            ):
                value = parametrization(value)
            else:
                value = parametrization.forward(value)
    except Exception as error:
        explain(error, chain, "evaluating", parametrization)
        raise
    return value


def is_warm(parametrization: Module) -> TypeGuard[Parametrization]:
    """Whether it keeps a state that its next evaluation starts from."""
    return isinstance(parametrization, Parametrization) and bool(parametrization.warm_start)


class ParametrizationList(torch_engine.ParametrizationList):
    """The maps registered on one tensor, in order, and its original or originals.

    `module.parametrizations.weight` is one of these; `module.weight` is what it evaluates
    to. The original is its parameter or buffer `original`; several originals are
    `original0`, `original1`, .... It is made by `register_parametrization`.

    Args:
        modules: the maps, at least one.
        original: the tensor to parametrize. It is read, not changed: `adopt_original` does
            that once everything is known to fit.
        unsafe: whether the maps may change dtype and shape. Then nothing is checked.

    Raises:
        ValueError: if the maps do not fit the tensor, as torch's class raises it.
    """

    tensor_name: str
    host: str

    def __init__(
        self,
        modules: Sequence[Module],
        original: Tensor,
        unsafe: bool = False,
        *,
        tensor_name: str = "original",
        host: str = "ParametrizationList",
    ) -> None:
        self.tensor_name, self.host = tensor_name, host  # an error below is told with them
        super().__init__(modules, alias(original), unsafe)

    def adopt_original(self, original: Tensor) -> None:
        """Let the one original be the object `original`, so that optimizers keep their grip."""
        if self.is_tensor:
            replace_data(original, self.original)
            parameters: dict[str, Any] = self._parameters
            holder = parameters if "original" in parameters else self._buffers
            holder["original"] = original

    def maps(self) -> Iterator[Module]:
        """The registered maps, first to last."""
        return (child for name, child in self._modules.items() if name.isdigit())

    def original_names(self) -> list[str]:
        """What the originals are called here."""
        return ["original"] if self.is_tensor else [f"original{i}" for i in range(self.ntensors)]

    def originals(self) -> tuple[Tensor, ...]:
        """The tensors that the first map takes."""
        return tuple(getattr(self, name) for name in self.original_names())

    def forward(self) -> Tensor:
        """A fresh value: the maps in order, applied to the originals."""
        values: tuple[Any, ...] = self.originals()
        stepped = "_steps" in self.__dict__ and self.training and self.has_stepped()
        parametrization = None
        try:
            for parametrization in self.maps():
                if stepped and parametrization.training and is_warm(parametrization):
                    parametrization.advance(*values)
                values = (parametrization(*values),)
        except Exception as error:
            explain(error, self, "evaluating", parametrization)
            raise
        value: Tensor = values[0]
        return value

    def has_stepped(self) -> bool:
        """Whether what is trained here was written to since the last evaluation in training mode.

        Not if it is other tensors now: `functional_call` lends them, conversions make them.
        """
        if is_dynamo_compiling():
            return True  # versions cannot be compiled: there, each call is taken for a step
        if has_transforms():
            return False  # nor for what a transform wraps
        before = self.__dict__["_steps"]
        now = self.count_steps()
        self.__dict__["_steps"] = {**before, **now} if len(before) < 4 * len(now) else now
        return any(before.get(place, version) != version for place, version in now.items())

    def count_steps(self) -> dict[int, int]:
        """Remember which tensors are trained here, by identity, and the version of each."""
        tensors = [
            *self.parameters(),
            *(x for x in dict(self._buffers.items()).values() if x is not None),
        ]
        steps = {id(x): 0 if x.is_inference() else x._version for x in tensors}
        self.__dict__["_steps"] = steps
        return steps

    @torch.no_grad()
    def start(self, *, anew: bool) -> None:
        """Give the maps that keep a state their first one; all of them if `anew`."""
        if not any(map(is_warm, self.maps())):
            return
        self.count_steps()
        values: tuple[Any, ...] = self.originals()
        for parametrization in self.maps():
            if is_warm(parametrization):
                parametrization.is_led = True
                if anew or not parametrization.has_state():
                    parametrization.reset(*values)
            values = (parametrization(*values),)

    def append(self, module: Module) -> ParametrizationList:
        """Add a map after the others, if the chain can be evaluated with it.

        torch's engine comes here for a name that is parametrized already.
        """
        name = str(len(self))
        super().append(module)
        try:
            self.start(anew=False)
            with torch.no_grad():
                evaluate(self)
        except BaseException:
            del self._modules[name]
            raise
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ParametrizationList:
        forget(self)  # a kept graph would stand in the way of swapping the originals
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if "_steps" in self.__dict__:
            self.count_steps()
        return self

    def right_inverse(self, value: Tensor) -> None:
        """Set the originals such that the chain evaluates to `value`, all of them or none.

        Raises:
            RuntimeError: if a map has no `right_inverse`.
            ValueError: if one returns what the originals cannot take, or refuses `value`.
        """
        snapshot = Snapshot(*self.modules())
        try:
            with torch.no_grad():
                news = self.fitting(self.invert(value))
            forget(self)  # a kept graph would stand in the way of swapping the originals
            own: dict[str, Any] = {**self._parameters, **dict(self._buffers.items())}
            for name, new in zip(self.original_names(), news, strict=True):
                original = own.get(name)
                if original is None:  # it is parametrized itself
                    setattr(self, name, new)
                else:
                    replace_data(original, new.clone() if shares_storage(new, value) else new)
            self.start(anew=True)
        except BaseException:
            snapshot.restore()
            raise

    def invert(self, value: Tensor) -> Any:
        """What the maps' `right_inverse` make of `value`, last to first."""
        result: Any = value
        for parametrization in reversed(list(self.maps())):
            right_inverse: Any = getattr(parametrization, "right_inverse", None)
            if right_inverse is None:
                raise MissingRightInverseError(self.tensor_name, parametrization)
            try:
                result = right_inverse(result)
            except Exception as error:
                explain(error, self, "assigning", parametrization)
                raise
        return result

    def __getstate__(self) -> dict[str, Any]:
        maps = {name: picklable(child) for name, child in self._modules.items()}
        return {**self.__dict__, "_modules": maps}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if "_steps" in self.__dict__:
            self.count_steps()

    def __deepcopy__(self, memo: dict[int, Any]) -> ParametrizationList:
        twin = self.__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        if "_steps" in self.__dict__:
            twin.count_steps()
        return twin

    def fitting(self, result: Any) -> tuple[Tensor, ...]:
        """What `right_inverse` returned, as the tensors for the originals."""
        if self.is_tensor:
            if not isinstance(result, Tensor):
                raise OriginalError(
                    f"`right_inverse` should return a tensor. Got {type(result).__name__}"
                )
            if result.dtype != self.original.dtype:
                raise OriginalError(
                    f"The tensor returned by `right_inverse` has dtype {result.dtype} "
                    f"while `original` has dtype {self.original.dtype}"
                )
            return (result,)
        if not isinstance(result, Sequence):
            raise OriginalError(
                f"'right_inverse' must return a sequence of tensors. Got {type(result).__name__}."
            )
        if len(result) != self.ntensors:
            raise OriginalError(
                "'right_inverse' must return a sequence of tensors of length "
                f"{self.ntensors}. Got a sequence of length {len(result)}."
            )
        for i, (original, tensor) in enumerate(zip(self.originals(), result, strict=True)):
            if not isinstance(tensor, Tensor):
                raise OriginalError(
                    "'right_inverse' must return a sequence of tensors. "
                    f"Got element {i} of type {type(tensor).__name__}."
                )
            if tensor.dtype != original.dtype:
                raise OriginalError(
                    f"Tensor {i} returned by `right_inverse` has dtype {tensor.dtype} "
                    f"while `original{i}` has dtype {original.dtype}"
                )
        return tuple(result)
