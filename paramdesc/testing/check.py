"""Runs all checks of a parametrization."""

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
from paramdesc.testing.torch_warnings import ignore_warnings_about_torch

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
    """Check that a parametrization works with everything that users may do with it.

    Call this function in your own tests. The parametrization is copied; neither it nor the example
    is changed. For a small example, the checks take about a second, most of it for compilation.

    Args:
        parametrization: the parametrization as you would register it: a module or a function.
        example: a small random weight to register it on, in float32 or complex64.
        right_inverse: the kind of `right_inverse`: "identity" if assignment keeps every tensor;
            "projection" if it keeps tensors that satisfy the constraint and replaces any other with
            one that does; "none" if there is no `right_inverse`.
        dtypes: the other dtypes that it supports. Half precision is skipped for complex maps.
        batch: whether it treats `(*, m, n)` as a batch, applied to each matrix separately.
        unsafe: whether to register it with `unsafe=True`, so that shape and dtype may change.
        tolerance: for approximate parametrizations, the allowed deviation from the constraint, in
            place of its own `tolerance`, and the allowed difference between an assigned value and
            the value read back, relative to the largest entry.
        without: a dict with the names of checks to skip, each with the reason.
        raises: whether to raise an error if a check fails.

    Raises:
        CheckError: an AssertionError whose message is the report, with advice on what to change.
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
    """The outcomes, without the failures that merely follow from a map that gives NaN."""
    if not any(x.check == "finite" and x.status == "failed" for x in outcomes):
        return outcomes
    return [
        Outcome(x.check, "left out", "it fails because of the problem in 'finite': fix that first")
        if x.status == "failed" and x.detail.startswith(f"{NonFiniteError.__name__}: ")
        else x
        for x in outcomes
    ]


def outcome(
    name: str, function: Callable[[Subject], str], advice: str, subject: Subject
) -> Outcome:
    """The outcome of one check, which runs with its own seed and with gradients enabled."""
    torch.default_generator.manual_seed(0)  # torch.manual_seed would seed the other devices, too
    try:
        with torch.enable_grad(), warnings.catch_warnings():
            ignore_warnings_about_torch()
            detail = function(subject)
    except NotApplicable as reason:
        return Outcome(name, "left out", str(reason))
    except Failure as failure:
        return Outcome(name, "failed", str(failure), advice)
    except Exception as error:
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        return Outcome(name, "failed", f"{type(error).__name__}: {error}{notes}", advice)
    return Outcome(name, "passed", detail)
