"""`torch.func` on parametrized modules: lent tensors, ensembles, derivatives."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jacrev, jvp, stack_module_state, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils import stateless

import paramdesc as P
from paramdesc.parametrizations import SpectralNorm, Symmetric
from paramdesc.registration.namespace import namespace_of
from tests.helpers import Double, Shift, Sum, chain_of, linear

ORIGINAL = "parametrizations.weight.original"
FORWARD_MODE = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own
INPUT = torch.tensor([[1.0, -2.0, 0.5]])


class Counting(nn.Module):
    """Has no `right_inverse`."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, X: Tensor) -> Tensor:
        self.calls += 1
        return X.exp()


class Failing(nn.Module):
    """Cannot be evaluated once it is broken."""

    broken = False

    def forward(self, X: Tensor) -> Tensor:
        if self.broken:
            raise ArithmeticError("broken")
        return X


def final(value: float = 2.0, n: int = 3) -> Tensor:
    return torch.full((n, n), value, requires_grad=True)


def call(
    layer: nn.Module, given: Mapping[str, Tensor], x: Tensor = INPUT, **options: Any
) -> Tensor:
    y: Tensor = functional_call(layer, given, (x,), **options)  # type: ignore[arg-type]
    return y


@pytest.fixture
def layer() -> Iterator[nn.Linear]:
    """A layer of which a test must leave everything as it is."""
    layer = linear(Counting())
    chain = chain_of(layer)
    (attribute,) = namespace_of(layer).attributes()
    original, before = chain.original, chain.original.detach().clone()
    version, calls = original._version, chain[0].calls
    yield layer
    assert list(namespace_of(layer).attributes()) == [attribute]
    assert dict(layer.named_buffers()) == {}
    assert chain_of(layer) is chain
    assert chain.original is original
    assert original._version == version
    torch.testing.assert_close(original.detach(), before, rtol=0, atol=0)
    assert chain[0].calls >= calls
    torch.testing.assert_close(layer.weight, before.exp())


# the final name: what is given is the weight


def test_a_tensor_given_by_the_final_name_is_the_weight(layer: nn.Linear) -> None:
    calls, W = chain_of(layer)[0].calls, final()
    y = call(layer, {"weight": W, "bias": torch.zeros(3)})
    torch.testing.assert_close(y, INPUT @ W.T)
    assert chain_of(layer)[0].calls == calls  # nothing was evaluated
    (gradient,) = torch.autograd.grad(y.sum(), W)
    torch.testing.assert_close(gradient, INPUT.expand(3, 3))


def test_given_tensors_are_handed_back_in_the_dict(layer: nn.Linear) -> None:
    W = final()
    given = {"weight": W}
    call(layer, given)
    assert given["weight"] is W


def test_the_module_is_as_before_when_the_call_raises(layer: nn.Linear) -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        call(layer, {"weight": torch.ones(5, 5)})
    with pytest.raises(TypeError, match="is not an instance of torch.Tensor"):
        call(layer, {"weight": 3})  # type: ignore[dict-item]
    with pytest.raises(AttributeError, match="missing"):
        call(layer, {"weight": final(), "missing.name": final()})


def test_the_map_need_not_be_able_to_run() -> None:
    layer = linear(Failing())
    chain_of(layer)[0].broken = True
    W = final()
    torch.testing.assert_close(call(layer, {"weight": W, "bias": torch.zeros(3)}), INPUT @ W.T)
    with pytest.raises(ArithmeticError):
        call(layer, {"bias": torch.zeros(3)})


def test_names_below_the_root(layer: nn.Linear) -> None:
    last = linear()
    model = nn.Sequential(nn.Sequential(layer), nn.Tanh(), last)
    given = {"0.0.weight": final(), "2.weight": final(3.0)}
    y = call(model, given)
    hidden = (INPUT @ given["0.0.weight"].T + layer.bias).tanh()
    torch.testing.assert_close(y, hidden @ given["2.weight"].T + last.bias)
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(y.sum(), list(given.values())))


def test_a_parametrized_buffer() -> None:
    layer = nn.BatchNorm1d(3).eval()
    P.register_parametrization(layer, "running_var", torch.exp)
    original = {"parametrizations.running_var.original": torch.zeros(3)}
    expected = call(copy.deepcopy(layer), original)
    torch.testing.assert_close(call(layer, {"running_var": torch.ones(3)}), expected)
    torch.testing.assert_close(layer.running_var, torch.ones(3).exp())


@pytest.mark.parametrize("tie_weights", [True, False])
def test_a_module_that_is_used_twice(tie_weights: bool, layer: nn.Linear) -> None:
    model, W = nn.Sequential(layer, layer), final()
    y = call(model, {"1.weight": W}, tie_weights=tie_weights)
    torch.testing.assert_close(y, (INPUT @ W.T + layer.bias) @ W.T + layer.bias)
    for other in (W, final(3.0), torch.ones(5, 5)):
        given = {"0.weight": W, "1.weight": other}
        with nullcontext() if other.numel() == 9 else pytest.raises(RuntimeError, match="shapes"):
            y = call(model, given, tie_weights=tie_weights)
            torch.testing.assert_close(y, (INPUT @ other.T + layer.bias) @ other.T + layer.bias)


def test_the_final_name_wins_over_an_original(layer: nn.Linear) -> None:
    W, original = final(), final()
    y = call(layer, {ORIGINAL: original, "weight": W, "bias": torch.zeros(3)})
    torch.testing.assert_close(y, INPUT @ W.T)
    found = torch.autograd.grad(y.sum(), [W, original], allow_unused=True)
    assert found[0] is not None
    assert found[1] is None


def test_strict_calls_know_the_names_of_the_state_dict_only(layer: nn.Linear) -> None:
    state = dict(layer.named_parameters())
    call(layer, state, strict=True)
    with pytest.raises(RuntimeError, match="Unexpected key.*'weight'"):
        call(layer, {**state, "weight": final()}, strict=True)
    with pytest.raises(RuntimeError, match="Missing key.*original"):
        call(layer, {"bias": torch.zeros(3)}, strict=True)


def test_a_call_in_a_call(layer: nn.Linear) -> None:
    inner, outer = final(3.0), final(2.0)

    def twice(x: Tensor) -> Tensor:
        return layer(call(layer, {"weight": inner}, layer(x)))  # type: ignore[no-any-return]

    model = Calls(layer, twice)
    y = call(model, {"layer.weight": outer})
    expected = INPUT
    for W in (outer, inner, outer):
        expected = expected @ W.T + layer.bias
    torch.testing.assert_close(y, expected)


class Calls(nn.Module):
    """Runs a function, and has a layer."""

    def __init__(self, layer: nn.Module, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = layer
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def test_lent_tensors_and_scopes_know_nothing_of_each_other(layer: nn.Linear) -> None:
    W = final()
    with P.cached() as scope:
        kept = layer.weight
        counts = scope.hits, scope.misses
        for _ in range(2):
            y = call(layer, {"weight": W, "bias": torch.zeros(3)})
            torch.testing.assert_close(y, INPUT @ W.T)
        assert (scope.hits, scope.misses) == counts
        assert layer.weight is kept
    with P.cached() as scope:
        call(layer, {"weight": W})
        assert (len(scope), scope.misses) == (0, 0)
        torch.testing.assert_close(layer.weight, chain_of(layer).original.exp())


def test_the_kept_value_itself_can_be_given(layer: nn.Linear) -> None:
    with P.cached():
        kept = layer.weight
        torch.testing.assert_close(call(layer, {"weight": kept}), layer(INPUT))
        assert layer.weight is kept


def test_a_scope_in_the_call(layer: nn.Linear) -> None:
    W = final()

    def scoped(x: Tensor) -> Tensor:
        with P.cached(layer):
            return layer(layer(x))  # type: ignore[no-any-return]

    y = call(Calls(layer, scoped), {"layer.weight": W})
    torch.testing.assert_close(y, (INPUT @ W.T + layer.bias) @ W.T + layer.bias)


def test_assigning_in_a_call_replaces_what_was_lent(layer: nn.Linear) -> None:
    W, other = final(), final(5.0).detach()

    def assigns(x: Tensor) -> Tensor:
        layer.weight = other
        return layer(x)  # type: ignore[no-any-return]

    given = {"layer.weight": W}
    y = call(Calls(layer, assigns), given)
    torch.testing.assert_close(y, INPUT @ other.T + layer.bias)
    assert given["layer.weight"] is other  # as torch hands back a buffer that the call replaced


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.stateless:FutureWarning")
def test_the_older_names_of_functional_call(layer: nn.Linear) -> None:
    W = final()
    y = stateless.functional_call(layer, {"weight": W}, INPUT)
    torch.testing.assert_close(y, INPUT @ W.T + layer.bias)
    with stateless._reparametrize_module(layer, {"weight": W}):
        assert layer.weight is W


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_modules(cell: type[Any]) -> None:
    module = P.register_parametrization(cell(3, 3), "weight_hh_l0", torch.exp)
    plain = cell(3, 3)
    W = torch.randn_like(module.weight_hh_l0).requires_grad_()
    state = {name: getattr(module, name).detach() for name, _ in plain.named_parameters()}
    steps = INPUT.repeat(4, 1)
    expected = functional_call(plain, {**state, "weight_hh_l0": W}, steps)[0]
    before = module(steps)[0]
    y = functional_call(module, {"weight_hh_l0": W}, steps)[0]
    torch.testing.assert_close(y, expected)
    (gradient,) = torch.autograd.grad(y.sum(), W)
    assert gradient.abs().sum() > 0
    torch.testing.assert_close(module(steps)[0], before)


@FORWARD_MODE
def test_derivatives_with_respect_to_the_final_weight(layer: nn.Linear) -> None:
    W = final().detach()
    plain = nn.Linear(3, 3)
    plain.load_state_dict({"weight": W, "bias": layer.bias.detach()})

    def loss_of(module: nn.Module) -> Callable[[Tensor], Tensor]:
        return lambda W: call(module, {"weight": W}).tanh().sum()

    ours, expected = loss_of(layer), loss_of(plain)
    with P.cached():
        assert layer.weight.requires_grad
        for transform in (grad, jacrev, hessian):
            torch.testing.assert_close(transform(ours)(W), transform(expected)(W))
        torch.testing.assert_close(jvp(ours, (W,), (W,)), jvp(expected, (W,), (W,)))
        batch = torch.stack([W, 2 * W])
        torch.testing.assert_close(vmap(ours)(batch), vmap(expected)(batch))
        graph: Any = make_fx(ours)(W)
        torch.testing.assert_close(graph(2 * W), expected(2 * W))
    assert not any("exp" in str(node.target) for node in graph.graph.nodes)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("is_scoped", [False, True])
def test_compiled_code_lends_too(backend: str, is_scoped: bool, layer: nn.Linear) -> None:
    def run(W: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return call(layer, {"weight": W}, x), layer(x)

    graphs: list[str] = []

    def compiler(graph: Any, inputs: Any) -> Any:
        graphs.append(graph.code)
        return torch._dynamo.lookup_backend(backend)(graph, inputs)

    torch.compiler.reset()
    compiled, W = torch.compile(run, backend=compiler, fullgraph=True), final()
    with P.cached(layer if is_scoped else []):
        found, expected = compiled(W, INPUT), run(W, INPUT)
        torch.testing.assert_close(found, expected)
        gradients = [torch.autograd.grad(y[0].sum(), W)[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients)
    assert sum(graph.count("exp(") for graph in graphs) <= 1  # for the second read only


@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects:UserWarning")
@pytest.mark.parametrize("strict", [False, True])
def test_exported_code_lends_too(strict: bool, layer: nn.Linear) -> None:
    class Hyper(nn.Module):
        """Makes the weight of a layer."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = layer
            self.make = nn.Linear(3, 9)

        def forward(self, x: Tensor) -> Tensor:
            return call(self.layer, {"weight": self.make(x).reshape(3, 3)}, x)

    model = Hyper()
    program = torch.export.export(model, (INPUT,), strict=strict)
    torch.testing.assert_close(program.module()(2 * INPUT), model(2 * INPUT))
    assert not any("exp" in str(node.target) for node in program.graph.nodes)


def test_other_functions_swap_as_before() -> None:
    layer, tensor = nn.Linear(2, 2), torch.ones(2, 2)
    torch.testing.assert_close(
        call(layer, {"weight": tensor}, torch.ones(1, 2)), 2 + layer.bias[None]
    )
    assert isinstance(layer.weight, nn.Parameter)


# the names of the originals


@pytest.mark.parametrize("is_scoped", [False, True])
@pytest.mark.parametrize(
    "maps", [[Double], [Symmetric, Shift], [Sum], [SpectralNorm], [Counting, SpectralNorm]]
)
def test_an_ensemble(maps: list[Callable[[], nn.Module]], is_scoped: bool) -> None:
    def make() -> nn.Sequential:
        layers = [nn.Linear(3, 3), nn.Linear(3, 3)]
        for layer in layers:
            for make_map in maps:
                P.register_parametrization(layer, "weight", make_map())
        return nn.Sequential(layers[0], nn.Tanh(), layers[1]).eval()

    models = [make() for _ in range(4)]
    expected = torch.stack([model(INPUT) for model in models])
    parameters, buffers = stack_module_state(models)
    base = copy.deepcopy(models[0]).to("meta")

    def run(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        y: Tensor = functional_call(base, (parameters, buffers), (x,))
        return y

    with P.cached() if is_scoped else P.cached([]):
        y = vmap(run, in_dims=(0, 0, None))(parameters, buffers, INPUT)
        torch.testing.assert_close(y, expected)
        again = vmap(run, in_dims=(0, 0, None))(parameters, buffers, 2 * INPUT)
    torch.testing.assert_close(again, torch.stack([model(2 * INPUT) for model in models]))
    name = "0.parametrizations.weight.original"
    leaf = parameters[name if name in parameters else f"{name}0"]
    (gradient,) = torch.autograd.grad(y.square().sum(), leaf)
    assert gradient.flatten(1).abs().sum(1).gt(0).all()


@FORWARD_MODE
@pytest.mark.parametrize("make_map", [Double, Symmetric, Sum, SpectralNorm])
def test_derivatives_with_respect_to_the_originals(make_map: Callable[[], nn.Module]) -> None:
    layer = linear(make_map()).eval()
    state = {name: p.detach() for name, p in layer.named_parameters()}
    buffers = dict(layer.named_buffers())
    samples = torch.arange(6.0).reshape(2, 3) / 4

    def loss(state: dict[str, Tensor], x: Tensor) -> Tensor:
        y: Tensor = functional_call(layer, (state, buffers), (x,)).tanh().sum()
        return y

    def direct(x: Tensor) -> dict[str, Tensor]:
        leaves = dict(layer.named_parameters())
        gradients = torch.autograd.grad(layer(x).tanh().sum(), list(leaves.values()))
        return dict(zip(leaves, gradients, strict=True))

    expected = [direct(x) for x in samples]
    with P.cached() as scope:
        kept = layer.weight
        for _ in range(2):
            per_sample = vmap(grad(loss), in_dims=(None, 0))(state, samples)
            for name, gradients in per_sample.items():
                torch.testing.assert_close(gradients, torch.stack([e[name] for e in expected]))
            torch.testing.assert_close(jacrev(loss)(state, samples[0]), expected[0])
            change = jvp(lambda state: loss(state, samples[0]), (state,), (state,))[1]
            inner = [(gradient * state[name]).sum() for name, gradient in expected[0].items()]
            torch.testing.assert_close(change, torch.stack(inner).sum())
            blocks = hessian(loss)(state, samples[0])
            torch.testing.assert_close(blocks["bias"]["bias"].mT, blocks["bias"]["bias"])
        torch.testing.assert_close(layer.weight, kept)
        assert [entry.value is layer.weight for entry in scope.entries.values()] == [True]


def test_torch_is_left_alone_until_something_is_parametrized() -> None:
    program = (
        "from torch.nn.utils import _named_member_accessor as torch_part\n"
        "before = torch_part.swap_tensor\n"
        "code = before.__code__\n"
        "import paramdesc, torch\n"
        "assert before.__code__ is code\n"
        "paramdesc.register_parametrization(torch.nn.Linear(1, 1), 'bias', torch.neg)\n"
        "assert before.__code__ is not code\n"
        "assert torch_part.swap_tensor is before\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
