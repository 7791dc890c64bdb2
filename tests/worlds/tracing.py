"""Traces: `torch.jit.trace` and `torch.fx.symbolic_trace`"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx

from tests.worlds.case import Case, of_loop, of_scoped_loop
from tests.worlds.checks import WrongError, check_close, check_evaluated_once
from tests.worlds.engines import Engine, Loop
from tests.worlds.scripting import saved_and_loaded

__all__ = [
    "load",
    "module",
    "scope_around",
    "scope_inside",
    "symbolic",
    "symbolic_in_scope",
    "trace",
    "trace_in_scope",
]

jit: Any = torch.jit


class Predictor(Loop):
    def predict(self, x: Tensor) -> Tensor:
        return -self(x)  # type: ignore[no-any-return]


def trace(engine: Engine) -> None:
    """`torch.jit.trace`"""
    case = of_loop(engine)
    case.check(jit.trace(case.model, case.inputs[0]))


def module(engine: Engine) -> None:
    """`torch.jit.trace_module`, two methods"""
    case = Case(engine, Predictor(torch.nn.Linear(3, 3)), ["layer.weight"])
    (x,) = case.inputs
    traced = jit.trace_module(case.model, {"forward": x, "predict": x})
    case.check(traced)
    case.check(lambda x: -traced.predict(x))


def load(engine: Engine) -> None:
    """a trace saved, loaded, and trained on"""
    case = of_loop(engine)
    loaded = saved_and_loaded(jit.trace(case.model, case.inputs[0]))
    case.check(loaded, loaded)


def trace_in_scope(engine: Engine) -> None:
    """`torch.jit.trace` inside `cached`, with a cached weight and `check_trace`"""
    case = of_loop(engine)
    with engine.cached(case.model):
        case.model(*case.inputs)
        traced = jit.trace(case.model, case.inputs[0], check_trace=True)
    case.check(traced)


def scope_inside(engine: Engine) -> None:
    """`cached` inside the traced `forward`: evaluated once"""
    case = of_scoped_loop(engine)
    traced = jit.trace(case.model, case.inputs[0])
    case.check(traced)
    check_evaluated_once(str(traced.inlined_graph))


def scope_around(engine: Engine) -> None:
    """`cached` around a trace keeps no values of the trace"""
    case = of_loop(engine)

    def run(x: Tensor) -> Tensor:
        with engine.cached(case.model):
            check_evaluated_once(str(jit.trace(case.model, x, check_trace=False).inlined_graph))
            y: Tensor = case.model(x)
        return y

    case.check(run)


def symbolic(engine: Engine) -> None:
    """`torch.fx.symbolic_trace`"""
    case = of_loop(engine)
    traced = fx.symbolic_trace(case.model)
    case.check(traced)
    copied = copy.deepcopy(traced)
    case.check(copied, copied)


def symbolic_in_scope(engine: Engine) -> None:
    """`torch.fx.symbolic_trace` inside `cached`, with a cached weight"""
    case = of_loop(engine)
    with engine.cached(case.model):
        before = case.model.layer.weight
        traced = fx.symbolic_trace(case.model)
        if type(case.model.layer.weight) is not type(before):
            raise WrongError(f"the weight is a {type(case.model.layer.weight).__name__}")
        check_close(case.model.layer.weight, before, "a wrong weight afterwards")
    case.check(traced)
