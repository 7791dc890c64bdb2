"""What is checked of values and of evaluations, and the error that says what is wrong."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.profiler import profile

__all__ = ["WrongError", "check_close", "check_evaluated_once"]


class WrongError(AssertionError):
    """What a world does to a model, where it raises nothing."""


def check_close(actual: Any, expected: Any, mistake: str, tolerance: float | None = None) -> None:
    try:
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
    except AssertionError as error:
        raise WrongError(mistake) from error


def check_evaluated_once(what: Any) -> None:
    """The text of a graph, or a function while it runs, holds one evaluation of `Exp`."""
    if isinstance(what, str):
        times = what.count("aten::exp(") + what.count("aten.exp.default]")
    else:
        with profile(use_kineto=False) as events:
            what()
        times = sum(event.name == "aten::exp" for event in events.function_events or ())
    if times != 1:
        raise WrongError(f"evaluated {times} times" if times else "never evaluated")
