"""Scopes in methods that are scripted.

Without postponed annotations: TorchScript takes those of a class as they are.
"""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc
import paramdesc as P
from paramdesc import cached, get_parametrizations
from paramdesc import cached as once
from paramdesc.errors import ScriptedScopeError
from tests.helpers import linear
from tests.jit.models import (
    DEPRECATED,
    Counted,
    CoversSelf,
    Loop,
    X,
    assert_alike,
    calls,
    saved_and_loaded,
)

pytestmark = DEPRECATED


class CoversAll(Loop):
    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros_like(x)
        with paramdesc.cached():  # a comment: with a colon
            for _ in range(4):
                state = self.out(self.cell(x, state))
        return state


class CoversTwo(Loop):
    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros_like(x)
        with once(self.cell), torch.autograd.profiler.record_function("loop"), P.cache(self.out):
            for _ in range(4):
                state = self.out(self.cell(x, state))
        return state


class CoversSet(Loop):
    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros_like(x)
        with cached(
            get_parametrizations(self).filter(map_type=Counted),
        ):
            for _ in range(4):
                state = self.out(self.cell(x, state))
        return state


class CoversInMethod(Loop):
    def forward(self, x: Tensor) -> Tensor:
        return self.loop(x, 4)

    def loop(self, x: Tensor, steps: int) -> Tensor:
        state: Tensor = torch.zeros_like(x)
        with cached(self.cell):
            state = self.cell(x, state)
            with cached([self.out]):
                state = self.out(state)
                for _ in range(steps - 1):
                    state = self.out(self.cell(x, state))
        return state


class Decorated(Loop):
    @cached()
    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros_like(x)
        for _ in range(4):
            state = self.out(self.cell(x, state))
        return state


LOOPS = [CoversSelf, CoversAll, CoversTwo, CoversSet, CoversInMethod, Decorated]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_scope_in_a_scripted_method_evaluates_once(loop: Any, script: Any) -> None:
    model = loop()
    expected = model(X)
    program = script(model)
    for scripted in (program, saved_and_loaded(program)):
        for name in ("weight", "weight_hh"):
            before = calls(scripted, name)
            torch.testing.assert_close(scripted(X), expected)
            assert calls(scripted, name) - before == 1
        with P.cached(scripted):
            before = calls(scripted)
            scripted(X), scripted(X)
            assert calls(scripted) - before == 1
        assert_alike(scripted, copy.deepcopy(model))


class CoversNothing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        with cached(self.layer):
            return self.layer(x)  # type: ignore[no-any-return]


def test_a_scope_over_a_plain_module_is_scripted_too() -> None:
    model = CoversNothing()
    torch.testing.assert_close(P.jit.script(model)(X), model(X))


class Raises(Loop):
    def forward(self, x: Tensor) -> Tensor:
        with cached(self):
            y = self.out(x)
            if bool(x.sum() > 100):
                raise ValueError("too large")
        return y  # type: ignore[no-any-return]


def test_an_exception_ends_a_scope_in_scripted_code() -> None:
    program: Any = P.jit.script(Raises())
    with pytest.raises(torch.jit.Error, match="too large"):
        program(X + 1000)
    assert all(chain.scopes == 0 for chain in get_parametrizations(program))
    before = calls(program)
    program(X)
    assert calls(program) - before == 1


ELSEWHERE = linear()


class CoversElsewhere(Loop):
    def forward(self, x: Tensor) -> Tensor:
        with cached(ELSEWHERE):
            return self.out(x)  # type: ignore[no-any-return]


class CoversLocal(Loop):
    def forward(self, x: Tensor) -> Tensor:
        layer = self.out
        with cached(layer):
            return layer(x)  # type: ignore[no-any-return]


def test_a_scope_that_torchscript_cannot_open_says_what_to_write() -> None:
    with pytest.raises(ScriptedScopeError, match=r"cached\(ELSEWHERE\).*cannot reach from self"):
        P.jit.script(CoversElsewhere())
    with pytest.raises(ScriptedScopeError, match=r"cached\(layer\).*Write cached\(self\)"):
        P.jit.script(CoversLocal())
