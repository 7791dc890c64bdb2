"""Scopes in code that torch traces: one evaluation in the graph, and nothing leaks either way."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

import paramdesc as P
from paramdesc.caching.active import active_scopes
from paramdesc.parametrizations import SpectralNorm
from tests.graphs.backend import Graphs, count
from tests.helpers import Exp


class Twice(nn.Module):
    """Applies one parametrized layer twice, in a scope of its own."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        with P.cached(self.layer):
            y: Tensor = self.layer(self.layer(x))
        return y


@pytest.fixture
def layer() -> nn.Linear:
    return P.register_parametrization(nn.Linear(2, 2), "weight", Exp())


INPUT = torch.ones(1, 2)


def scope_of_all(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        with P.cached():
            y: Tensor = layer(layer(x))
        return y

    return run


def scope_of_a_set(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    found = P.get_parametrizations(layer)

    def run(x: Tensor) -> Tensor:
        with P.cached(found), P.cached():
            y: Tensor = layer(layer(x))
        return y

    return run


def decorated(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    @P.cached(layer)
    def run(x: Tensor) -> Tensor:
        y: Tensor = layer(layer(x))
        return y

    return run


@pytest.mark.parametrize("make", [Twice, scope_of_all, scope_of_a_set, decorated])
def test_a_scope_in_compiled_code_evaluates_once_in_one_graph(make: Any, layer: nn.Linear) -> None:
    backend, run = Graphs(), make(layer)
    compiled: Any = torch.compile(run, backend=backend, fullgraph=True)
    for _ in range(3):
        torch.testing.assert_close(compiled(INPUT), run(INPUT))
    assert backend.evaluations == [1]


def test_without_a_scope_compiled_code_evaluates_each_time(layer: nn.Linear) -> None:
    backend = Graphs()
    model = nn.Sequential(layer, layer)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(INPUT), model(INPUT))
    assert backend.evaluations == [2]


def test_the_traced_path_does_in_python_what_it_does_in_a_graph(
    layer: nn.Linear, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in ("active", "cached", "read"):
        module = importlib.import_module(f"paramdesc.caching.{file}")
        monkeypatch.setattr(module, "is_dynamo_compiling", lambda: True)
    calls: list[int] = []
    layer.get_submodule("parametrizations.weight.0").register_forward_hook(
        lambda *_: calls.append(1)
    )
    Twice(layer)(INPUT)
    assert len(calls) == 1
    with P.cached([]):
        assert layer.weight is not layer.weight
    with P.cached():
        first = layer.weight
        layer.get_parameter("parametrizations.weight.original").data = torch.ones(2, 2)
        assert layer.weight is not first
        with torch.no_grad():
            assert not layer.weight.requires_grad


def test_gradients_of_compiled_code_reach_the_original(layer: nn.Linear) -> None:
    model = Twice(layer)
    original = layer.get_parameter("parametrizations.weight.original")
    gradients: list[Tensor] = []
    for run in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
        original.grad = None
        torch.autograd.backward(run(INPUT).sum())
        assert original.grad is not None
        gradients.append(original.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_compiled_code_in_an_eager_scope_is_right(layer: nn.Linear) -> None:
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    with P.cached():
        for _ in range(2):
            torch.testing.assert_close(compiled(INPUT), layer(INPUT))
            with torch.no_grad():
                layer.get_parameter("parametrizations.weight.original").add_(1)


def test_a_write_in_a_compiled_scope_is_seen(layer: nn.Linear) -> None:
    original = layer.get_parameter("parametrizations.weight.original")

    def run(x: Tensor) -> Tensor:
        with P.cached():
            y: Tensor = layer(x)
            with torch.no_grad():
                original.mul_(2)
            z: Tensor = layer(y)
        return z

    before = original.detach().clone()
    results = []
    for function in (run, torch.compile(run, backend="eager")):
        with torch.no_grad():
            original.copy_(before)
        results.append(function(INPUT))
    torch.testing.assert_close(results[0], results[1])


def test_a_compiled_map_with_a_state_evaluates_once() -> None:
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", SpectralNorm())
    model = Twice(layer).eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(torch.ones(1, 3)), model(torch.ones(1, 3)))


@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects:UserWarning")
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("around", [False, True])
def test_an_export_evaluates_once_and_leaves_the_scope_alone(
    strict: bool, around: bool, layer: nn.Linear
) -> None:
    model = Twice(layer)
    with P.cached() if around else P.cached([]):
        assert layer.weight is not None
        program = torch.export.export(model, (INPUT,), strict=strict)
        assert type(layer.weight) is Tensor
        torch.testing.assert_close(program.module()(INPUT), model(INPUT))
    assert count(program.graph.nodes) == 1
    assert "layer.parametrizations.weight.original" in program.state_dict


@pytest.mark.filterwarnings("ignore:.torch.jit")  # its end is announced, in a class that changes
def test_a_jit_trace_evaluates_once_and_leaves_the_scope_alone(layer: nn.Linear) -> None:
    model = Twice(layer)
    with P.cached():
        before = layer.weight
        traced: Any = torch.jit.trace(model, INPUT)  # type: ignore[no-untyped-call]
        assert str(traced.inlined_graph).count("aten::exp") == 1
    with torch.no_grad():
        layer.get_parameter("parametrizations.weight.original").add_(1)
    assert before.grad_fn is not None
    torch.testing.assert_close(traced(INPUT), model(INPUT))


def test_a_proxy_of_one_trace_is_not_seen_in_the_next(layer: nn.Linear) -> None:
    with P.cached():
        eager = layer.weight
        graphs = [make_fx(lambda x: layer(layer(x)))(INPUT) for _ in range(2)]
        assert [count(graph.graph.nodes) for graph in graphs] == [1, 1]
        torch.testing.assert_close(layer.weight, eager)


def test_functional_call_uses_what_it_is_given(layer: nn.Linear) -> None:
    name = "parametrizations.weight.original"
    with P.cached():
        before = layer.weight
        for value in (0.0, 1.0):
            given = {name: torch.full((2, 2), value), "bias": torch.zeros(2)}
            result = torch.func.functional_call(layer, given, INPUT)
            torch.testing.assert_close(result, torch.full((1, 2), 2 * value).exp().sqrt() * 2)
        torch.testing.assert_close(layer.weight, before)


def test_transforms_do_not_leave_their_tensors_in_the_scope(layer: nn.Linear) -> None:
    parameters = {name: p.detach() for name, p in layer.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(layer, parameters, (x,)).sum()
        return result

    samples = torch.arange(6.0).reshape(3, 2)
    per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))
    expected = per_sample(parameters, samples)
    with P.cached():
        before = layer.weight
        for _ in range(2):
            for name, gradient in per_sample(parameters, samples).items():
                torch.testing.assert_close(gradient, expected[name])
            torch.func.vmap(layer)(samples)
            torch.func.grad(lambda x: layer(layer(x)).sum())(INPUT)
        assert type(layer.weight) is Tensor
        torch.testing.assert_close(layer.weight, before)


def test_what_one_call_of_a_transform_wraps_is_not_seen_in_the_next(layer: nn.Linear) -> None:
    gradient = torch.func.grad(lambda x: layer(layer(x)).sum())
    jacobian = torch.func.jacrev(lambda x: layer(x), has_aux=False)
    expected = gradient(INPUT), jacobian(INPUT)
    with P.cached():
        for _ in range(3):
            torch.testing.assert_close((gradient(INPUT), jacobian(INPUT)), expected)
        dead = [entry for scope in active_scopes() for entry in scope.entries.values()]
        assert dead == []  # nothing there was wrapped, so nothing tells one call from the next


def test_a_transform_evaluates_what_it_wraps_once(layer: nn.Linear) -> None:
    calls = []
    layer.get_submodule("parametrizations.weight.0").register_forward_hook(
        lambda *_: calls.append(1)
    )

    def loss(original: Tensor) -> Tensor:
        given = {"parametrizations.weight.original": original}
        result: Tensor = torch.func.functional_call(
            nn.Sequential(layer, layer), prefixed(given), INPUT
        )
        return result.sum()

    def prefixed(given: dict[str, Tensor]) -> dict[str, Tensor]:
        return {f"{i}.{name}": value for name, value in given.items() for i in (0,)}

    with P.cached():
        torch.func.grad(loss)(layer.get_parameter("parametrizations.weight.original").detach())
    assert len(calls) == 1


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch's own
def test_registering_in_compiled_code_is_left_to_python() -> None:
    def run(x: Tensor) -> Tensor:
        layer = nn.Linear(2, 2)
        P.register_parametrization(layer, "weight", torch.zeros_like)
        y: Tensor = layer(x) - layer.bias
        P.remove_parametrizations(layer, "weight")
        return y

    compiled = torch.compile(run, backend="eager")
    torch.testing.assert_close(compiled(INPUT), torch.zeros(1, 2))


class Settings(nn.Module):
    """`factor * X + shift`, doubled in training."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = 2.0
        self.register_buffer("shift", torch.zeros(()))

    def forward(self, X: Tensor) -> Tensor:
        Y = self.factor * X @ X.mT + self.get_buffer("shift")
        return 2 * Y if self.training else Y


GIVEN = torch.tensor([[0.25, 0.5], [0.75, 1.0]])

Change = Callable[[Any, Any, Any], object]

CHANGES: dict[str, Change] = {
    "in place": lambda layer, first, original: original.add_(0.5),
    "through a view": lambda layer, first, original: original.mT[0].mul_(0.5),
    "an item": lambda layer, first, original: original.__setitem__(0, 0.25),
    "by foreach": lambda layer, first, original: torch._foreach_add_([original], 0.5),
    "by out": lambda layer, first, original: torch.add(GIVEN, 1, out=original),
    "data": lambda layer, first, original: setattr(original, "data", GIVEN),
    "value": lambda layer, first, original: layer.weight.mul_(2),
    "buffer": lambda layer, first, original: first.shift.add_(1),
    "another buffer": lambda layer, first, original: setattr(first, "shift", torch.ones(())),
    "number": lambda layer, first, original: setattr(first, "factor", 3.0),
    "training flag": lambda layer, first, original: layer.eval(),
    "another map": lambda layer, first, original: layer.parametrizations.weight.append(Exp()),
}


# torch 2.11 cannot trace `dict(vars(module))`, which an edit of a chain needs to undo itself
FAILS_TO_TRACE = pytest.mark.skipif(
    torch.__version__ < "2.12", reason="fails in torch 2.11's Dynamo"
)
CHANGED = [
    pytest.param(change, id=name, marks=[FAILS_TO_TRACE] if name == "another map" else [])
    for name, change in CHANGES.items()
]


@pytest.mark.parametrize("change", CHANGED)
def test_a_change_in_a_compiled_scope_is_seen_in_the_same_graph(change: Change) -> None:
    results: list[Tensor] = []
    for is_compiled in (False, True):
        layer = P.register_parametrization(nn.Linear(2, 2), "weight", Settings())
        layer.load_state_dict({**layer.state_dict(), "bias": torch.zeros(2)})
        chain: Any = layer.get_submodule("parametrizations.weight")
        chain.load_state_dict({"original": GIVEN / 2}, strict=False)

        def run(x: Tensor, layer: Any = layer, chain: Any = chain) -> Tensor:
            with P.cached(), torch.no_grad():
                y: Tensor = layer(x)
                change(layer, chain[0], chain.original)
                z: Tensor = layer(y)
            return z

        compiled = torch.compile(run, backend="eager", fullgraph=True)
        results.append(compiled(INPUT) if is_compiled else run(INPUT))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("inside_first", [False, True])
def test_autocast_in_a_compiled_scope_is_seen(inside_first: bool) -> None:
    layer = P.register_parametrization(nn.Linear(2, 2), "weight", Settings())

    def run() -> list[Tensor]:
        with P.cached():
            values: list[Tensor] = []
            for inside in (inside_first, not inside_first):
                with torch.autocast("cpu", torch.bfloat16, enabled=inside):
                    values.append(layer.weight)
            return values

    compiled = torch.compile(run, backend="eager", fullgraph=True)
    for value, expected in zip(compiled(), run(), strict=True):
        torch.testing.assert_close(value, expected)


def test_another_tensor_lent_in_a_compiled_scope_is_seen(layer: nn.Linear) -> None:
    given = {name: torch.full_like(p, 0.5) for name, p in layer.named_parameters()}

    def loss(given: dict[str, Tensor]) -> Tensor:
        result: Tensor = torch.func.functional_call(layer, given, INPUT).sum()
        return result

    def run() -> list[Any]:
        with P.cached():
            gradients = [torch.func.grad(loss)(given) for _ in range(2)]
            return [*gradients, layer(INPUT)]

    compiled = torch.compile(run, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(), run())
