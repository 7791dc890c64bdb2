"""What a scope covers, how scopes nest, and when their values are freed."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from tests.helpers import counting

# what a scope covers


def test_without_a_scope_every_read_evaluates() -> None:
    linear, parametrization = counting()
    assert linear.weight is not linear.weight
    assert parametrization.calls.count == 2


def test_a_scope_evaluates_once_and_tells_so() -> None:
    linear, parametrization = counting()
    with P.cached() as scope:
        first = linear.weight
        assert linear.weight is first
        assert (scope.hits, scope.misses, len(scope)) == (1, 1, 1)
        assert linear.get_submodule("parametrizations.weight") in scope
        assert "'weight'" in repr(scope)
    assert parametrization.calls.count == 1
    assert (scope.hits, scope.misses, len(scope)) == (1, 1, 0)
    assert linear.weight is not first


def test_targets_choose_what_is_covered() -> None:
    a, b = counting()[0], counting()[0]
    model = nn.Sequential(a, b)
    chain: Any = a.get_submodule("parametrizations.weight")
    for targets in [(a,), (chain,), ([a],), (P.get_parametrizations(a),), ({chain}, [[a]])]:
        with P.cached(*targets):
            assert a.weight is a.weight
            assert b.weight is not b.weight
    with P.cached(model):
        assert a.weight is a.weight
        assert b.weight is b.weight
    with P.cached(iter([a])):
        assert a.weight is a.weight


def test_an_empty_set_covers_nothing() -> None:
    linear, _ = counting()
    empty: tuple[Any, ...] = ([], P.get_parametrizations(nn.Linear(2, 2)), [[]])
    for nothing in empty:
        with P.cached(nothing):
            assert linear.weight is not linear.weight


@pytest.mark.parametrize("wrong", [3, "weight", None, 1.5, torch.ones(2), [3], ["weight"]])
def test_other_targets_are_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"takes modules, ParametrizationLists, and sets"):
        P.cached(wrong)


def test_a_decorator_without_parentheses_is_told() -> None:
    with pytest.raises(TypeError, match=r"@cached\(\), with parentheses"):
        P.cached(lambda: None)  # type: ignore[arg-type]


def test_a_later_registration_is_covered_by_a_scope_for_all() -> None:
    with P.cached(), P.cached(nn.Linear(2, 2)):
        linear, _ = counting()
        assert linear.weight is linear.weight


# nesting


def test_a_value_belongs_to_the_outermost_scope_that_covers_it() -> None:
    linear, parametrization = counting()
    with P.cached() as outer:
        with P.cached() as inner:
            first = linear.weight
            assert (len(outer), len(inner)) == (1, 0)
        assert linear.weight is first
    assert parametrization.calls.count == 1


def test_an_inner_scope_adds_coverage_that_dies_with_it() -> None:
    a, b = counting()[0], counting()[0]
    with P.cached(a) as outer:
        with P.cached(b) as inner:
            first = a.weight, b.weight
            assert (len(outer), len(inner)) == (1, 1)
        assert a.weight is first[0]
        assert b.weight is not first[1]


def test_one_object_may_be_entered_again_inside_itself() -> None:
    linear, _ = counting()
    scope = P.cached(linear)
    with scope:
        with scope:
            first = linear.weight
        assert linear.weight is first
    with scope:
        assert linear.weight is not first


def test_an_exception_ends_the_scope() -> None:
    linear, _ = counting()
    scopes: list[P.Scope] = []

    def fail() -> None:
        with P.cached() as scope:
            scopes.append(scope)
            assert linear.weight is linear.weight
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert len(scopes[0]) == 0
    assert linear.weight is not linear.weight


def test_each_call_of_a_decorated_function_has_its_own_scope() -> None:
    linear, parametrization = counting()

    @P.cached(linear)
    def twice(again: bool) -> Tensor:
        first = linear.weight
        assert linear.weight is first
        return twice(False) if again else first

    assert twice.__name__ == "twice"
    assert twice(True) is not twice(False)
    assert parametrization.calls.count == 2


def test_generators_are_refused_as_decorated_functions() -> None:
    def steps() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match=r"Write `with cached\(\.\.\.\):` inside"):
        P.cached()(steps)


def test_a_generator_closed_elsewhere_frees_its_values() -> None:
    linear, _ = counting()
    scopes: list[P.Scope] = []

    def steps() -> Generator[Tensor, None, None]:
        with P.cached() as scope:
            scopes.append(scope)
            yield linear.weight

    async def main() -> None:
        generator = steps()
        await asyncio.to_thread(next, generator)
        await asyncio.to_thread(generator.close)

    asyncio.run(main())
    assert len(scopes[0]) == 0


# lifetime


def test_leaving_a_scope_frees_its_values_at_once() -> None:
    linear, _ = counting()
    gc.disable()
    try:
        with P.cached():
            value = weakref.ref(linear.weight)
            assert value() is not None
            torch.autograd.backward(linear(torch.ones(1, 3)).sum())
        assert value() is None
    finally:
        gc.enable()
