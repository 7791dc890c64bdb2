"""What a map must be: the contract between a map and whoever registers it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

__all__ = ["InvertibleParametrizationProto", "ParametrizationProto", "TensorMap"]

TensorMap = Callable[..., Tensor]
"""A plain function that serves as a map: `Tensor -> Tensor`, or several tensors to one."""


@runtime_checkable
class ParametrizationProto(Protocol):
    """Computes a tensor from one original, or from several.

    Every `nn.Module` with a `forward` of its own satisfies it, and so does any other object
    with such a method. A map whose tensors are to be trained, saved and moved must be an
    `nn.Module`; derive from `paramdesc.Parametrization` to get the rest of the schema.
    """

    @property
    def forward(self) -> Callable[..., Tensor]:
        """The map itself, `forward(X)` or `forward(X0, X1, ...)`.

        - It takes as many tensors as there are originals: one, unless `right_inverse`
          returns a sequence. A later map in a chain takes the one value before it.
        - It returns one tensor of the shape and dtype of the tensor that it stands for,
          unless it is registered with `unsafe=True`.
        - It is a function of its arguments, of the tensors and attributes that the map
          owns, and of `self.training`: a value in a cache scope is used again while these
          are unchanged.
        - It may be called at any time and any number of times, so a call changes nothing
          that a later call would notice.
        """
        ...


@runtime_checkable
class InvertibleParametrizationProto(ParametrizationProto, Protocol):
    """A map whose value can be assigned: `module.weight = X`."""

    def right_inverse(self, X: Tensor, /) -> Tensor | Sequence[Any]:
        """Originals for which `forward` gives `X`, or the value nearest to it that it reaches.

        - One tensor: it becomes `original`, with the dtype and device of `X`, in the same
          Parameter object. A sequence of tensors, even of length one: they become
          `original0`, `original1`, ..., new Parameters where the tensor was one. Only the
          first map of a chain may return a sequence.
        - It runs without gradients, when the map is registered and at each assignment.
        - It raises ValueError if `X` is outside of what `forward` reaches, or projects it;
          its docstring says which.
        - It raises NotImplementedError to be taken for the identity at registration.
        """
        ...
