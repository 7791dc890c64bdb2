"""The checks of a map, one after the other."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from paramdesc.errors import NonFiniteError
from paramdesc.testing import circumstances, copies, derivatives, training, values, worlds
from paramdesc.testing.report import CheckError, Failure, NotApplicable, Outcome, Report
from paramdesc.testing.subject import RightInverse, Subject

__all__ = ["check_parametrization"]

CHECKS: dict[str, tuple[Callable[[Subject], str], str]] = {
    **values.CHECKS,
    **derivatives.CHECKS,
    **training.CHECKS,
    **circumstances.CHECKS,
    **copies.CHECKS,
    **worlds.CHECKS,
}


def check_parametrization(
    parametrization: Any,
    example: Tensor,
    *,
    right_inverse: RightInverse = "projection",
    dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.bfloat16, torch.float16),
    batch: bool = True,
    unsafe: bool = False,
    tolerance: float | None = None,
    without: Mapping[str, str] | None = None,
    raises: bool = True,
) -> Report:
    """A report on everything that users may do with a map, each tried.

    The map is copied, and neither it nor the example is changed. The checks take about a second
    for a small example, for the compiled ones most of it.

    Args:
        parametrization: the map, as it would be registered: a module or a function.
        example: a weight to register it on, of float32 or complex64, small and random.
        right_inverse: what is declared of `right_inverse`: "identity", it reaches every tensor;
            "projection", it reaches those of its constraint, and others are replaced by one of
            these; "none", there is none.
        dtypes: the other precisions that it works in. Half precision is left out for complex maps.
        batch: whether `(*, m, n)` is a batch: its value is that of each element.
        unsafe: whether it is to be registered so: then shape and dtype may change.
        tolerance: the deviation from its constraint that is allowed, instead of the map's own
            `tolerance`, and by how much, in units of its largest entry, an assigned value may
            differ from what is read: for maps that only come near.
        without: names of checks that do not apply, each with the reason.
        raises: whether to raise if a check fails.

    Raises:
        CheckError: an AssertionError, whose message is the report, with what to change.
        ValueError: if `without` names an unknown check.

    >>> from paramdesc.testing import check_parametrization
    >>> report = check_parametrization(Symmetric(), torch.randn(3, 3))
    >>> report["gradient"].status
    'passed'
    """
    left_out = dict(without or {})
    unknown = sorted(set(left_out) - set(CHECKS))
    if unknown:
        raise ValueError(f"unknown checks {unknown}: the checks are {', '.join(CHECKS)}.")
    subject = Subject(
        parametrization, example.detach(), right_inverse, dtypes, batch, unsafe, tolerance
    )
    with torch.random.fork_rng(devices=[]):
        outcomes = [
            Outcome(name, "left out", left_out[name])
            if name in left_out
            else outcome(name, function, advice, subject)
            for name, (function, advice) in CHECKS.items()
        ]
    outcomes = without_consequences(outcomes)
    name = getattr(parametrization, "__name__", type(parametrization).__name__)
    report = Report(f"{name} on {list(example.shape)}, {example.dtype}", outcomes)
    if report.failed and raises:
        raise CheckError(report)
    return report


def without_consequences(outcomes: list[Outcome]) -> list[Outcome]:
    """The outcomes, where a map that gives NaN fails once: what fails by that is left out."""
    if not any(x.check == "finite" and x.status == "failed" for x in outcomes):
        return outcomes
    return [
        Outcome(x.check, "left out", "it fails by what 'finite' has found: mend that first")
        if x.status == "failed" and x.detail.startswith(f"{NonFiniteError.__name__}: ")
        else x
        for x in outcomes
    ]


def outcome(
    name: str, function: Callable[[Subject], str], advice: str, subject: Subject
) -> Outcome:
    """What one check finds. It runs under the seed of its own, and with gradients."""
    torch.default_generator.manual_seed(0)  # torch.manual_seed would seed the other devices, too
    try:
        with torch.enable_grad(), warnings.catch_warnings():
            detail = function(subject)
    except NotApplicable as reason:
        return Outcome(name, "left out", str(reason))
    except Failure as failure:
        return Outcome(name, "failed", str(failure), advice)
    except Exception as error:
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        return Outcome(name, "failed", f"{type(error).__name__}: {error}{notes}", advice)
    return Outcome(name, "passed", detail)
