"""Checks of what a map computes: its values, and its inverse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.chain.parametrization import Parametrization
from paramdesc.errors import ConstraintError
from paramdesc.testing.closeness import check_close, check_finite
from paramdesc.testing.report import Failure, NotApplicable
from paramdesc.testing.subject import Subject, convert, random_like, train

__all__ = ["CHECKS"]


def check_shape(subject: Subject) -> str:
    module = subject.holder(wide=False)
    value = module.weight
    fits = value.shape == subject.example.shape and value.dtype == subject.example.dtype
    if not (fits or subject.is_unsafe):
        raise Failure(f"the value is {list(value.shape)}, {value.dtype}")
    return f"{list(value.shape)}, {value.dtype}"


def check_schema(subject: Subject) -> str:
    parametrization = subject.parametrization
    if not isinstance(parametrization, Parametrization):
        raise NotApplicable("it is not derived from Parametrization")
    if subject.has_constraint() and not parametrization.constraint:
        raise Failure("it defines deviation, but not constraint")
    return parametrization.constraint or "no constraint"


def check_finite_everywhere(subject: Subject) -> str:
    """Check each map separately: registration may reject NaN without naming the map."""
    outside = subject.outside()
    given = {"the example": subject.example.to(outside.dtype), "another tensor": outside}
    for what, Y in given.items():
        if not bool(torch.isfinite(Y).all()):
            raise NotApplicable(f"{what} is not finite")
        parametrization = subject.map()
        if isinstance(parametrization, Module):
            convert(parametrization, Y)
        name = getattr(parametrization, "__name__", type(parametrization).__name__)
        originals: Any = Y.clone()
        inverse = getattr(parametrization, "right_inverse", None)
        if inverse is not None and subject.right_inverse != "none":
            try:
                originals = inverse(originals)
            except (ValueError, RuntimeError):  # it says so itself; "right inverse" reports it
                continue
        originals = originals if isinstance(originals, (tuple, list)) else [originals]
        for original in originals:
            refuse_infinities(original, f"{name}.right_inverse", what)
        refuse_infinities(parametrization(*originals), name, what)
    return "finite tensors give finite values"


def refuse_infinities(x: Any, name: str, what: str) -> None:
    if not isinstance(x, Tensor):
        return
    count = int((~torch.isfinite(x)).sum())
    if count:
        raise Failure(
            f"{name} gives {count} of {x.numel()} entries ({count / x.numel():.0%}) that are "
            f"infinite or NaN for {what}, which is finite"
        )


def check_right_inverse(subject: Subject) -> str:
    module = subject.trained()
    if subject.right_inverse == "none":
        return check_no_right_inverse(module)
    allowed = subject.given_tolerance
    reached = module.weight.detach().clone()
    module.weight = reached
    detail = check_close(module.weight, reached, "a value, assigned", allowed=allowed)
    check_close(subject.holder(reached).weight, reached, "a value, registered on", allowed=allowed)
    outside = subject.outside()
    module.weight = given = outside.clone()
    if not torch.equal(given, outside):
        raise Failure("right_inverse writes to the tensor that is assigned")
    if subject.right_inverse == "identity":
        return check_close(module.weight, outside, "another tensor, assigned", allowed=allowed)
    nearby = module.weight.detach().clone()
    check_finite(nearby, "a tensor that violates the constraint, assigned")
    module.weight = nearby
    what = "the replacement of such a tensor, assigned"
    check_close(module.weight, nearby, what, allowed=allowed)
    return detail


def check_no_right_inverse(module: Any) -> str:
    try:
        module.weight = module.weight.detach()
    except (RuntimeError, NotImplementedError) as error:
        return f"none: {type(error).__name__}"
    raise Failure("assignment works, but right_inverse='none' is declared")


def check_strict(subject: Subject) -> str:
    if not subject.has_constraint() or subject.right_inverse != "projection":
        raise NotApplicable("no constraint, or no projection, is declared")
    module = subject.trained()
    parametrization = module.parametrizations.weight[0]
    before, outside = module.weight.detach().clone(), subject.outside()
    parametrization.strict = True
    module.weight = before
    check_close(module.weight, before, "a value, assigned to a strict map")
    if parametrization.deviation(outside).item() <= parametrization.tolerance(outside):
        raise Failure("the deviation of a random tensor counts as rounding")
    try:
        module.weight = outside
    except ConstraintError as error:
        check_close(module.weight, before, "the value after a rejected assignment")
        return f"a deviation of {error.deviation:.2g} is rejected"
    raise Failure("a strict map accepts a value that violates its constraint")


def check_constraint(subject: Subject) -> str:
    if not subject.has_constraint():
        raise NotApplicable("the map declares no deviation: every value is allowed")
    largest = 0.0
    for wide in (True, False):
        module = subject.holder(wide=wide)
        largest = max(largest, check_deviation(subject, module, "at the start"))
        train(module, torch.optim.Adam, 10, 0.05)
        largest = max(largest, check_deviation(subject, module, "after ten training steps"))
        module.weight = random_like(module.weight.detach(), seed=3)
        largest = max(largest, check_deviation(subject, module, "after an assignment"))
    return f"a deviation of at most {largest:.1g}"


def check_deviation(subject: Subject, module: Any, when: str) -> float:
    """The deviation of the value, in float32 in units that it is allowed there."""
    parametrization, value = module.parametrizations.weight[-1], module.weight.detach()
    deviation = float(parametrization.deviation(value).item())
    allowed = subject.tolerance(parametrization, value)
    if not deviation <= allowed:
        raise Failure(
            f"{when}, in {value.dtype}, the value deviates by {deviation:.3g}, and only "
            f"{allowed:.3g} is allowed"
        )
    return deviation


CHECKS: dict[str, tuple[Callable[[Subject], str], str]] = {
    "shape": (
        check_shape,
        "let forward return a tensor with the shape and dtype of the parametrized tensor, or "
        "pass unsafe=True. Compute in float32 and end with .to(X.dtype).",
    ),
    "schema": (
        check_schema,
        "set the class attribute `constraint` to a phrase that completes 'the value is not ...'.",
    ),
    "finite": (
        check_finite_everywhere,
        "let right_inverse move values that forward does not reach to where its formula is "
        "defined: clamp before log, sqrt or atanh. Or raise a ValueError that says which values "
        "are allowed. Keep the values of forward within the range of the dtype.",
    ),
    "right inverse": (
        check_right_inverse,
        "forward(right_inverse(Y)) must be Y for each Y that forward reaches; with 'identity', "
        "these are all tensors. For others, right_inverse must lead to a value that forward "
        "reaches. If there is no inverse, do not define right_inverse, and pass "
        "right_inverse='none'.",
    ),
    "strict": (
        check_strict,
        "call self.admit(Y) first in right_inverse, accept `strict` in __init__ and pass it on, "
        "and let deviation be large for tensors that forward does not reach.",
    ),
    "constraint": (
        check_constraint,
        "the formula of forward must satisfy the constraint for every original. If it does, and "
        "rounding errors are larger than allowed, define tolerance.",
    ),
}
