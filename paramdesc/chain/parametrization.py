"""The base class of maps, with the schema for state that speeds up the next evaluation."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.chain.saved import remember_saved
from paramdesc.errors import ConstraintError
from paramdesc.linalg.precision import epsilon
from paramdesc.torch_internals.mode import has_numbers

__all__ = ["Parametrization"]


class Parametrization(Module):
    """A map on the full schema. Derive from it and define `forward`, see `ParametrizationProto`.

    A map whose values are not all tensors of their shape declares which ones they are:

    - `constraint` says it in a word that a message can use, "symmetric" say.
    - `deviation(Y)` measures how far a tensor is from being one, and `tolerance(Y)` what
      rounding may make of it. `paramdesc.testing` checks values by them.
    - `right_inverse(Y)` calls `self.admit(Y)` first, which refuses a value outside if the map
      is `strict`. Otherwise it goes on to a nearby value.

    A map that finds its value by iteration starts best from where it ended last time. It
    declares that state once, and the schema does the rest:

    - `warm_start` names the tensors of the state. They are buffers of the map, so that they
      are saved, loaded and moved with it. `ParametrizationSet.warm_start_names` gives their
      names in a model: leave them out when you average models, and copy them instead. The
      average of two solutions solves nothing.
    - `guess(X)` is a first solution, `refine(X, *state)` a better one from the last.
    - `forward(X)` calls `self.follow(X)` first, and then reads the state.

    Under torch's own engine, `follow` takes an input that is no leaf for a step each time.

    The state moves once per **training step**: at the first evaluation in training mode after
    an original was written to. All reads until the next step see the same state, also in
    several forward passes, and when a checkpoint recomputes its activations. Evaluation mode
    never moves it.

    - The step of an optimizer counts, fused and sharded ones included, if the original had a
      gradient. So does a write that raises the `_version` of an original.
    - On a CPU, so does a write through `.data`, which is found by comparing a few entries. On
      other devices, call `paramdesc.invalidate` after such a write.
    - Registering, assigning and `reset` start the state anew, and so does loading originals
      without their state.
    - Copies and state_dicts hold the state, and whether it has yet to follow a step. So a run
      that is resumed gives the same numbers as one that was not interrupted.

    >>> class Balanced(Parametrization):  # divides each row by its length, as far as it is known
    ...     warm_start = ("length",)
    ...     def guess(self, X):
    ...         return (X.norm(dim=-1, keepdim=True),)
    ...     def refine(self, X, length):  # one Newton step for the square root
    ...         return ((length + X.square().sum(-1, keepdim=True) / length) / 2,)
    ...     def forward(self, X):
    ...         self.follow(X)
    ...         return X / self.length.clone()
    >>> linear = register_parametrization(torch.nn.Linear(2, 2), "weight", Balanced())
    >>> torch.allclose(linear.weight.norm(dim=-1), torch.ones(2))
    True
    """

    warm_start: ClassVar[tuple[str, ...]] = ()
    constraint: ClassVar[str] = ""

    def __init__(self, *, strict: bool = False) -> None:
        super().__init__()
        self.strict = strict

    def deviation(self, Y: Tensor) -> Tensor:
        """How far `Y` is from what `forward` reaches: a real scalar, zero where it is reached.

        The docstring of a map says which norm of which equation it is. A map that reaches
        every tensor leaves it undefined.
        """
        raise NotImplementedError(f"{type(self).__name__} declares no constraint.")

    def tolerance(self, Y: Tensor) -> float:
        """The deviation that rounding may give a value of the dtype and shape of `Y`."""
        return 20 * epsilon(Y) * math.sqrt(Y.shape[-2:].numel())

    def extra_repr(self) -> str:
        return "strict=True" if self.strict else ""

    def admit(self, Y: Tensor) -> None:
        """Refuse a value that `forward` does not reach, if the map is `strict`.

        Raises:
            ConstraintError: a ValueError, with the deviation.
        """
        if self.strict and has_numbers(Y):
            deviation, tolerance = self.deviation(Y).item(), self.tolerance(Y)
            if not deviation <= tolerance:
                raise ConstraintError(self, self.constraint, deviation, tolerance)

    def guess(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        """A first state for these inputs of `forward`, in the order of `warm_start`."""
        raise NotImplementedError(
            f"{type(self).__name__} declares warm_start={self.warm_start}: define guess()."
        )

    def refine(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        """A better state for these inputs, from the last one, which follows them."""
        return self.guess(*args[: -len(self.warm_start)])

    is_led = False  # whether a chain of ours says when a step was made
    is_due = False  # what it says: one was made, and the state has not moved since

    def follow(self, *originals: Tensor) -> None:
        """Have a state, and move it on if a step was made.

        An engine that says nothing of steps is watched instead.
        """
        if not self.has_state():
            self.reset(*originals)
        elif self.is_led:
            if self.is_due:
                self.is_due = False
                self.advance(*originals)
        elif self.training:
            last = self.__dict__.get("_last_seen")
            now = [(id(X), X._version) for X in originals if X.is_leaf and not X.is_inference()]
            self.__dict__["_last_seen"] = now
            if last != now or not now:
                self.advance(*originals)

    def has_state(self) -> bool:
        """Whether the state was ever set."""
        return all(self._buffers.get(name) is not None for name in self.warm_start)

    def lose_state(self) -> None:
        """Have no state until the next evaluation, which starts anew."""
        for name in self.warm_start:
            if name in self._buffers:
                self._buffers[name] = None

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        remember_saved(destination.get(f"{prefix}{name}") for name in self.warm_start)

    @torch.inference_mode(False)  # a state made there could not be trained on elsewhere
    @torch.no_grad()
    def reset(self, *originals: Tensor) -> None:
        """Start anew from `guess`. Does nothing for a map that declares no state."""
        if self.warm_start:
            for name, tensor in zip(self.warm_start, self.guess(*originals), strict=True):
                self.register_buffer(name, tensor)

    @torch.no_grad()
    def advance(self, *originals: Tensor) -> None:
        """Move the state on by one `refine`. It is written in place, as DDP and graphs need it."""
        state: list[Any] = [self._buffers[name] for name in self.warm_start]
        for tensor, better in zip(state, self.refine(*originals, *state), strict=True):
            tensor.copy_(better)
