"""The chain of maps on one tensor, with the originals it starts from."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    _global_backward_hooks,
    _global_backward_pre_hooks,
    _global_forward_hooks,
    _global_forward_pre_hooks,
)
from torch.nn.utils import parametrize as torch_engine

from paramdesc.cache import forget
from paramdesc.errors import MissingRightInverseError, OriginalError
from paramdesc.explain import explain
from paramdesc.local_classes import picklable
from paramdesc.tensors import alias, replace_all, replace_data, shares_storage

__all__ = ["ParametrizationList"]

_CALL = nn.Module.__call__


def call(module: nn.Module, *values: Any) -> Any:
    """`module(*values)`, at the price of its `forward` if nothing hooks into the call."""
    state = module.__dict__
    if (
        type(module).__call__ is not _CALL
        or state["_forward_hooks"]
        or state["_forward_pre_hooks"]
        or state["_backward_hooks"]
        or state["_backward_pre_hooks"]
        or _global_forward_hooks
        or _global_forward_pre_hooks
        or _global_backward_hooks
        or _global_backward_pre_hooks
        or "_compiled_call_impl" in state
    ):
        return module(*values)
    return module.forward(*values)


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
        modules: Sequence[nn.Module],
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
            holder = self._parameters if "original" in self._parameters else self._buffers
            holder["original"] = original

    def maps(self) -> Iterator[nn.Module]:
        """The registered maps, first to last."""
        return (child for name, child in self._modules.items() if name.isdigit() and child)

    def originals(self) -> tuple[Tensor, ...]:
        """The tensors that the first map takes."""
        if not self.is_tensor:
            return tuple(getattr(self, f"original{i}") for i in range(self.ntensors))
        parameters = self.__dict__["_parameters"]
        if "original" in parameters and nn.Module.__call__ is _CALL:
            return (parameters["original"],)
        return (self.original,)  # a buffer, parametrized itself, or traced by torch.fx

    def evaluate(self) -> Tensor:
        """A fresh value, with this module's own hooks if it has any."""
        return call(self)

    def forward(self) -> Tensor:
        """A fresh value: the maps in order, applied to the originals."""
        values: tuple[Any, ...] = self.originals()
        name = ""
        try:
            for name, parametrization in self._modules.items():
                if name.isdigit():
                    values = (call(parametrization, *values),)
        except Exception as error:
            explain(error, self, "evaluating", name)
            raise
        return values[0]

    def right_inverse(self, value: Tensor) -> None:
        """Set the originals such that the chain evaluates to `value`, all of them or none.

        Raises:
            RuntimeError: if a map has no `right_inverse`.
            ValueError: if one returns what the originals cannot take, or refuses `value`.
        """
        result: Any = value
        with torch.no_grad():
            for name, parametrization in reversed(list(self._modules.items())):
                if not name.isdigit():
                    continue
                if not hasattr(parametrization, "right_inverse"):
                    raise MissingRightInverseError(self.tensor_name, parametrization)
                try:
                    result = parametrization.right_inverse(result)
                except Exception as error:
                    explain(error, self, "assigning", name)
                    raise
        forget(self)  # a kept graph would stand in the way of swapping the originals
        news = (new.clone() if shares_storage(new, value) else new for new in self.fitting(result))
        replace_all(zip(self.originals(), news))

    def __getstate__(self) -> dict[str, Any]:
        maps = {name: picklable(child) for name, child in self._modules.items()}
        return {**self.__dict__, "_modules": maps}

    def __deepcopy__(self, memo: dict[int, Any]) -> ParametrizationList:
        twin = self.__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
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
        for i, (original, tensor) in enumerate(zip(self.originals(), result)):
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
