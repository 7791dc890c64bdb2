"""One-line functions for the maps of entries and of their norms.

Each function registers the class of the same name with its arguments, and returns the module. With
`strict=True`, a weight that does not satisfy the constraint is rejected with an error.

>>> linear = positive(torch.nn.Linear(4, 3), "bias")
>>> bool((linear.bias > 0).all())
True
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from torch.distributions.constraints import Constraint
from torch.nn import Module

from paramdesc.parametrizations.entries.from_distributions import FromDistributions
from paramdesc.parametrizations.entries.frozen import Frozen
from paramdesc.parametrizations.entries.interval import Interval, UnitInterval
from paramdesc.parametrizations.entries.ordered import Ordered
from paramdesc.parametrizations.entries.positive import Positive
from paramdesc.parametrizations.entries.scaled import ReZero, Scaled
from paramdesc.parametrizations.entries.simplex import Simplex
from paramdesc.parametrizations.entries.straight_through import Rounded
from paramdesc.parametrizations.functions.argument_order import name_first
from paramdesc.parametrizations.functions.torch_functions import find_weight, register
from paramdesc.parametrizations.norms.centered import Centered
from paramdesc.parametrizations.norms.frobenius_norm import FrobeniusNorm
from paramdesc.parametrizations.norms.max_norm import MaxNorm
from paramdesc.parametrizations.norms.weight_standardization import WeightStandardization
from paramdesc.parametrizations.orthogonality.oblique import Oblique
from paramdesc.parametrizations.orthogonality.sphere import Sphere
from paramdesc.parametrizations.structure.masked import Masked

__all__ = [
    "centered",
    "constrained",
    "frobenius_norm",
    "frozen",
    "interval",
    "magnitude_mask",
    "masked",
    "max_norm",
    "oblique",
    "ordered",
    "positive",
    "pruned",
    "rezero",
    "rounded",
    "scaled",
    "simplex",
    "sphere",
    "unit_interval",
    "weight_standardization",
]

M = TypeVar("M", bound=Module)


@name_first("mask")
def masked(
    module: M, name: str = "weight", *, mask: Tensor, fill: float = 0.0, strict: bool = False
) -> M:
    """Set `module.<name>` to `fill` where `mask` is false: `Masked`."""
    return register(module, name, Masked(mask, fill=fill, strict=strict))


@name_first("mask")
def frozen(module: M, name: str = "weight", *, mask: Any, strict: bool = False) -> M:
    """Freeze the entries of `module.<name>` that `mask`, a mask or an index, selects: `Frozen`."""
    return register(module, name, Frozen(mask, strict=strict))


def scaled(
    module: M, name: str = "weight", *, dim: int | Sequence[int] | None = None, init: float = 1.0
) -> M:
    """Multiply `module.<name>` by a trainable scale: `Scaled`."""
    return register(module, name, Scaled(dim, init=init))


def rezero(
    module: M, name: str = "weight", *, dim: int | Sequence[int] | None = None, strict: bool = False
) -> M:
    """Start `module.<name>` at zero, as its original times a trainable scale: `ReZero`."""
    return register(module, name, ReZero(dim=dim, strict=strict))


def rounded(
    module: M,
    name: str = "weight",
    *,
    bits: int = 8,
    dim: int | Sequence[int] | None = None,
    symmetric: bool = True,
    strict: bool = False,
) -> M:
    """Round `module.<name>` to a grid of `2 ** bits` numbers: `Rounded`."""
    return register(module, name, Rounded(bits=bits, dim=dim, symmetric=symmetric, strict=strict))


def sphere(
    module: M,
    name: str = "weight",
    *,
    radius: float = 1.0,
    dim: int | tuple[int, ...] | None = -1,
    rebase: int | None = 50,
    strict: bool = False,
) -> M:
    """Give `module.<name>` rows of length `radius`: `Sphere`."""
    return register(module, name, Sphere(radius=radius, dim=dim, rebase=rebase, strict=strict))


def oblique(
    module: M,
    name: str = "weight",
    *,
    radius: float = 1.0,
    rebase: int | None = 50,
    strict: bool = False,
) -> M:
    """Give `module.<name>` columns of length `radius`: `Oblique`."""
    return register(module, name, Oblique(radius=radius, rebase=rebase, strict=strict))


def frobenius_norm(
    module: M,
    name: str = "weight",
    *,
    bound: float = 1.0,
    dim: int | tuple[int, ...] | None = None,
    only_shrink: bool = False,
    rebase: int | None = 50,
    strict: bool = False,
) -> M:
    """Give `module.<name>` the Frobenius norm `bound`: `FrobeniusNorm`."""
    return register(
        module,
        name,
        FrobeniusNorm(bound=bound, dim=dim, only_shrink=only_shrink, rebase=rebase, strict=strict),
    )


def max_norm(
    module: M,
    name: str = "weight",
    *,
    bound: float = 1.0,
    dim: int | tuple[int, ...] | None = -1,
    strict: bool = False,
) -> M:
    """Limit the norm of each row of `module.<name>` to `bound`: `MaxNorm`."""
    return register(module, name, MaxNorm(bound=bound, dim=dim, strict=strict))


def centered(
    module: M, name: str = "weight", *, dim: int | tuple[int, ...] | None = -1, strict: bool = False
) -> M:
    """Give `module.<name>` rows of mean zero: `Centered`."""
    return register(module, name, Centered(dim=dim, strict=strict))


def weight_standardization(
    module: M, name: str = "weight", *, dim: int = 0, eps: float = 1e-10, strict: bool = False
) -> M:
    """Give `module.<name>` rows of mean zero and variance one: `WeightStandardization`."""
    return register(module, name, WeightStandardization(dim=dim, eps=eps, strict=strict))


def positive(
    module: M,
    name: str = "weight",
    *,
    lower: float = 0.0,
    function: Literal["softplus", "exp"] = "softplus",
    strict: bool = False,
) -> M:
    """Keep the entries of `module.<name>` greater than `lower`: `Positive`."""
    return register(module, name, Positive(lower=lower, function=function, strict=strict))


def interval(
    module: M,
    name: str = "weight",
    *,
    low: float | Tensor = 0.0,
    high: float | Tensor = 1.0,
    strict: bool = False,
) -> M:
    """Keep the entries of `module.<name>` between `low` and `high`: `Interval`."""
    return register(module, name, Interval(low=low, high=high, strict=strict))


def unit_interval(module: M, name: str = "weight", *, strict: bool = False) -> M:
    """Keep the entries of `module.<name>` between 0 and 1: `UnitInterval`."""
    return register(module, name, UnitInterval(strict=strict))


def simplex(module: M, name: str = "weight", *, dim: int = -1, strict: bool = False) -> M:
    """Make the rows of `module.<name>` non-negative with sum one: `Simplex`."""
    return register(module, name, Simplex(dim=dim, strict=strict))


def ordered(module: M, name: str = "weight", *, strict: bool = False) -> M:
    """Make the rows of `module.<name>` increasing: `Ordered`."""
    return register(module, name, Ordered(strict=strict))


@name_first("constraint")
def constrained(
    module: M,
    name: str = "weight",
    *,
    constraint: Constraint,
    bijective: bool = False,
    strict: bool = False,
) -> M:
    """Make `module.<name>` satisfy a constraint of `torch.distributions`: `FromDistributions`."""
    return register(module, name, FromDistributions(constraint, bijective=bijective, strict=strict))


@name_first("fraction")
def pruned(module: M, name: str = "weight", *, fraction: float, dim: int | None = None) -> M:
    """Prune the `fraction` of the entries of `module.<name>` with smallest magnitude: `Masked`.

    The other entries continue to be trained. `fraction` is a number from 0 to 1. It applies to the
    whole tensor, or to each index of the dimension `dim`.
    """
    mask = magnitude_mask(find_weight(module, name), fraction, dim)
    return register(module, name, Masked(mask))


@torch.no_grad()
def magnitude_mask(X: Tensor, fraction: float, dim: int | None = None) -> Tensor:
    """A mask that is False for the `fraction` of the entries of `X` with smallest magnitude.

    Of entries with equal magnitude, the first ones count as smaller.

    Args:
        X: a tensor of any shape.
        fraction: a number from 0 to 1; the number of entries is rounded.
        dim: the dimension at each index of which the fraction applies; by default, it applies to
            the whole tensor.

    Raises:
        ValueError: if `fraction` is out of range.

    >>> magnitude_mask(torch.tensor([3.0, -1.0, 2.0, 0.5]), 0.5)
    tensor([ True, False,  True, False])
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be from 0 to 1. Got fraction={fraction}.")
    rows = X.reshape(1, -1) if dim is None else X.movedim(dim, 0).flatten(1)
    order = rows.abs().argsort(stable=True, dim=-1)
    mask = torch.ones_like(rows, dtype=torch.bool)
    mask.scatter_(-1, order[:, : round(fraction * rows.shape[1])], False)
    if dim is None:
        return mask.reshape(X.shape)
    return mask.reshape(X.movedim(dim, 0).shape).movedim(0, dim)
