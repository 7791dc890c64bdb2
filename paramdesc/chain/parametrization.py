"""The base class of maps: their constraint, and the state that speeds up the next evaluation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.chain.cuts import Cuts
from paramdesc.chain.saved import remember_saved
from paramdesc.errors import ConstraintError
from paramdesc.linalg.precision import epsilon
from paramdesc.torch_internals.mode import has_numbers
from paramdesc.torch_internals.shards import Part

__all__ = ["Move", "Parametrization", "has_own"]

Move = tuple[tuple[Tensor, ...], list[tuple[Tensor, Tensor]]]
"""New originals, and the tensors of the base point with their new numbers."""


class Parametrization(Module):
    """Base class of maps. Subclasses define `forward`, see `ParametrizationProto`.

    A map that does not reach every tensor of its shape declares its constraint:

    - `constraint` is a phrase that completes the error message "the value is not ...", such as
      "symmetric".
    - `deviation(Y)` measures how far a tensor is from the constraint, and `tolerance(Y)` is the
      deviation that rounding may cause. `paramdesc.testing` checks values with them.
    - `right_inverse(Y)` first calls `self.admit(Y)`, which raises an error for other values if the
      map is `strict`. Otherwise, `right_inverse` continues with a nearby value.

    A map that computes its value iteratively is faster if it starts from its last result. It
    declares this state, and the base class keeps it up to date:

    - `warm_start` names the tensors of the state. They are buffers of the map, so they are saved,
      loaded and moved with it. `ParametrizationSet.warm_start_names` returns their names in a
      model: copy these buffers instead of averaging them when you average models, since the average
      of two solutions is not a solution.
    - `guess(X)` returns a first state, and `refine(X, *state)` a better one.
    - `forward(X)` calls `self.follow(X)` first, and then reads the state.

    With `torch.nn.utils.parametrize`, each call of `follow` counts as a step if its input is not a
    leaf.

    The state moves once per **training step**: at the first evaluation in training mode after
    an original was written to. All reads until the next step see the same state, also over
    several forward passes, and when activations are recomputed. In evaluation mode it never
    moves.

    - An optimizer step counts, including fused and sharded ones, if the original had a gradient. So
      does a write that increases the `_version` of an original.
    - On a CPU, a write through `.data` counts too. It is found by comparing a sample of the
      entries. On other devices, call `paramdesc.invalidate` after such a write.
    - Registration, assignment and `reset` start from a new state, and so does loading originals
      without their state.
    - Copies and state_dicts include the state, and whether it has yet to follow a pending step. So
      a resumed run gives the same numbers as an uninterrupted one.

    A map may be a good chart of its set only near one point. It can let this base point follow the
    training:

    - `base_point` names the tensors of the base point. They are buffers of the map.
    - `recenter(*originals)` returns other originals, followed by another base point, that give the
      same value. Often the value becomes the base point, and zero the original.
    - `rebase` is the number of training steps between two moves; None means never.

    A subclass that overrides `forward` must override `recenter` too. Otherwise its base point never
    moves, since the inherited `recenter` may not fit.

    A scope with `batched=True` evaluates similar maps together. `batching` says how:

    - `"vmap"`, for most maps, uses `torch.func.vmap`.
    - `"leading"` passes the stacked tensors to `forward`, which treats all dimensions before the
      last two as batch dimensions. A subclass that overrides `forward` must declare it again.
    - `"never"` evaluates them one by one, for a map that branches on tensor values or has side
      effects.

    Where originals are sharded, as under tensor parallelism, they are gathered before a map is
    applied, unless the map can be applied to the shards. `cuts(dim, ndim)` returns the parts of the
    originals on which a part of the value depends; then nothing is communicated. A map that needs
    no more of the other parts than sums over the ranks defines `forward_part(X, part)`. A subclass
    that overrides `forward` must define them again.

    The base point moves after an optimizer step, when new numbers are written into the same
    Parameters and buffers. Evaluations never move it. Since a graph may outlive the step, `forward`
    passes a copy of the base point to autograd, `self.base.clone()`.

    >>> class Balanced(Parametrization):  # divides each row by an estimate of its length
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
    base_point: ClassVar[tuple[str, ...]] = ()
    if TYPE_CHECKING:
        batching: str = "vmap"
        rebase: int | None = 50
    else:  # TorchScript does not know the types
        batching = "vmap"
        rebase = 50
    constraint: ClassVar[str] = ""

    def __init__(self, *, strict: bool = False) -> None:
        super().__init__()
        self.strict = strict

    def deviation(self, Y: Tensor) -> Tensor:
        """How far `Y` is from the values of `forward`: a real scalar, zero for such a value.

        The docstring of each map says how it is measured. A map that reaches every tensor does not
        define it.
        """
        raise NotImplementedError(f"{type(self).__name__} declares no constraint.")

    def tolerance(self, Y: Tensor) -> float:
        """The deviation that rounding may cause in a value with the dtype and shape of `Y`."""
        return 20 * epsilon(Y) * math.sqrt(Y.shape[-2:].numel())

    def extra_repr(self) -> str:
        return "strict=True" if self.strict else ""

    def admit(self, Y: Tensor) -> None:
        """Raise an error for a value that `forward` does not reach, if the map is `strict`.

        Raises:
            ConstraintError: a ValueError, with the deviation.
        """
        if self.strict and has_numbers(Y):
            deviation, tolerance = self.deviation(Y).item(), self.tolerance(Y)
            if not deviation <= tolerance:
                raise ConstraintError(self, self.constraint, deviation, tolerance)

    def cuts(self, dim: int, ndim: int) -> Cuts | None:
        """The parts of the originals from which some indices of dimension `dim` are computed.

        Returns the dimension along which each original is cut, or None if it is needed whole, and
        the tensors of the map that are cut, with the dimension. Returns None if all of them are
        needed whole.
        """
        return None

    def forward_part(self, X: Tensor, part: Part) -> Tensor | None:
        """The part of the value on this rank, computed from the part `X` of the original.

        All ranks call it together. Returns None, on all of them, if the original must be gathered.

        Args:
            part: the place of `X` in the original, and `part.total(x)`, the sum of `x` over the
                ranks.
        """
        return None

    def guess(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        """An initial state for these inputs of `forward`, in the order of `warm_start`."""
        raise NotImplementedError(
            f"{type(self).__name__} declares warm_start={self.warm_start}: define guess()."
        )

    def refine(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        """A better state, computed from the inputs of `forward` and the last state."""
        return self.guess(*args[: -len(self.warm_start)])

    is_led = False  # whether a chain of paramdesc sets `is_due`
    is_due = False  # whether a step was made since the state moved last

    def follow(self, *originals: Tensor) -> None:
        """Create the state if there is none, and update it after a training step.

        With `torch.nn.utils.parametrize`, changes of the inputs count as steps.
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
        """Whether there is a state."""
        return all(self._buffers.get(name) is not None for name in self.warm_start)

    def lose_state(self) -> None:
        """Delete the state. The next evaluation makes a new one."""
        for name in self.warm_start:
            if name in self._buffers:
                self._buffers[name] = None

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        remember_saved(destination.get(f"{prefix}{name}") for name in self.warm_start)

    @torch.inference_mode(False)  # inference tensors could not be used in training later
    @torch.no_grad()
    def reset(self, *originals: Tensor) -> None:
        """Set the state to `guess(*originals)`. No-op for a map without `warm_start`."""
        if self.warm_start:
            for name, tensor in zip(self.warm_start, self.guess(*originals), strict=True):
                self.register_buffer(name, tensor)

    @torch.no_grad()
    def advance(self, *originals: Tensor) -> None:
        """Replace the state by `refine`, in place: DDP and compiled graphs hold the buffers."""
        state: list[Any] = [self._buffers[name] for name in self.warm_start]
        for tensor, better in zip(state, self.refine(*originals, *state), strict=True):
            tensor.copy_(better)

    def recenter(self, *originals: Any) -> tuple[Tensor, ...]:
        """Other originals and another base point with the same value, as a flat tuple."""
        raise NotImplementedError(f"{type(self).__name__} defines no recenter().")

    def can_move(self) -> bool:
        """Whether the map has a base point that can be moved."""
        has_base = all(self._buffers.get(name) is not None for name in self.base_point)
        return has_base and has_own(type(self), "recenter")

    def is_relative(self) -> bool:
        """Whether originals are relative to a base point that follows the training."""
        return bool(self.base_point) and self.rebase is not None and self.can_move()

    def is_move_due(self, steps: int) -> bool:
        """Whether to move the base point after this number of training steps."""
        every = self.rebase or 0
        return every > 0 and steps % every == 0 and self.can_move()

    def base_tensors(self) -> list[Tensor]:
        """The tensors of the base point."""
        tensors: list[Any] = [self._buffers[name] for name in self.base_point]
        return tensors

    def moves_with(self, other: Parametrization) -> bool:
        """Whether this map, of another tensor with the same originals, can move along."""
        return self is other

    def moved(self, *originals: Tensor, steps: int | None = None) -> Move:
        """The originals for another base point, and the new numbers for each of its tensors."""
        base, count = self.base_tensors(), len(originals)
        new = self.recenter(*originals)
        return new[:count], list(zip(base, new[count:], strict=True))


def has_own(cls: type[Parametrization], name: str) -> bool:
    """Whether `cls` has the method `name` for its own `forward`, not for that of a base class."""
    for base in cls.__mro__[: cls.__mro__.index(Parametrization)]:
        if name in vars(base):
            return True
        if "forward" in vars(base):
            return False
    return False
