"""Values without gradients outlive a persistent scope, and are there again at its next entry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import paramdesc as P
from tests.caching.changes import CHANGES
from tests.caching.persistent.layers import assert_right, exponential, read_in
from tests.helpers import Double, Sum, chain_of, original_of, train_step

# what is kept


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_value_is_kept_from_one_entry_to_the_next(mode: Callable[[], Any]) -> None:
    layer, parametrization = exponential()
    persistent = P.cached(layer, persistent=True)
    with mode():
        first = read_in(persistent, layer)
        with persistent as scope:
            assert layer.weight is first
            assert (scope.hits, scope.misses, len(scope)) == (1, 1, 1)
        assert layer.weight is not first  # outside it is as without
        assert_right(layer)
        assert read_in(persistent, layer) is first
    assert parametrization.calls.count == 1 + 1 + 2


def test_what_is_frozen_needs_no_mode() -> None:
    layer, parametrization = exponential()
    layer.requires_grad_(False)
    persistent = P.cached(layer, persistent=True)
    assert read_in(persistent, layer) is read_in(persistent, layer)
    assert parametrization.calls.count == 1


def test_other_objects_keep_values_of_their_own() -> None:
    layer, _ = exponential()
    one, other = P.cached(layer, persistent=True), P.cached(layer, persistent=True)
    with torch.no_grad():
        assert read_in(one, layer) is not read_in(other, layer)
        with one, other:
            assert layer.weight is read_in(one, layer)


def test_only_targets_are_kept() -> None:
    (a, _), (b, _) = exponential(), exponential()
    persistent = P.cached(a, persistent=True)
    with torch.no_grad():
        assert read_in(persistent, a) is read_in(persistent, a)
        assert read_in(persistent, b) is not read_in(persistent, b)


def test_several_originals_are_kept_and_watched() -> None:
    layer: Any = P.register_parametrization(nn.Linear(3, 3), "weight", Sum()).eval()
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad():
        assert read_in(persistent, layer) is read_in(persistent, layer)
        for original in chain_of(layer).originals():
            before = read_in(persistent, layer)
            original.add_(1)
            torch.testing.assert_close(read_in(persistent, layer), before + 1)


def test_a_decorated_function_keeps_values_from_call_to_call() -> None:
    layer, parametrization = exponential()

    @P.cached(layer, persistent=True)
    @torch.no_grad()
    def read() -> Any:
        return layer.weight

    first = read()
    assert read() is first
    train_step(layer)
    assert read() is not first
    assert parametrization.calls.count == 2


def test_a_decorated_coroutine_keeps_values_from_call_to_call() -> None:
    layer, parametrization = exponential()

    @P.cached(layer, persistent=True)
    async def read() -> Any:
        with torch.no_grad():
            first = layer.weight
        await asyncio.sleep(0)
        return first

    async def main() -> list[Any]:
        return await asyncio.gather(*(read() for _ in range(5)))

    first, *others = [*asyncio.run(main()), *asyncio.run(main())]
    assert all(value is first for value in others)
    assert parametrization.calls.count == 1


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_compiled_model_uses_what_is_kept_and_sees_changes(
    backend: str, mode: Callable[[], Any]
) -> None:
    layer, parametrization = exponential()
    compiled: Any = torch.compile(layer, backend=backend, fullgraph=True)
    persistent, inputs = P.cached(layer, persistent=True), torch.ones(2, 3)
    changes = ["in-place write", "assignment", "load_state_dict", "the map's buffer", ".double()"]
    for place, change in enumerate([None, *changes]):
        if change is not None:
            with torch.no_grad():
                CHANGES[change](layer)
        inputs = inputs.to(original_of(layer).dtype)
        with mode():
            expected = layer(inputs)
            parametrization.calls.count = 0
            for _ in range(3):
                with persistent:
                    torch.testing.assert_close(compiled(inputs), expected)
                    torch.testing.assert_close(compiled(inputs), expected)
            assert parametrization.calls.count == 1, place
    with persistent:
        compiled(inputs).sum().backward()
    assert original_of(layer).grad is not None


def test_gradients_on_or_off_and_inference_mode_share_a_value() -> None:
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", Double()).eval()
    kept = P.cached(layer, persistent=True)
    for mode in (torch.no_grad, torch.inference_mode) * 2:
        with kept as scope, mode():
            assert not layer.weight.is_inference()
    assert scope.misses == 1


def test_a_frozen_model_serves_with_gradients_switched_on() -> None:
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", Double()).eval()
    layer.requires_grad_(False)
    kept = P.cached(layer, persistent=True)
    for _ in range(2):
        with kept as scope:
            first = layer.weight
            with torch.no_grad():
                assert layer.weight is first
    assert (scope.misses, scope.hits) == (1, 3)
