"""torch.compile: every map in one graph, one graph for all modules, and scopes around its calls."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import gc
import itertools
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo import compiled_autograd
from torch._dynamo.backends.registry import lookup_backend
from torch._dynamo.exc import Unsupported
from torch.fx import GraphModule
from torch.utils.checkpoint import checkpoint

import paramdesc as P
from paramdesc.caching.traced_scopes import TRACED
from paramdesc.parametrizations import SpectralNorm, Symmetric
from tests.helpers import Double, Sum, chain_of, linear, torch_linear, train_step

# torch looks at the .grad of each tensor that compiled code is given, and hides its own warning
# from users, but not from those who turn warnings into errors
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")

INPUT = torch.ones(2, 3)


class Exp(nn.Module):
    """Counts its evaluations by eager code, and shows those in a graph by their name."""

    evaluations = 0

    def forward(self, X: Tensor) -> Tensor:
        if not torch.compiler.is_dynamo_compiling():
            self.__class__.evaluations += 1
        return X.exp()


class Graphs:
    """A backend that notes how often `Exp` is evaluated in each graph that it is given."""

    def __init__(self, backend: str = "eager") -> None:
        self.evaluations: list[int] = []
        self.backend = backend

    def __call__(self, graph: GraphModule, inputs: Any) -> Any:
        calls = [node for node in graph.graph.nodes if node.op.startswith("call")]
        self.evaluations.append(sum("exp" in str(node.target) for node in calls))
        return lookup_backend(self.backend)(graph, inputs)

    def compile(self, function: Callable[..., Any], **options: Any) -> Any:
        return torch.compile(function, backend=self, fullgraph=True, **options)


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    Exp.evaluations = 0
    yield
    assert TRACED.scopes == ()
    assert not TRACED.opened.any


@pytest.fixture
def graphs() -> Graphs:
    return Graphs()


@pytest.fixture
def layer() -> nn.Linear:
    return linear(Exp())


def original_of(module: nn.Module) -> Tensor:
    return module.get_parameter("parametrizations.weight.original")


def gradients(module: nn.Module, output: Tensor) -> list[Tensor]:
    """The gradients of what `module` trains, without touching `.grad`."""
    total = (output * output.conj()).real.sum()
    return list(torch.autograd.grad(total, list(module.parameters())))


def assert_same(module: nn.Module, compiled: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Outputs and gradients of compiled code are those of eager code."""
    results = []
    for function in (module, compiled):
        output = function(*inputs)
        results.append((output.detach(), gradients(module, output)))
    torch.testing.assert_close(results[1], results[0])


# every map


class Scaled(nn.Module):
    """A buffer, parametrized, multiplies the input; a parameter as well, to have a gradient."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))
        self.register_buffer("scale", torch.tensor([1.0, 2.0, 3.0]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale * self.weight


def chain_of_two() -> nn.Module:
    return P.register_parametrization(linear(Symmetric()), "weight", SpectralNorm())


def function_map() -> nn.Module:
    module = nn.Linear(3, 3)
    return P.register_parametrization(module, "weight", torch.neg, right_inverse=torch.neg)


def several_tensors() -> nn.Module:
    return P.register_parametrization(linear(Symmetric()), "bias", Double())


def parametrized_buffer() -> nn.Module:
    return P.register_parametrization(Scaled(), "scale", torch.exp)


def complex_weight() -> nn.Module:
    module = nn.Linear(3, 3, dtype=torch.complex64)
    return P.register_parametrization(module, "weight", Symmetric())


def convolution() -> nn.Module:
    return P.register_parametrization(nn.Conv1d(2, 4, 3), "weight", SpectralNorm())


def recurrent() -> nn.Module:
    return P.register_parametrization(nn.GRUCell(3, 3), "weight_hh", torch.tanh)


MODULES: dict[str, Callable[[], nn.Module]] = {
    "Symmetric": lambda: linear(Symmetric()),
    "SpectralNorm": lambda: linear(SpectralNorm()),
    "a chain": chain_of_two,
    "several originals": lambda: linear(Sum()),
    "a function": function_map,
    "two tensors": several_tensors,
    "a buffer": parametrized_buffer,
    "complex": complex_weight,
    "a convolution": convolution,
    "a recurrent cell": recurrent,
}


def input_of(module: nn.Module) -> Tensor:
    return next(module.parameters()).detach().new_ones(2, 3)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", MODULES)
def test_every_map_is_one_graph_with_and_without_a_scope(name: str, backend: str) -> None:
    module, graphs = MODULES[name]().eval(), Graphs(backend)
    compiled, x = graphs.compile(module), input_of(module)
    for _ in range(2):
        assert_same(module, compiled, x)
    with P.cached(module):
        for _ in range(2):
            assert_same(module, compiled, x)
    assert_same(module, compiled, x)
    assert len(graphs.evaluations) == 2


@pytest.mark.parametrize("scoped", [False, True])
@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("name", MODULES)
def test_compiled_training_is_eager_training(name: str, calls: int, scoped: bool) -> None:
    torch.manual_seed(0)
    module = MODULES[name]()
    twin = copy.deepcopy(module)
    compiled, x = Graphs("aot_eager").compile(module), input_of(module)
    for function, parameters in ((compiled, module.parameters()), (twin, twin.parameters())):
        optimizer = torch.optim.SGD(parameters, lr=0.01)
        with P.cached() if scoped else nullcontext():
            for _ in range(3):
                optimizer.zero_grad()
                output = torch.stack([function(x) for _ in range(calls)])
                torch.autograd.backward((output * output.conj()).real.sum())
                optimizer.step()
    torch.testing.assert_close(module.state_dict(), twin.state_dict())


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch's own
def test_inductor_compiles_a_chain_with_and_without_a_scope() -> None:
    module = chain_of_two().eval()
    compiled: Any = torch.compile(module, fullgraph=True)
    assert_same(module, compiled, INPUT)
    with P.cached(module) as scope:
        for _ in range(3):
            assert_same(module, compiled, INPUT)
            train_step(module)
    assert scope.misses >= 3


# graphs


@pytest.mark.parametrize("dynamic", [None, True])
def test_shapes_of_the_input_compile_as_often_as_for_a_plain_module(dynamic: bool | None) -> None:
    counts = []
    for module in (nn.Linear(3, 3), linear(Exp())):
        torch.compiler.reset()  # what it has learned of shapes
        graphs = Graphs("aot_eager")
        compiled = graphs.compile(module, dynamic=dynamic)
        for n in (2, 4, 5, 6, 7):
            compiled(torch.ones(n, 3))
        counts.append(len(graphs.evaluations))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("dynamic", [None, True])
def test_a_scope_compiles_for_all_shapes_of_the_input(
    dynamic: bool | None, layer: nn.Linear
) -> None:
    graphs = Graphs("aot_eager")
    compiled = graphs.compile(layer, dynamic=dynamic)
    for _ in range(2):
        with P.cached(layer):
            for n in (2, 4, 5, 6, 7):
                assert_same(layer, compiled, torch.ones(n, 3))
    assert graphs.evaluations == [0] * (1 if dynamic else 2)


@pytest.mark.parametrize("count", [12, 100])
def test_modules_of_one_class_share_their_graphs(count: int) -> None:
    graphs = Graphs("aot_eager")
    layers = nn.Sequential(*(linear(Exp()) for _ in range(count)))
    for module in layers:
        module.compile(backend=graphs, fullgraph=True)
    small = (INPUT / 100).requires_grad_()  # as what the first of them returns
    layers(small)
    assert graphs.evaluations == [1]
    with P.cached(layers) as scope:
        layers(small)
        layers(small)
    assert graphs.evaluations == [1, 0]
    assert (scope.misses, scope.hits) == (count, count)
    layers(small)
    assert graphs.evaluations == [1, 0]


def test_modules_that_are_compiled_one_by_one_share_a_graph_too() -> None:
    # beside it torch's engine, which gives each module a class of its own
    counts = []
    for make in (linear, torch_linear):
        torch.compiler.reset()
        graphs = Graphs()
        for _ in range(3):
            graphs.compile(make(Exp()))(INPUT)
        counts.append(len(graphs.evaluations))
    assert counts == [1, 3]


# an eager scope around the calls


def test_a_compiled_module_is_evaluated_once_for_each_eager_scope(
    graphs: Graphs, layer: nn.Linear
) -> None:
    compiled = graphs.compile(layer)
    compiled(INPUT)
    for _ in range(3):
        before = Exp.evaluations
        with P.cached(layer) as scope:
            for _ in range(5):
                compiled(INPUT)
        assert Exp.evaluations == before + 1
        assert (scope.misses, scope.hits) == (1, 4)
    compiled(INPUT)
    assert graphs.evaluations == [1, 0]


@pytest.mark.parametrize("how", ["a module", "a method", "a closure", "an argument"])
def test_all_ways_to_compile_find_the_scope(how: str, graphs: Graphs, layer: nn.Linear) -> None:
    def closed_over(x: Tensor) -> Any:
        return layer(layer(x))

    def taken(module: nn.Module, x: Tensor) -> Any:
        return module(module(x))

    call: Callable[[Tensor], Any]
    if how == "a module":
        call = graphs.compile(layer)
    elif how == "a method":
        layer.compile(backend=graphs, fullgraph=True)
        call = layer
    elif how == "a closure":
        call = graphs.compile(closed_over)
    else:
        compiled = graphs.compile(taken)

        def call(x: Tensor) -> Any:
            return compiled(layer, x)

    call(INPUT)
    with P.cached(layer) as scope:
        call(INPUT)
        call(INPUT)
    assert graphs.evaluations[1:] == [0]
    assert scope.misses == 1


def test_the_value_is_that_of_eager_code(graphs: Graphs, layer: nn.Linear) -> None:
    compiled = graphs.compile(lambda: layer.weight)
    with P.cached(layer) as scope:
        weight = layer.weight
        for _ in range(2):
            assert compiled() is weight
    assert scope.misses == 1


def test_two_reads_in_a_graph_are_one_tensor(graphs: Graphs, layer: nn.Linear) -> None:
    compiled = graphs.compile(lambda: (layer.weight is layer.weight, layer.weight))
    with P.cached(layer):
        assert compiled() == (True, layer.weight)


def test_a_value_that_is_returned_is_the_one_that_was_read(
    graphs: Graphs, layer: nn.Linear
) -> None:
    original = original_of(layer)

    def read_and_write(x: Tensor) -> tuple[Tensor, Tensor]:
        weight = layer.weight
        with torch.no_grad():
            original.mul_(2)
        return x + 1, weight  # not alone: then torch fetches it before the graph runs

    compiled = graphs.compile(read_and_write)
    with P.cached(layer):
        for _ in range(3):
            expected = original.detach().exp()
            _, weight = compiled(INPUT)
            torch.testing.assert_close(weight.detach(), expected)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_an_optimizer_step_in_the_scope_evaluates_anew_in_the_same_graph(
    backend: str, layer: nn.Linear
) -> None:
    graphs, twin = Graphs(backend), copy.deepcopy(layer)
    compiled = graphs.compile(layer)
    optimizers = [torch.optim.SGD(module.parameters(), lr=0.01) for module in (layer, twin)]
    with P.cached() as scope:
        for _ in range(4):
            for module, optimizer in zip((compiled, twin), optimizers, strict=True):
                optimizer.zero_grad()
                (module(INPUT) + module(INPUT)).sum().backward()
                optimizer.step()
            torch.testing.assert_close(original_of(layer), original_of(twin))
    assert graphs.evaluations == [0]
    assert scope.misses == 2 * 4


def test_two_backward_passes_and_one_outside_of_the_scope(layer: nn.Linear) -> None:
    graphs, original = Graphs("aot_eager"), original_of(layer)
    compiled = graphs.compile(layer)
    with P.cached() as scope:
        for times in (1, 2):
            compiled(INPUT).sum().backward()
            (expected,) = torch.autograd.grad(layer(INPUT).sum(), original)
            torch.testing.assert_close(original.grad, times * expected)
        loss = compiled(INPUT).sum()
    loss.backward()
    torch.testing.assert_close(original.grad, 3 * expected)
    assert scope.misses == 4 + 1  # a consumed graph is not used again
    assert graphs.evaluations == [0]


def test_modes_of_the_call_have_values_of_their_own(graphs: Graphs, layer: nn.Linear) -> None:
    compiled = graphs.compile(layer)
    with P.cached(layer):
        with torch.no_grad():
            assert not compiled(INPUT).requires_grad
        assert_same(layer, compiled, INPUT)
        with torch.autocast("cpu"):
            assert compiled(INPUT).dtype == torch.bfloat16
        assert_same(layer, compiled, INPUT)
    assert graphs.evaluations == [0, 0, 0]


def test_inference_mode_evaluates_once(layer: nn.Linear) -> None:
    graphs = Graphs("aot_eager")
    compiled = graphs.compile(layer)
    with torch.inference_mode():
        expected = layer(INPUT)
        for _ in range(2):
            with P.cached(layer) as scope:
                for _ in range(4):
                    torch.testing.assert_close(compiled(INPUT), expected)
            assert scope.misses == 1
    assert graphs.evaluations == [0]


def test_other_modes_inside_of_the_compiled_code_evaluate_in_the_graph(layer: nn.Linear) -> None:
    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            y: Tensor = layer(x)
        with torch.autocast("cpu"):
            z: Tensor = layer(x)
        result: Tensor = y + z
        return result

    graphs = Graphs("aot_eager")
    compiled = graphs.compile(run)
    with P.cached(layer):
        expected = run(INPUT)
        for _ in range(2):
            output = compiled(INPUT)
            torch.testing.assert_close(output, expected)
            torch.testing.assert_close(
                torch.autograd.grad(output.sum(), original_of(layer)),
                torch.autograd.grad(run(INPUT).sum(), original_of(layer)),
            )
    assert graphs.evaluations == [2]


def write_in_place(original: Tensor) -> None:
    original.mul_(2)


def write_to_a_view(original: Tensor) -> None:
    original.view(-1)[0].mul_(2)


def write_uncounted(original: Tensor) -> None:
    torch._foreach_mul_([original], 2.0)  # while this is traced, torch counts no write


def write_out(original: Tensor) -> None:
    torch.mul(original.clone(), 2, out=original)


@pytest.mark.parametrize(
    "write", [write_in_place, write_to_a_view, write_uncounted, write_out], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_write_in_the_compiled_code_is_seen(
    write: Callable[[Tensor], None], backend: str, layer: nn.Linear
) -> None:
    original = original_of(layer)
    before = original.detach().clone()

    def run(x: Tensor) -> list[Tensor]:
        with torch.no_grad():
            first = layer(x)
            write(original)
            return [first, layer(x)]

    def run_thrice(function: Callable[[Tensor], list[Tensor]]) -> list[list[Tensor]]:
        with torch.no_grad():
            original.copy_(before)
            with P.cached(layer):
                return [function(INPUT) for _ in range(3)]

    torch.testing.assert_close(run_thrice(Graphs(backend).compile(run)), run_thrice(run))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_write_to_the_value_in_the_compiled_code_is_seen(backend: str, layer: nn.Linear) -> None:
    def run(x: Tensor) -> Any:
        layer.weight.mul_(2)
        return layer(x)

    compiled = Graphs(backend).compile(run)
    with torch.no_grad():
        expected = layer(INPUT)
        for function in (run, compiled):
            with P.cached(layer):
                for _ in range(3):
                    torch.testing.assert_close(function(INPUT), expected)


class Stretched(nn.Module):
    """A map with attributes of many kinds."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.factor = 2.0
        self.shift = torch.ones(3, 3)
        self.register_buffer("mask", torch.ones(3, 3))

    def forward(self, X: Tensor) -> Tensor:
        result = X * self.factor * self.mask + self.shift
        return -result if self.training else result


def change_a_number(stretched: Stretched) -> None:
    stretched.factor = stretched.factor + 1


def change_a_tensor(stretched: Stretched) -> None:
    stretched.shift = stretched.shift + 1


def change_a_buffer(stretched: Stretched) -> None:
    stretched.mask = stretched.mask + 1


def write_to_a_buffer(stretched: Stretched) -> None:
    stretched.mask.add_(1)


def switch_training(stretched: Stretched) -> None:
    stretched.train(not stretched.training)


@pytest.mark.parametrize(
    "change",
    [change_a_number, change_a_tensor, change_a_buffer, write_to_a_buffer, switch_training],
    ids=lambda f: f.__name__,
)
def test_a_changed_map_is_seen(change: Callable[[Stretched], None]) -> None:
    def run_thrice(compiles: bool) -> list[Any]:
        torch.manual_seed(0)
        stretched = Stretched()
        layer = linear(stretched)

        def run(x: Tensor) -> list[Tensor]:
            first = layer(x)
            change(stretched)
            return [first, layer(x)]

        function = Graphs().compile(run) if compiles else run
        with P.cached(layer):
            assert layer.weight is not None
            return [function(INPUT) for _ in range(3)]

    torch.testing.assert_close(run_thrice(True), run_thrice(False))


def test_functional_call_in_the_compiled_code_gets_what_it_gives(
    graphs: Graphs, layer: nn.Linear
) -> None:
    def run(given: Tensor, x: Tensor) -> Any:
        lent = {"parametrizations.weight.original": given}
        return torch.func.functional_call(layer, lent, (x,)) - layer(x)

    given = torch.zeros(3, 3, requires_grad=True)
    compiled = graphs.compile(run)
    for scope in (nullcontext(), P.cached(layer)):
        with scope:
            for _ in range(2):
                expected, output = run(given, INPUT), compiled(given, INPUT)
                torch.testing.assert_close(output, expected)
    wanted = torch.autograd.grad(run(given, INPUT).sum(), (given, original_of(layer)))
    with P.cached(layer):
        found = torch.autograd.grad(compiled(given, INPUT).sum(), (given, original_of(layer)))
    torch.testing.assert_close(found, wanted)


def test_functional_call_of_compiled_code_gets_what_it_gives(
    graphs: Graphs, layer: nn.Linear
) -> None:
    compiled = graphs.compile(layer)
    given = torch.zeros(3, 3)
    with P.cached(layer):
        for _ in range(2):
            for name, module in (("_orig_mod.", compiled), ("", layer)):
                lent = {f"{name}parametrizations.weight.original": given}
                output = torch.func.functional_call(module, lent, (INPUT,))
                torch.testing.assert_close(output, 3 + layer.bias.expand(2, 3))
            torch.testing.assert_close(compiled(INPUT), layer(INPUT))


def test_transforms_in_the_compiled_code_evaluate_in_the_graph(
    graphs: Graphs, layer: nn.Linear
) -> None:
    def run(x: Tensor) -> tuple[Any, Any]:
        gradient = torch.func.grad(lambda v: layer(v).sum())(x)
        return torch.func.vmap(lambda v: layer(v))(x), gradient

    compiled, expected = graphs.compile(run), run(INPUT)
    with P.cached(layer):
        for _ in range(2):
            torch.testing.assert_close(compiled(INPUT), expected)
    assert graphs.evaluations == [2]


def test_a_map_that_two_tensors_share_moves_as_in_eager_code() -> None:
    def train(compiles: bool) -> Any:
        torch.manual_seed(0)
        first = linear(SpectralNorm())
        model = nn.Sequential(first, P.transfer_parametrizations_and_params(first, nn.Linear(3, 3)))
        function = Graphs("aot_eager").compile(model) if compiles else model
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with P.cached(model):
            for _ in range(3):
                optimizer.zero_grad()
                function(INPUT).square().sum().backward()
                optimizer.step()
        return model.state_dict()

    torch.testing.assert_close(train(True), train(False))


@pytest.mark.parametrize("parametrization", [nn.Identity(), nn.Flatten(0), nn.Unflatten(0, (3, 1))])
def test_a_value_may_share_memory_with_its_original(parametrization: nn.Module) -> None:
    module = nn.Linear(3, 3)
    P.register_parametrization(module, "weight", parametrization, unsafe=True)

    def run(x: Tensor) -> Tensor:
        result: Tensor = x.sum() * module.weight.square().sum() + original_of(module).sum()
        return result

    compiled = Graphs("aot_eager").compile(run)
    with P.cached(module):
        for _ in range(3):
            expected, output = run(INPUT), compiled(INPUT)
            torch.testing.assert_close(output, expected)
            torch.testing.assert_close(
                torch.autograd.grad(output, original_of(module)),
                torch.autograd.grad(run(INPUT), original_of(module)),
            )
            train_step(module)


def test_conversions_and_freezing_compile_for_the_new_kind(layer: nn.Linear) -> None:
    graphs = Graphs("aot_eager")
    compiled = graphs.compile(layer)
    with P.cached(layer):
        assert_same(layer, compiled, INPUT)
        layer.double()
        assert_same(layer, compiled, INPUT.double())
        layer.float()
        original_of(layer).requires_grad_(False)
        torch.testing.assert_close(compiled(INPUT), layer(INPUT))
        original_of(layer).requires_grad_(True)
        assert_same(layer, compiled, INPUT)
    assert graphs.evaluations == [0, 0, 0]


def test_what_cannot_be_kept_is_evaluated_in_the_graph(graphs: Graphs) -> None:
    with torch.inference_mode():
        layer = linear(Exp())
        compiled = graphs.compile(layer)
        with P.cached(layer) as scope:
            for _ in range(3):
                torch.testing.assert_close(compiled(INPUT), layer(INPUT))
            assert len(scope) == 0
    assert graphs.evaluations == [1]


@pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace")  # torch 2.10 to 2.12
def test_a_map_that_raises_says_so_itself_and_recovers(graphs: Graphs) -> None:
    class Moody(Exp):
        def __init__(self) -> None:
            super().__init__()
            self.is_angry = False

        def forward(self, X: Tensor) -> Tensor:
            if self.is_angry:
                raise ValueError("not today")
            return super().forward(X)

    moody = Moody()
    layer = linear(moody)
    compiled: Any = torch.compile(layer, backend=graphs)
    with P.cached(layer):
        torch.testing.assert_close(compiled(INPUT), layer(INPUT))
        moody.is_angry = True
        with pytest.raises(ValueError, match="not today"):
            compiled(INPUT)
        moody.is_angry = False
        torch.testing.assert_close(compiled(INPUT), layer(INPUT))
    with P.cached(layer) as scope:
        torch.testing.assert_close(compiled(INPUT), compiled(INPUT))
    assert scope.misses == 1


def test_a_map_that_raises_without_a_scope_says_so_itself() -> None:
    class Refusing(nn.Module):
        def forward(self, X: Tensor) -> Tensor:
            if X.shape == (3, 3) and self.training:
                raise ValueError("not in training")
            return X

    layer = P.register_parametrization(nn.Linear(3, 3).eval(), "weight", Refusing())
    compiled: Any = torch.compile(layer, backend="eager")
    compiled(INPUT)
    with pytest.raises(ValueError, match="not in training"):
        compiled.train()(INPUT)


# which scope


def test_the_outermost_scope_keeps_the_values(graphs: Graphs) -> None:
    model = nn.Sequential(linear(Exp()), linear(Exp()))
    compiled = graphs.compile(model)
    with P.cached(model) as outer:
        compiled(INPUT)
        with P.cached() as inner, P.cached(model):
            compiled(INPUT)
        compiled(INPUT)
    assert graphs.evaluations == [0]
    assert (outer.misses, inner.misses, inner.hits) == (2, 0, 0)


def test_a_scope_of_one_part_evaluates_the_rest_in_the_graph(graphs: Graphs) -> None:
    model = nn.Sequential(linear(Exp()), linear(Exp()))
    compiled = graphs.compile(model)
    with P.cached(model[0]) as scope:
        for _ in range(3):
            torch.testing.assert_close(compiled(INPUT), model(INPUT))
    assert graphs.evaluations == [1]
    assert scope.misses == 1


def test_ever_other_scopes_do_not_use_up_what_torch_compiles(graphs: Graphs) -> None:
    model = nn.Sequential(*(linear(Exp()) for _ in range(4)))
    compiled = graphs.compile(model)
    for n in range(5):
        for parts in itertools.combinations(model, n):
            with P.cached(parts):
                torch.testing.assert_close(compiled(INPUT), model(INPUT))
    compiled(INPUT)
    assert len(graphs.evaluations) < 8


def test_an_eager_scope_is_outside_of_those_in_the_compiled_code(
    graphs: Graphs, layer: nn.Linear
) -> None:
    def run(x: Tensor) -> Any:
        with P.cached(layer):
            y = layer(layer(x))
        return layer(y)

    compiled = graphs.compile(run)
    for scope in (nullcontext(), P.cached(layer), P.cached([])):
        with scope:
            for _ in range(2):
                torch.testing.assert_close(compiled(INPUT / 9), run(INPUT / 9))
    assert graphs.evaluations == [2, 0, 2]


def test_each_thread_has_its_own_scopes(graphs: Graphs, layer: nn.Linear) -> None:
    compiled = graphs.compile(layer)
    expected = compiled(INPUT)
    with P.cached(layer):
        compiled(INPUT)
    start = threading.Barrier(3)

    def work(_: int) -> list[int]:
        start.wait()
        misses = []
        for _ in range(3):
            with P.cached(layer) as scope:
                for _ in range(10):
                    torch.testing.assert_close(compiled(INPUT), expected)
            misses.append(scope.misses)
            torch.testing.assert_close(compiled(INPUT), expected)
        return misses

    # threads that call code with two graphs make torch compile more of them now and then, for
    # plain modules too: it does not lock the list that it searches
    with torch._dynamo.config.patch(recompile_limit=64), ThreadPoolExecutor(3) as pool:
        for misses in pool.map(work, range(3)):
            assert max(misses) <= 1


def test_each_task_has_its_own_scopes(graphs: Graphs, layer: nn.Linear) -> None:
    compiled, expected = graphs.compile(layer), layer(INPUT)

    async def work(scope: Any) -> int:
        with scope as opened:
            for _ in range(5):
                torch.testing.assert_close(compiled(INPUT), expected)
                await asyncio.sleep(0)
        return 0 if opened is None else int(opened.misses)

    async def work_together() -> list[int]:
        scopes = P.cached(layer), nullcontext(), P.cached(layer)
        return await asyncio.gather(*map(work, scopes))

    assert asyncio.run(work_together()) == [1, 0, 1]


def test_a_scope_that_another_thread_ends_is_over_here_too(layer: nn.Linear) -> None:
    scope = P.cached(layer)
    # in a context of its own, which still lists the scope when the other thread has ended it
    contextvars.copy_context().run(scope.__enter__)
    assert TRACED.opened.any
    thread = threading.Thread(target=scope.__exit__)
    thread.start()
    thread.join()
    assert not TRACED.opened.any


# what is left behind


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


# backward passes by other means


@pytest.mark.parametrize("scope", [nullcontext, P.cached])
@pytest.mark.parametrize("is_inside", [False, True])
def test_compiled_autograd_gives_the_same_gradients(
    scope: Callable[[], AbstractContextManager[Any]], is_inside: bool, layer: nn.Linear
) -> None:
    compiled = Graphs("aot_eager").compile(layer)
    found = []
    for engine in (nullcontext(), compiled_autograd._enable(Graphs("aot_eager").compile)):
        layer.zero_grad()
        losses = []
        with engine:
            with scope() as opened:
                for _ in range(3):
                    losses.append((compiled(INPUT) + layer(INPUT)).sum())
                    if is_inside:
                        losses.pop().backward()
            torch.autograd.backward(losses) if losses else None
        found.append([p.grad for p in layer.parameters()])
        if opened is not None:
            assert opened.misses == (3 if is_inside else 1)
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("compiled_part", ["the region", "in the region"])
@pytest.mark.parametrize("is_inside", [False, True])
def test_checkpoints_give_the_same_gradients(
    reentrant: bool, compiled_part: str, is_inside: bool, layer: nn.Linear
) -> None:
    if compiled_part == "the region":
        run = torch.compile(
            lambda x: checkpoint(layer, x, use_reentrant=reentrant),
            backend="aot_eager",
            fullgraph=not reentrant,
        )
    else:
        part = torch.compile(layer, backend="aot_eager", fullgraph=True)

        def run(x: Tensor) -> Any:
            return checkpoint(part, x, use_reentrant=reentrant)

    inputs = INPUT.clone().requires_grad_()
    expected = torch.autograd.grad((2 * layer(inputs)).sum(), (inputs, *layer.parameters()))
    for _ in range(2):
        layer.zero_grad()
        inputs.grad = None
        with P.cached(layer):
            loss = (run(inputs) + run(inputs)).sum()
            if is_inside:
                loss.backward()
        if not is_inside:
            loss.backward()
        found = tuple(p.grad for p in (inputs, *layer.parameters()))
        torch.testing.assert_close(found, expected)


# changes of a module inside of compiled code


def register(module: nn.Linear) -> None:
    P.register_parametrization(module, "weight", Double())


def register_another(module: nn.Linear) -> None:
    P.register_parametrization(module, "bias", Double())


def remove(module: nn.Linear) -> None:
    P.remove_parametrizations(module, "weight")


def remove_to_the_original(module: nn.Linear) -> None:
    P.remove_parametrizations(module, "weight", leave_parametrized=False)


def assign(module: nn.Linear) -> None:
    module.weight = module.weight.detach() + 1


@pytest.mark.parametrize("where", ["before", "after", "both"])
@pytest.mark.parametrize("scope", [nullcontext, P.cached])
@pytest.mark.parametrize(
    "change",
    [register, register_another, remove, remove_to_the_original, assign],
    ids=lambda f: f.__name__,
)
def test_a_change_in_compiled_code_is_left_to_python(
    change: Callable[[nn.Linear], None],
    scope: Callable[[], AbstractContextManager[Any]],
    where: str,
) -> None:
    """The module is called before the change, after it, or both."""

    def make() -> nn.Linear:
        torch.manual_seed(0)
        return nn.Linear(3, 3) if change is register else linear()

    def run(module: nn.Linear, x: Tensor) -> Tensor:
        y: Tensor = module(x) if where != "after" else x
        change(module)
        return module(y) if where != "before" else y

    compiled: Any = torch.compile(run, backend="eager")
    with scope():
        expected_module, module = make(), make()
        torch.testing.assert_close(compiled(module, INPUT), run(expected_module, INPUT))
        torch.testing.assert_close(compiled(make(), INPUT), run(make(), INPUT))
        torch.testing.assert_close(module(INPUT), expected_module(INPUT))
    torch.testing.assert_close(module.state_dict(), expected_module.state_dict())
    assert type(module) is nn.Linear


@pytest.mark.parametrize("change", [register, remove, assign], ids=lambda f: f.__name__)
def test_a_change_in_one_graph_is_refused_with_a_reason(
    change: Callable[[nn.Linear], None], graphs: Graphs
) -> None:
    module = nn.Linear(3, 3) if change is register else linear()
    names = list(module.state_dict())
    with pytest.raises(Unsupported, match="paramdesc leaves changes of a module to Python"):
        graphs.compile(lambda x: change(module))(INPUT)
    assert list(module.state_dict()) == names


def test_a_transfer_in_compiled_code_is_left_to_python(layer: nn.Linear) -> None:
    def run(module: nn.Linear, x: Tensor) -> Tensor:
        P.transfer_parametrizations_and_params(layer, module)
        result: Tensor = module(x)
        return result

    module = nn.Linear(3, 3)
    output = torch.compile(run, backend="eager")(module, INPUT)
    assert original_of(module) is original_of(layer)
    torch.testing.assert_close(output, module(INPUT))


def test_questions_about_a_module_are_answered_in_the_graph(
    graphs: Graphs, layer: nn.Linear
) -> None:
    def run(x: Tensor) -> Tensor:
        if P.is_parametrized(layer, "weight") and not P.is_parametrized(layer, "bias"):
            return x + 1
        return x

    assert graphs.compile(run)(INPUT).sum() == 12


def test_a_change_between_the_calls_compiles_anew(graphs: Graphs) -> None:
    layer = linear(Exp())
    compiled = graphs.compile(layer)
    for change in (lambda _: None, register, register_another, remove):
        change(layer)
        for scope in (nullcontext(), P.cached(layer)):
            with scope:
                assert_same(layer, compiled, INPUT)
    # one map more is no reason to compile for a scope anew: what is kept is an input
    assert graphs.evaluations == [1, 0, 1, 1, 0, 0, 0]
