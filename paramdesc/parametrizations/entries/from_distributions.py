"""Weights that satisfy a constraint from torch.distributions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints, transform_to
from torch.distributions.constraints import Constraint
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.differences import largest_difference, largest_entry
from paramdesc.linalg.precision import smallest_normal, widened, without_autocast
from paramdesc.parametrizations.entries.interval import check_margin, largest_below, least_above
from paramdesc.parametrizations.entries.simplex import placed_on_simplex
from paramdesc.parametrizations.entries.stick_breaking import without_wait
from paramdesc.torch_internals.mode import has_numbers

__all__ = ["FromDistributions"]


class FromDistributions(Parametrization):
    """Make `layer.weight` satisfy a constraint from `torch.distributions.constraints`.

    The value is `transform_to(constraint)(X)`, or `biject_to(constraint)(X)`. Composed constraints
    (`independent`, `cat`, `stack`), constraints that hold tensors, and constraints that users have
    registered with torch work too. Bounds are strict: where a transform rounds to a bound, the
    value is the nearest number inside. Tensors that a constraint holds become buffers of the map,
    named `bound0`, `bound1`, ...

    Shapes and cost are those of the transform; real; half precision is computed in float32. Where
    the unconstrained tensor and the weight have different shapes (`corr_cholesky`; `simplex` with
    `bijective=True`), it is `original0`, and the map must be the first in its chain. TorchScript
    does not support transforms; `Positive`, `Interval`, `UnitInterval` and `Simplex` can be
    scripted.

    Assignment and registration keep a value that satisfies the constraint. Entries on or outside of
    a bound are placed inside, at a distance of `margin`, relative to the interval if there are two.
    A point outside the simplex is replaced as in `Simplex`. The entries of a `lower_cholesky` value
    above the diagonal are dropped. If no such rule applies and the transform has no inverse at the
    value, assignment raises an error.

    Args:
        constraint: the constraint, such as `constraints.positive` or
            `constraints.interval(0, limits)`.
        bijective: whether to use `biject_to` instead of `transform_to`.
        margin: how far inside to place assigned entries that are out of bounds; 0 for the nearest
            number inside.
        strict: whether to reject a value that does not satisfy the constraint instead of replacing
            it.

    Raises:
        NotImplementedError: if torch has no transform for the constraint.
        ValueError: if `margin` is out of its range; if an assigned value does not satisfy the
            constraint, and no value near it is known or `strict` is set; the error's `deviation` is
            the largest difference from the transform of its inverse.

    Source: `torch.distributions.constraint_registry`.

    >>> from torch.distributions import constraints
    >>> linear = register_parametrization(
    ...     torch.nn.Linear(3, 3), "weight", FromDistributions(constraints.greater_than(2.0))
    ... )
    >>> bool((linear.weight > 2).all())
    True
    """

    constraint = "within the constraint"

    def __init__(
        self,
        constraint: Constraint,
        *,
        bijective: bool = False,
        margin: float = 1e-3,
        strict: bool = False,
    ) -> None:
        super().__init__(strict=strict)
        check_margin(margin)
        self.margin = margin
        self.bijective = bijective
        self.__dict__["constraint"] = f"within {constraint}"
        self.form = with_bounds(constraint, self.take)
        self.has_tensors = "bound0" in self._buffers
        try:
            self.constant_transform = None if self.has_tensors else self.transform_of(self.form)
            self.registry(self.asked())
        except NotImplementedError as error:
            raise NotImplementedError(
                f"torch.distributions has no transform to {constraint} (bijective={bijective}). "
                "Register one with torch.distributions.transform_to.register(...) first."
            ) from error

    def transform_of(self, constraint: Any) -> Any:
        """torch's transform from unconstrained tensors."""
        return without_wait(self.registry(constraint))

    @property
    def registry(self) -> Any:
        return biject_to if self.bijective else transform_to

    def take(self, bound: Any) -> Any:
        """Keep a tensor as a buffer; its name stands for it."""
        if not isinstance(bound, Tensor):
            return bound
        name = f"bound{len(self._buffers)}"
        self.register_buffer(name, bound.detach().clone())
        return name

    def asked(self) -> Any:
        """The constraint, with the tensors as they are now."""
        if not self.has_tensors:
            return self.form
        return with_bounds(self.form, lambda x: self._buffers[x] if isinstance(x, str) else x)

    def transform(self) -> Any:
        """The transform from unconstrained tensors."""
        return self.constant_transform or self.transform_of(self.asked())

    def forward(self, X: Tensor) -> Tensor:
        with without_autocast(X):
            wide: Tensor = self.transform()(widened(X))
        return clamped(self.asked(), wide.to(X.dtype))

    def right_inverse(self, Y: Tensor) -> Tensor | tuple[Tensor]:
        self.admit(Y)
        try:
            X = self.transform().inv(placed(self.asked(), widened(Y), Y.dtype, self.margin))
        except LinAlgError:
            X = torch.full((), torch.nan, device=Y.device)
        if has_numbers(X) and not X.isfinite().all():
            raise ValueError(
                f"the value is not {self.constraint}, and the transform has no finite inverse "
                "there. Assign a value that satisfies the constraint, before registering too."
            )
        X = X.to(Y.dtype)
        return X if X.shape == Y.shape else (X,)

    def deviation(self, Y: Tensor) -> Tensor:
        """The largest difference between `Y` and the transform of its inverse.

        Infinite if it has no inverse there.
        """
        transform, wide = self.transform(), widened(Y)
        outside = largest_difference(clamped(self.asked(), Y), Y)
        try:
            back = clamped(self.asked(), transform(transform.inv(wide)))
        except LinAlgError:
            return torch.full((), torch.inf, device=Y.device)
        difference = torch.maximum(largest_difference(back, wide), outside)
        return torch.where(difference.isnan(), torch.inf, difference)

    def tolerance(self, Y: Tensor) -> float:
        return super().tolerance(Y) * max(1.0, largest_entry(Y).item())

    def extra_repr(self) -> str:
        shown = [str(self.asked())] + ["bijective=True"] * self.bijective
        return ", ".join(shown + ["strict=True"] * self.strict)


ATTRIBUTES = (
    "lower_bound",
    "upper_bound",
    "base_constraint",
    "reinterpreted_batch_ndims",
    "cseq",
    "lengths",
    "dim",
)
"""What torch's constraints consist of, where they have numbers or other constraints in them."""


def with_bounds(constraint: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of `constraint` with other bounds, also in the constraints that it is composed of."""
    if type(constraint).__module__ == constraints.__name__:
        twin = object.__new__(type(constraint))  # torch 2.11 compiles neither copy.copy nor vars
        for name in ATTRIBUTES:
            if hasattr(constraint, name):
                setattr(twin, name, getattr(constraint, name))
    else:
        twin = copy.copy(constraint)
    for name in ("lower_bound", "upper_bound"):
        if hasattr(twin, name):
            setattr(twin, name, change(getattr(twin, name)))
    if hasattr(twin, "base_constraint"):
        twin.base_constraint = with_bounds(twin.base_constraint, change)
    if hasattr(twin, "cseq"):
        twin.cseq = [with_bounds(part, change) for part in twin.cseq]
    return twin


Place = Callable[[Any, Tensor], Tensor]


def on_parts(constraint: Any, Y: Tensor, place: Place) -> Tensor:
    """`place` of each part of `Y` and the constraint that holds for it."""
    if isinstance(constraint, constraints.independent):
        return on_parts(constraint.base_constraint, Y, place)
    if isinstance(constraint, constraints.cat):
        parts = torch.split(Y, constraint.lengths, constraint.dim)
        pairs = zip(constraint.cseq, parts, strict=True)
        return torch.cat([on_parts(part, y, place) for part, y in pairs], constraint.dim)
    if isinstance(constraint, constraints.stack):
        pairs = zip(constraint.cseq, Y.unbind(constraint.dim), strict=True)
        return torch.stack([on_parts(part, y, place) for part, y in pairs], constraint.dim)
    return place(constraint, Y)


def bounds(constraint: Any, like: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The least and the largest number of the dtype of `like` between the bounds, if any."""
    low, high = (getattr(constraint, name, None) for name in ("lower_bound", "upper_bound"))
    return (
        None if low is None else least_above(low, like),
        None if high is None else largest_below(high, like),
    )


def clamped(constraint: Constraint, Y: Tensor) -> Tensor:
    """`Y`, strictly between the bounds of `constraint`."""

    def clamp(part: Any, y: Tensor) -> Tensor:
        low, high = bounds(part, y)
        return y if low is None and high is None else torch.clamp(y, low, high)

    return on_parts(constraint, Y, clamp)


def placed(constraint: Constraint, Y: Tensor, dtype: torch.dtype, margin: float) -> Tensor:
    """A value that satisfies `constraint`: `Y` where it does, otherwise one near it, if known."""

    def place(part: Any, y: Tensor) -> Tensor:
        if isinstance(part, type(constraints.simplex)):
            return placed_on_simplex(y, torch.finfo(dtype).eps, margin)
        if isinstance(part, type(constraints.lower_cholesky)):
            diagonal = y.diagonal(dim1=-2, dim2=-1)
            raised = torch.where(diagonal > 0, diagonal, max(margin, smallest_normal(y)))
            return y.tril(-1) + raised.diag_embed()
        low, high = bounds(part, y.new_empty((), dtype=dtype))
        width = 1.0 if low is None or high is None else (high - low).to(y.dtype)
        if low is not None:
            y = torch.where(y >= low, y, low + margin * width)
        if high is not None:
            y = torch.where(y <= high, y, high - margin * width)
        return y

    return on_parts(constraint, Y, place)
