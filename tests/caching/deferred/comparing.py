"""What compares the gradients with and without deferral."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tests.caching.deferred.loops import Loop, accumulate, trained


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    """To 1e-12 in double precision, else to rounding, of the largest number in `expected`."""
    is_double = expected.dtype in (torch.float64, torch.complex128)
    atol = (1e-12 if is_double else 1e-5) * float(expected.abs().max())
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def assert_same_gradients(model: nn.Module, expected: nn.Module) -> None:
    gradients = {name: x.grad for name, x in model.named_parameters()}
    for name, x in expected.named_parameters():
        gradient = gradients.pop(name)
        if x.grad is None or gradient is None:
            assert gradient is x.grad, name
        else:
            assert x.grad.abs().max() > 0, name
            assert_close(gradient, x.grad)
    assert not gradients


def assert_same(make: Callable[[], nn.Module], loop: Loop = accumulate) -> None:
    """That `loop` brings the same gradients with and without deferral, in both precisions."""
    for dtype in (torch.float64, torch.float32):
        with default_dtype(dtype):
            assert_same_gradients(trained(make, loop, True), trained(make, loop, False))
