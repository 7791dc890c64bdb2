"""Modes that change no number keep values; those that may are a part of what a value is for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from paramdesc.parametrizations import Orthogonal
from tests.caching.dependencies.kinds import KINDS, LASTING, weighing
from tests.helpers import Double


@contextlib.contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("cpu")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def nested(*managers: Any) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for manager in managers:
            stack.enter_context(manager)
        yield


HARMLESS: dict[str, Callable[[], Any]] = {
    "set_default_device": default_device,
    "with torch.device": lambda: torch.device("cpu"),
    "FlopCounterMode": lambda: FlopCounterMode(display=False),
    "two of them": lambda: nested(default_device(), FlopCounterMode(display=False)),
}


@pytest.mark.parametrize("kind", LASTING)
@pytest.mark.parametrize("parametrization", [Double, Orthogonal, lambda: lambda X: X.exp()])
@pytest.mark.parametrize("mode", HARMLESS)
def test_values_last_under_a_mode_that_changes_nothing(
    mode: str, parametrization: Callable[[], Any], kind: str
) -> None:
    with KINDS[kind](weighing(parametrization())) as read, HARMLESS[mode]():
        first = read()
        assert all(read() is first for _ in range(3))


class Adding(TorchFunctionMode):
    """Changes what `torch.mul` gives."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return result + 1 if func is torch.mul else result


@pytest.mark.parametrize("kind", KINDS)
def test_a_function_mode_has_values_of_its_own(kind: str) -> None:
    with KINDS[kind](weighing(lambda X: torch.mul(X, 2))) as read:
        plain = read().detach().clone()
        with Adding():
            torch.testing.assert_close(read().detach(), plain + 1)
        torch.testing.assert_close(read().detach(), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_dtype_is_a_part_of_what_foreign_maps_give(kind: str) -> None:
    def map_(X: Tensor) -> Tensor:
        return X * torch.ones(1)

    with KINDS[kind](weighing(map_)) as read:
        assert read().dtype == torch.float32
        with default_dtype():
            assert read().dtype == torch.float64
        assert read().dtype == torch.float32
