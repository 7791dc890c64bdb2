"""Training loops, with and without deferral, and what compares their gradients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

import paramdesc as P
from tests.cache.deferred.models import layer

Loop = Callable[[Any], None]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def batches(count: int = 4) -> list[Tensor]:
    """Micro-batches, the same ones each time."""
    generator = torch.Generator().manual_seed(1)
    numbers = torch.randn(count, 5, 3, generator=generator, dtype=torch.float64)
    return list(numbers.to(torch.get_default_dtype()))


def loss_of(output: Tensor) -> Tensor:
    return output.abs().pow(2).sum()


def backward(loss: Tensor, **options: Any) -> None:
    torch.autograd.backward(loss, **options)


def accumulate(model: Any) -> None:
    for batch in batches():
        backward(loss_of(model(batch)))


def trained(make: Callable[[], nn.Module], loop: Loop, deferred: bool) -> nn.Module:
    torch.manual_seed(0)
    model = make()
    with P.cached(model, deferred=True) if deferred else nullcontext():
        loop(model)
    return model


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


class CountedExp(torch.autograd.Function):
    """exp, which counts both of its passes."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, count: Callable[[list[str]], None]) -> Tensor:
        count(["forward"])
        ctx.count = count
        value = X.exp()
        ctx.save_for_backward(value)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        ctx.count(["backward"])
        return gradient * ctx.saved_tensors[0], None


class Counted(nn.Module):
    def __init__(self, passes: Counter[str]) -> None:
        super().__init__()
        self.count = passes.update  # a dict would be watched by scopes

    def forward(self, X: Tensor) -> Any:
        return CountedExp.apply(X, self.count)  # type: ignore[no-untyped-call]


def counted() -> tuple[Any, Counter[str]]:
    """A layer, and what counts the passes of its map."""
    passes: Counter[str] = Counter()
    linear = layer(Counted(passes))
    passes.clear()
    return linear, passes


INSIDE = r"(?s)'weight'.*Call loss.backward\(\) before, inside of the scope"


def originals(model: Any) -> list[nn.Parameter]:
    return [x for name, x in model.named_parameters() if "parametrizations" in name]
