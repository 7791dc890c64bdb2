"""A kept value depends on every tensor and number that its map uses, wherever these are bound."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.caching.dependencies.kinds import IN_A_BLOCK, KINDS, LASTING, weighing
from tests.caching.dependencies.places import MEMBERS, PLACES, UNSEEN, Bound, held, product


def write(bound: Bound) -> None:
    bound.get().mul_(3)


def replace(bound: Bound) -> None:
    bound.put(torch.tensor(3.0))


def replace_number(bound: Bound) -> None:
    bound.put(3.0)


CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Bound], object]]] = {
    "a tensor is written to": (lambda: torch.tensor(1.0), write),
    "a view of a tensor is written to": (
        lambda: torch.tensor(1.0),
        lambda b: b.get().view(1)[:].mul_(3),
    ),
    "a tensor is replaced": (lambda: torch.tensor(1.0), replace),
    "a number is replaced": (lambda: 1.0, replace_number),
    "a tensor takes the place of a number": (lambda: 1.0, replace),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("place", PLACES)
def test_a_change_is_noticed(place: str, change: str, kind: str) -> None:
    start, make = CHANGES[change][0], CHANGES[change][1]
    bound = PLACES[place](start())
    with KINDS[kind](weighing(bound.map)) as read:
        before = read()
        assert read() is before
        expected = 3 * before.detach()
        make(bound)
        torch.testing.assert_close(read().detach(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", LASTING)
@pytest.mark.parametrize("place", PLACES)
def test_an_uncounted_write_is_noticed_by_what_lasts(place: str, kind: str) -> None:
    bound = PLACES[place](torch.tensor(1.0))
    with KINDS[kind](weighing(bound.map)) as read:
        expected = 3 * read()
        bound.get().data.mul_(3)
        torch.testing.assert_close(read(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MEMBERS)
def test_what_is_added_or_deleted_is_noticed(name: str, kind: str) -> None:
    empty, members, add = MEMBERS[name]
    holder = copy.deepcopy(empty)
    state = vars(holder) if hasattr(holder, "__dict__") else None
    with KINDS[kind](weighing(held(holder, lambda h: product(members(h))).map)) as read:
        before = read().detach().clone()
        add(holder, torch.tensor(3.0))
        torch.testing.assert_close(read().detach(), 3 * before, rtol=0, atol=0)
        for held_in in (state.get("_buffers", state),) if state else (holder,):
            target = held_in[0] if name == "list in a list" else held_in
            target.pop("more") if state else (target.popitem() if name == "dict" else target.pop())
        torch.testing.assert_close(read().detach(), before, rtol=0, atol=0)


@pytest.mark.parametrize("kind", LASTING)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("place", UNSEEN)
def test_what_cannot_be_looked_into_makes_no_value_that_lasts(
    place: str, change: str, kind: str
) -> None:
    start, make = CHANGES[change]
    bound = UNSEEN[place](start())
    with KINDS[kind](weighing(bound.map)) as read:
        before = read()
        assert read() is not before
        make(bound)
        torch.testing.assert_close(read(), 3 * before, rtol=0, atol=0)


@pytest.mark.parametrize("kind", IN_A_BLOCK)
@pytest.mark.parametrize("place", UNSEEN)
def test_a_tensor_is_watched_also_where_nothing_can_be_looked_into(place: str, kind: str) -> None:
    bound = UNSEEN[place](torch.tensor(1.0))
    with KINDS[kind](weighing(bound.map)) as read:
        before: Tensor = read()
        assert read() is before
        expected = 3 * before.detach()
        bound.get().mul_(3)
        torch.testing.assert_close(read().detach(), expected, rtol=0, atol=0)
