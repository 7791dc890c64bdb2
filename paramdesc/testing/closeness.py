"""Comparing tensors, for the checks: by the largest difference, in units of the largest entry."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.linalg.differences import largest_difference, largest_entry
from paramdesc.linalg.precision import epsilon
from paramdesc.testing.report import Failure

__all__ = ["check_close", "check_finite", "check_gradients"]


def check_close(
    actual: Tensor, expected: Tensor, what: str, *, allowed: float | None = None
) -> str:
    """Fail unless `actual` is `expected`, up to `allowed` times its largest entry.

    By default `allowed` is a thousand times the precision, the square root of it at most.
    """
    if actual.shape != expected.shape:
        raise Failure(f"{what}: shape {list(actual.shape)} instead of {list(expected.shape)}")
    eps = max(epsilon(actual), epsilon(expected))
    if allowed is None:
        allowed = min(1000 * eps, eps**0.5)
    if actual.dtype != expected.dtype:
        actual = actual.to(expected.dtype)
    difference = largest_difference(actual.detach(), expected.detach()).item()
    scale = max(largest_entry(expected.detach()).item(), 1e-30)
    if not difference <= allowed * max(scale, 1e-3):
        raise Failure(
            f"{what}: differs by {difference:.3g}, where the largest entry is {scale:.3g} "
            f"and {allowed:.1g} of it is allowed"
        )
    return f"{what}: differs by {difference:.1g}"


def check_gradients(actual: dict[str, Tensor], expected: dict[str, Tensor], what: str) -> None:
    """Fail unless all gradients agree, as values do."""
    scale = max((largest_entry(x).item() for x in expected.values()), default=0.0)
    for name, gradient in expected.items():
        difference = largest_difference(actual[name], gradient).item()
        if not difference <= min(1000 * epsilon(gradient), epsilon(gradient) ** 0.5) * max(
            scale, 1
        ):
            raise Failure(f"{what}: the gradient of {name} differs by {difference:.3g}")


def check_finite(x: Tensor, what: str) -> None:
    """Fail if an entry is infinite or no number."""
    if not bool(torch.isfinite(x).all()):
        count = int((~torch.isfinite(x)).sum())
        raise Failure(f"{what}: {count} of {x.numel()} entries are infinite or NaN")
