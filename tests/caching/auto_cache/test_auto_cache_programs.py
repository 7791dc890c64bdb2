"""`auto_cache` in code that is compiled, exported, traced, scripted or transformed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from tests.caching.auto_cache.models import CHANGES, INPUT, assert_same, original_of, plain, twice
from tests.graphs.backend import READS_GRAD, Graphs
from tests.helpers import Exp, linear, train_step


class Scripted(nn.Module):
    """exp of the original, in words that TorchScript knows."""

    def forward(self, X: Tensor) -> Tensor:
        return X.exp()


@pytest.fixture
def backend(compiler: None) -> Graphs:
    return Graphs("aot_eager")


@READS_GRAD
def test_compiled_training_is_one_graph_with_one_evaluation(backend: Graphs) -> None:
    model = twice()
    compiled: Any = torch.compile(model, backend=backend, fullgraph=True)
    for _ in range(3):
        assert_same(model, compiled)
        train_step(model.layer)
    Exp.evaluations = 0
    compiled(INPUT)
    assert len(backend.evaluations) == 1
    assert backend.evaluations[0] + Exp.evaluations == 1  # in the graph, or before it


@READS_GRAD
def test_in_a_compiled_whole_a_part_evaluates_once_in_each_pass(backend: Graphs) -> None:
    part = twice()
    whole = nn.Sequential(part, nn.Tanh())
    compiled: Any = torch.compile(whole, backend=backend, fullgraph=True)
    for _ in range(3):
        assert_same(whole, compiled)
        train_step(part.layer)
    assert backend.evaluations == [1]


@READS_GRAD
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_compiled_inference_uses_what_is_kept_and_sees_changes(
    backend: Graphs, mode: Callable[[], Any]
) -> None:
    model = twice().eval()
    compiled: Any = torch.compile(model, backend=backend, fullgraph=True)
    for change in [None, "in-place write", "assignment", "load_state_dict", "new original"]:
        if change is not None:
            with torch.no_grad():
                CHANGES[change](model)
        with mode():
            expected = plain(model)(INPUT)
            Exp.evaluations = 0
            for _ in range(3):
                torch.testing.assert_close(compiled(INPUT), expected)
        assert Exp.evaluations == 1, change
    assert backend.evaluations[0] == 0
    assert len(backend.evaluations) <= 2


@READS_GRAD
def test_a_compiled_model_trains_and_predicts_in_turn(backend: Graphs) -> None:
    model = twice()
    compiled: Any = torch.compile(model, backend=backend, fullgraph=True)
    for _ in range(4):
        model.train()
        assert_same(model, compiled)
        train_step(model.layer)
        model.eval()
        with torch.no_grad():
            torch.testing.assert_close(compiled(INPUT), plain(model)(INPUT))
    assert len(backend.evaluations) == 2  # with gradients, and without


@READS_GRAD
@pytest.mark.parametrize("training", [True, False])
def test_other_models_that_come_and_go_compile_nothing_anew(
    backend: Graphs, training: bool
) -> None:
    whole = nn.Sequential(twice(), nn.Tanh()).train(training)
    compiled: Any = torch.compile(whole, backend=backend, fullgraph=True)
    for _ in range(3):
        compiled(INPUT)
        other = twice()
        other(INPUT)
        compiled(INPUT)
        del other
    assert len(backend.evaluations) == 1


@READS_GRAD
def test_switching_it_off_is_seen_by_compiled_code(backend: Graphs) -> None:
    model = twice().eval()
    compiled: Any = torch.compile(model, backend=backend, fullgraph=True)
    with torch.no_grad():
        compiled(INPUT)
        P.auto_cache(model, enabled=False)
        torch.testing.assert_close(compiled(INPUT), model(INPUT))
    assert backend.evaluations == [0, 2]


@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects:UserWarning")
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_an_export_evaluates_in_the_program(strict: bool, training: bool) -> None:
    model = twice().train(training)
    with torch.no_grad():
        model(INPUT)
        program = torch.export.export(model, (INPUT,), strict=strict)
        assert "aten.exp" in str(program.graph)
        torch.testing.assert_close(program.module()(INPUT), model(INPUT))
        assert type(model.layer.weight) is Tensor


@pytest.mark.filterwarnings("ignore:.torch.jit")
@pytest.mark.parametrize("training", [True, False])
def test_a_trace_evaluates_in_the_program(training: bool) -> None:
    model = twice().train(training)
    with torch.no_grad():
        model(INPUT)
        traced: Any = torch.jit.trace(model, INPUT)  # type: ignore[no-untyped-call]
        train_step(model.layer)
        assert "aten::exp" in str(traced.inlined_graph)
        assert type(model.layer.weight) is Tensor
    assert_same(model)


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_a_model_can_be_scripted() -> None:
    model = nn.Sequential(linear(Scripted()), nn.Tanh())
    P.auto_cache(model)
    program: Any = torch.jit.script(model)
    torch.testing.assert_close(program(INPUT), model(INPUT))
    with torch.no_grad():
        torch.testing.assert_close(program.eval()(INPUT), model.eval()(INPUT))


def test_a_symbolic_trace_evaluates_in_the_program() -> None:
    model = twice().eval()
    with torch.no_grad():
        model(INPUT)
        program = torch.fx.symbolic_trace(model)
        original_of(program).add_(1)
        torch.testing.assert_close(program(INPUT), plain(model)(INPUT))
        assert type(model.layer.weight) is Tensor


@pytest.mark.parametrize("training", [True, False])
def test_functional_call_gets_its_own_value_and_leaves_none(training: bool) -> None:
    model = twice().train(training)
    twin = plain(model)
    name = "layer.parametrizations.weight.original"
    with torch.no_grad():
        for number in (0.0, 1.0):
            state = {name: torch.full((3, 3), number)}
            torch.testing.assert_close(model(INPUT), twin(INPUT))
            torch.testing.assert_close(
                torch.func.functional_call(model, state, INPUT),
                torch.func.functional_call(twin, state, INPUT),
            )
        torch.testing.assert_close(model(INPUT), twin(INPUT))


@pytest.mark.parametrize("training", [True, False])
def test_transforms_are_those_without_the_setting(training: bool) -> None:
    model = twice().train(training)
    twin = plain(model)
    states = {name: torch.stack([x, x + 1]) for name, x in model.state_dict().items()}
    results = []
    with torch.no_grad():
        model(INPUT)
        for each in (model, twin):

            def call(state: dict[str, Tensor], each: nn.Module = each) -> Any:
                return torch.func.functional_call(each, state, INPUT)

            def loss(state: dict[str, Tensor], each: nn.Module = each) -> Any:
                return torch.func.functional_call(each, state, INPUT).sum()

            with torch.enable_grad():
                gradient = torch.func.vmap(torch.func.grad(loss))(states)
            results.append((torch.vmap(each)(INPUT), torch.vmap(call)(states), gradient))
        torch.testing.assert_close(results[0], results[1])
        torch.testing.assert_close(model(INPUT), twin(INPUT))
