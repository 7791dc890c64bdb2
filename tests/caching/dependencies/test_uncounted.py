"""What lasts is compared with its tensors: at each entry, and at each auto-cached call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from tests.caching.dependencies.kinds import (
    IN_A_BLOCK,
    KINDS,
    LASTING,
    auto_cached,
    entered_anew,
    weighing,
)
from tests.helpers import Counting, Double, Sum, chain_of, original_of


def by_numpy(tensor: Any) -> None:
    tensor.detach().numpy()[...] += 1


def uncounted(tensor: Any) -> None:
    """As a collective writes."""
    preserve: Any = torch.autograd.__dict__["_unsafe_preserve_version_counter"]
    with preserve(tensor):
        tensor.add_(1)


def by_dlpack(tensor: Any) -> None:
    shared: Any = torch.utils.dlpack.from_dlpack(tensor.detach())
    shared.data.add_(1)


WRITES: dict[str, Callable[[Any], object]] = {
    "an average swapped in": lambda t: t.data.copy_(t.data * 0.5),
    "a target network": lambda t: t.data.lerp_(torch.full_like(t, 9.0), 0.1),
    ".data.add_": lambda t: t.data.add_(1),
    ".detach() and .data": lambda t: t.detach().data.add_(1),
    "NumPy": by_numpy,
    "DLPack": by_dlpack,
    "a collective": uncounted,
    "memory": lambda t: t.untyped_storage().copy_(torch.ones_like(t).untyped_storage()),
}


@pytest.mark.parametrize("kind", LASTING)
@pytest.mark.parametrize("n", [1, 3, 8, 100])
@pytest.mark.parametrize("name", WRITES)
def test_an_uncounted_write_is_noticed(name: str, n: int, kind: str) -> None:
    layer = weighing(Double(), n)
    with KINDS[kind](layer) as read, torch.no_grad():
        before = read()
        assert read() is before
        WRITES[name](original_of(layer))
        torch.testing.assert_close(read(), 2 * original_of(layer).detach(), rtol=0, atol=0)


TENSORS: dict[str, tuple[Callable[[], nn.Module], Callable[[Any], Tensor]]] = {
    "second original": (Sum, lambda m: chain_of(m).original1),
    "buffer": (Counting, lambda m: chain_of(m)[0].scale),
    "parameter": (Counting, lambda m: chain_of(m)[0].shift),
    "tensor in a list": (Counting, lambda m: chain_of(m)[0].several[0]),
}


@pytest.mark.parametrize("kind", LASTING)
@pytest.mark.parametrize("name", TENSORS)
def test_every_tensor_is_compared(name: str, kind: str) -> None:
    make, tensor_of = TENSORS[name]
    layer = weighing(make())
    with KINDS[kind](layer) as read, torch.no_grad():
        before = read()
        tensor_of(layer).data.add_(1)
        assert not torch.equal(read(), before)
        torch.testing.assert_close(read(), chain_of(layer)(), rtol=0, atol=0)


@pytest.mark.parametrize("kind", [entered_anew, auto_cached])
def test_without_the_comparison_invalidate_tells(kind: Any) -> None:
    layer = weighing(Double())
    with kind(layer, check_contents=False) as read:
        before = read()
        original_of(layer).data.add_(1)
        assert read() is before
        P.invalidate(layer)
        torch.testing.assert_close(read(), 2 * original_of(layer).detach(), rtol=0, atol=0)


@pytest.mark.parametrize("target", [lambda m: m, chain_of, lambda m: P.get_parametrizations(m)])
@pytest.mark.parametrize("kind", KINDS)
def test_invalidate_reaches_every_kind_of_scope(kind: str, target: Any) -> None:
    layer, other = weighing(Double()), weighing(Double())
    with KINDS[kind](layer) as read, KINDS[kind](other) as read_other:
        before, before_other = read(), read_other()
        with torch.inference_mode(False):
            original_of(layer).data.add_(1)
        P.invalidate(target(layer))
        torch.testing.assert_close(read(), 2 * original_of(layer), rtol=0, atol=0)
        assert read() is not before
        assert read_other() is before_other
        P.invalidate()
        assert read_other() is not before_other


@pytest.mark.parametrize("kind", IN_A_BLOCK)
def test_an_open_block_does_not_compare(kind: str) -> None:
    """The documented limit; the block after it is right."""
    layer = weighing(Double())
    for _ in range(2):
        with KINDS[kind](layer) as read:
            before = read()
            torch.testing.assert_close(before, 2 * original_of(layer), rtol=0, atol=0)
            with torch.inference_mode(False):
                original_of(layer).data.add_(1)
            assert read() is before


def test_other_entries_compare_for_a_block_that_is_open() -> None:
    """Any entry asks for another look: the write is noticed sooner, never later."""
    layer = weighing(Double())
    kept = P.cached(layer, persistent=True)
    with torch.no_grad(), kept:
        before = layer.weight
        original_of(layer).data.add_(1)
        with kept:
            assert layer.weight is not before


@pytest.mark.parametrize("kind", [partial(entered_anew, check_contents=True), entered_anew])
def test_a_comparison_that_finds_nothing_keeps_the_value(kind: Any) -> None:
    with kind(weighing(Double())) as read:
        first = read()
        assert all(read() is first for _ in range(5))


def test_not_a_number_is_no_change() -> None:
    layer = weighing(Double())
    original_of(layer).data[0, 0] = torch.nan
    with entered_anew(layer) as read:
        assert read() is read()
