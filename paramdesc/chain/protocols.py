"""The protocols of maps: the contract between a map and the code that registers it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

__all__ = ["InvertibleParametrizationProto", "ParametrizationProto", "TensorMap"]

TensorMap = Callable[..., Tensor]
"""A plain function that serves as a map: `Tensor -> Tensor`, or several tensors to one."""


@runtime_checkable
class ParametrizationProto(Protocol):
    """Computes a tensor from one or several originals.

    Every `nn.Module` with a `forward` method satisfies this protocol, and so does any other object
    with such a method. A map whose tensors must be trained, saved and moved has to be an
    `nn.Module`; derive from `paramdesc.Parametrization` for constraints, warm starts and base
    points.
    """

    @property
    def forward(self) -> Callable[..., Tensor]:
        """The map itself, `forward(X)` or `forward(X0, X1, ...)`.

        - It takes as many tensors as there are originals: one, unless `right_inverse`
          returns a sequence. A later map in a chain takes the one value before it.
        - It returns one tensor with the shape and dtype of the parametrized tensor, unless it is
          registered with `unsafe=True`.
        - Its result depends only on its arguments, on the tensors and attributes of the map, and on
          `self.training`: `cached` reuses a value while these are unchanged.
        - It may be called at any time and any number of times, so a call must not have side effects
          that change the result of a later call.
        """
        ...


@runtime_checkable
class InvertibleParametrizationProto(ParametrizationProto, Protocol):
    """A map whose value can be assigned: `module.weight = X`."""

    def right_inverse(self, X: Tensor, /) -> Tensor | Sequence[Any]:
        """Return originals for which `forward` gives `X`, or a value near it.

        - One tensor: it becomes `original`, with the dtype and device of `X`, in the same
          Parameter object. A sequence of tensors, even of length one: they become
          `original0`, `original1`, ..., new Parameters where the tensor was one. Only the
          first map of a chain may return a sequence.
        - It runs without gradients, at registration and at each assignment.
        - If `forward` does not reach `X`, it raises ValueError or projects `X`; its docstring says
          which.
        - If it raises NotImplementedError at registration, it is treated as the identity.
        """
        ...
