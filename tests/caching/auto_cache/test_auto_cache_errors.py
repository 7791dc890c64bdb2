"""An error in the model ends the forward pass and leaves no scope."""

from __future__ import annotations

from typing import Any

import pytest

import paramdesc as P
from paramdesc.caching.active import active_scopes
from paramdesc.caching.traced_scopes import TRACED
from tests.caching.auto_cache.models import INPUT, Twice, assert_same, twice
from tests.helpers import Exp, linear


class Failing(Twice):
    error: type[BaseException] | None = KeyError

    def pause(self) -> None:
        if self.error is not None:
            raise self.error


def test_an_error_ends_the_forward_pass() -> None:
    model = twice(Failing)
    with pytest.raises(KeyError):
        model(INPUT)
    assert active_scopes() == ()
    assert not TRACED.opened.any
    model.error = None
    assert_same(model)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_after_an_interrupt_the_next_call_leaves_no_scope(error: type[BaseException]) -> None:
    model = twice(Failing)
    model.error = error
    with pytest.raises(error):
        model(INPUT)
    model.error = None
    assert_same(model)
    assert active_scopes() == ()
    assert not TRACED.opened.any


@pytest.mark.parametrize("prepend", [True, False])
@pytest.mark.parametrize("register", ["register_forward_pre_hook", "register_forward_hook"])
@pytest.mark.parametrize("is_before", [True, False])
def test_a_hook_of_others_that_raises_leaves_no_scope(
    register: str, prepend: bool, is_before: bool
) -> None:
    model = Twice(linear(Exp()))

    def refuse(*_: Any) -> None:
        raise KeyError

    if not is_before:
        P.auto_cache(model)
    handle = getattr(model, register)(refuse, prepend=prepend)
    if is_before:
        P.auto_cache(model)
    for training in (True, False):
        with pytest.raises(KeyError):
            model.train(training)(INPUT)
        assert active_scopes() == ()
    handle.remove()
    assert_same(model)
