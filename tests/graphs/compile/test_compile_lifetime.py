"""What compiled code leaves behind."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from tests.graphs.backend import READS_GRAD, Graphs
from tests.graphs.compile.models import INPUT, assert_same
from tests.helpers import Exp, chain_of, linear, train_step

pytestmark = READS_GRAD


def test_values_are_freed_with_the_scope(layer: nn.Linear) -> None:
    compiled = Graphs("aot_eager").compile(layer)
    gc.collect()
    gc.disable()
    try:
        for _ in range(2):
            with P.cached(layer):
                compiled(INPUT)
                weight = weakref.ref(layer.weight)
            assert weight() is None
    finally:
        gc.enable()


def test_modules_are_freed_after_compilation() -> None:
    module = linear(Exp())
    compiled = Graphs().compile(module)
    with P.cached(module):
        compiled(INPUT)
    chain = weakref.ref(chain_of(module))
    del module, compiled
    torch.compiler.reset()
    gc.collect()
    assert chain() is None


def test_copies_of_a_compiled_module_hold_no_value(graphs: Graphs, layer: nn.Linear) -> None:
    compiled = graphs.compile(layer)
    names = set(layer.state_dict())
    with P.cached(layer):
        compiled(INPUT)
        assert set(layer.state_dict()) == names
        assert vars(chain_of(layer)).keys() == vars(chain_of(linear(Exp()))).keys()
        for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            train_step(twin)
            torch.testing.assert_close(graphs.compile(twin)(INPUT), twin(INPUT))
            with pytest.raises(AssertionError):
                torch.testing.assert_close(twin(INPUT), layer(INPUT))


@pytest.mark.skipif(
    torch.__version__ < "2.12", reason="torch compiles nothing but inductor's code ahead of time"
)
@pytest.mark.parametrize("compiled_in_scope", [False, True])
def test_code_compiled_ahead_of_time_holds_no_value(
    compiled_in_scope: bool, layer: nn.Linear
) -> None:
    def run(module: nn.Module, x: Tensor) -> Any:
        return module(x)

    compiled: Any = torch.compile(run, backend="aot_eager", fullgraph=True)
    with P.cached(layer) if compiled_in_scope else nullcontext():
        ahead = compiled.aot_compile(((layer, INPUT), {}))
    for scope in (nullcontext(), P.cached(layer)):
        with scope:
            torch.testing.assert_close(ahead(layer, INPUT), layer(INPUT))
            train_step(layer)
            torch.testing.assert_close(ahead(layer, INPUT), layer(INPUT))


def test_without_the_parts_of_torch_that_it_needs_it_evaluates_in_the_graph(
    graphs: Graphs, layer: nn.Linear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("torch._dynamo.source.CallFunctionNoArgsSource")
    compiled = graphs.compile(layer)
    with P.cached(layer):
        for _ in range(3):
            assert_same(layer, compiled, INPUT)
            train_step(layer)
    assert graphs.evaluations == [1]
