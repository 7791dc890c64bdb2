"""What a scope keeps alive of a model that is deleted inside of it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import paramdesc as P
from tests.helpers import chain_of, linear


@pytest.fixture(autouse=True)
def without_collector() -> Iterator[None]:
    """What a test sees freed is freed by its last reference."""
    gc.disable()
    yield
    gc.enable()


def parts_of(model: Any) -> dict[str, weakref.ref[Any]]:
    parts = {"model": model, "chain": chain_of(model), "original": chain_of(model).original}
    return {name: weakref.ref(part) for name, part in parts.items()}


def alive(parts: dict[str, weakref.ref[Any]]) -> set[str]:
    return {name for name, part in parts.items() if part() is not None}


def test_a_scope_without_targets_keeps_what_it_has_read_until_its_end() -> None:
    with P.cached():
        read, unread = linear(), linear()
        read.weight  # noqa: B018
        parts, others = parts_of(read), parts_of(unread)
        del read, unread
        assert alive(parts) == {"chain", "original"}
        assert alive(others) == set()
    assert alive(parts) == set()


def test_auto_cache_keeps_nothing_alive() -> None:
    model = linear().eval()
    P.auto_cache(model)
    with torch.no_grad():
        model(torch.ones(1, 3))
    parts = parts_of(model)
    del model
    assert alive(parts) == set()
