"""Scripted programs: the same numbers, the same tensors, a cache, and an untouched model.

Without postponed annotations: TorchScript takes those of a class as they are.
"""

import copy
import io
import linecache
import pickle
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import paramdesc
import paramdesc as P
from paramdesc import cached, get_parametrizations
from paramdesc import cached as once
from paramdesc.errors import ScriptedScopeError, ScriptingError
from paramdesc.parametrizations import SpectralNorm, Symmetric
from tests.helpers import Double, Shift, Sum, chain_of, linear

pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit"  # torch announces the end of TorchScript
)

X = torch.linspace(-1, 1, 6).reshape(2, 3)


class Counted(nn.Module):
    """`3 X`; counts its evaluations, in TorchScript too."""

    calls: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, X: Tensor) -> Tensor:
        self.calls += 1
        return 3 * X


class Blocks(nn.Module):
    """Parametrized layers in every kind of container, one of them in two places."""

    def __init__(self) -> None:
        super().__init__()
        shared = linear()
        self.first = shared
        self.sequence = nn.Sequential(linear(Sum()), nn.Tanh(), nn.Sequential(linear(Shift())))
        self.several = nn.ModuleList([linear(Symmetric()), nn.Identity(), shared])
        self.named = nn.ModuleDict({"a": linear(SpectralNorm()), "b": nn.Linear(3, 3)})

    def forward(self, x: Tensor) -> Tensor:
        x = self.sequence(self.first(x))
        for block in self.several:
            x = block(x)
        for block in self.named.values():
            x = block(x)
        return x


class Scaled(nn.Module):
    """A parametrized buffer, a chain of three maps, and methods that are exported."""

    scale: torch.Tensor
    weight: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor([1.0, 2.0, 3.0]))
        self.weight = nn.Parameter(torch.eye(3))
        P.register_parametrization(self, "scale", Double())
        for parametrization in (Double(), Shift(), Symmetric()):
            P.register_parametrization(self, "weight", parametrization)

    def forward(self, x: Tensor) -> Tensor:
        return self.scaled(x @ self.weight)

    @torch.jit.export
    def scaled(self, x: Tensor) -> Tensor:
        return x * self.scale


class Recurrent(nn.Module):
    """One of torch's recurrent networks, which TorchScript takes only inside of a module."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        new: Any = kind
        self.network = new(3, 4, num_layers=2, bidirectional=True)
        for name in ("weight_hh_l0", "weight_ih_l1_reverse", "bias_hh_l0"):
            P.register_parametrization(self.network, name, Double())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.network(x.unsqueeze(0))[0]
        return y


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1)
        P.register_parametrization(self.attention, "in_proj_weight", Double())
        P.register_parametrization(self.attention.out_proj, "weight", Symmetric())

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(1)
        y: Tensor = self.attention(x, x, x)[0]
        return y


class Images(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = P.register_parametrization(nn.Conv1d(2, 2, 2), "weight", SpectralNorm())
        self.embedding = P.register_parametrization(nn.Embedding(4, 2), "weight", Double())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convolution(x.unsqueeze(0))
        z: Tensor = self.embedding(torch.tensor([1, 3]))
        return y + z.sum()


class Functions(nn.Module):
    """Plain functions as maps, one of torch's and one of two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.one = P.register_parametrization(nn.Linear(3, 3), "weight", torch.neg)
        self.two = P.register_parametrization(
            nn.Linear(3, 3), "weight", add, unsafe=True, right_inverse=halves
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.two(self.one(x))
        return y


def add(A: Tensor, B: Tensor) -> Tensor:
    return A + B


def halves(Y: Tensor) -> tuple[Tensor, Tensor]:
    return Y / 2, Y / 2


def nested() -> nn.Module:
    """An original that is parametrized itself, by a map with a parametrized layer in it."""
    layer = linear()
    P.register_parametrization(chain_of(layer), "original", Inner())
    P.register_parametrization(layer, "weight", Shift())
    return layer


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = linear(Symmetric())

    def forward(self, X: Tensor) -> Tensor:
        return X @ self.layer.weight


MODELS: dict[str, Callable[[], nn.Module]] = {
    "root": linear,
    "several originals": lambda: linear(Sum()),
    "containers": Blocks,
    "buffer and exported": Scaled,
    "RNN": lambda: Recurrent(nn.RNN),
    "LSTM": lambda: Recurrent(nn.LSTM),
    "GRU": lambda: Recurrent(nn.GRU),
    "attention": Attention,
    "convolution and embedding": Images,
    "functions": Functions,
    "nested": nested,
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[request.param]()


@pytest.fixture(params=[torch.jit.script, P.jit.script], ids=["torch", "paramdesc"])
def script(request: pytest.FixtureRequest) -> Any:
    return request.param


def saved_and_loaded(program: Any) -> Any:
    file = io.BytesIO()
    torch.jit.save(program, file)
    file.seek(0)
    return torch.jit.load(file)  # type: ignore[no-untyped-call]


def gradients(module: Any) -> dict[str, Tensor | None]:
    module.zero_grad()
    module(X).square().sum().backward()
    return {name: p.grad for name, p in module.named_parameters()}


def assert_alike(program: Any, model: nn.Module) -> None:
    """The same outputs and the same gradients, under the same names."""
    torch.testing.assert_close(program(X), model(X))
    found, expected = copy.deepcopy(gradients(program)), gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)


def train(*modules: Any) -> None:
    """The same step for each."""
    for module in modules:
        gradients(module)
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.grad is not None:
                    parameter.add_(parameter.grad, alpha=-0.01)


def test_a_program_gives_the_same_numbers_and_trains_the_same_tensors(
    model: nn.Module, script: Any
) -> None:
    program = script(model)
    assert_alike(program, model)
    memory = [(name, p.data_ptr()) for name, p in model.named_parameters()]
    assert [(name, p.data_ptr()) for name, p in program.named_parameters()] == memory
    assert list(program.state_dict()) == list(model.state_dict())
    train(program)
    # in training mode each of the two would take the step for its own, and move the state
    torch.testing.assert_close(program.eval()(X), model.eval()(X))


def test_a_loaded_program_gives_the_same_numbers_and_trains_on(model: nn.Module) -> None:
    program = saved_and_loaded(P.jit.script(model))
    twin = copy.deepcopy(model)
    for _ in range(3):
        assert_alike(program, twin)
        train(program, twin)
    torch.testing.assert_close(program(X), twin(X))


def test_a_frozen_program_has_its_weights_as_constants(model: nn.Module) -> None:
    model.eval()
    program = P.jit.script(model)
    frozen = torch.jit.freeze(saved_and_loaded(program))
    torch.testing.assert_close(frozen(X), model(X))
    if not any(isinstance(m, (SpectralNorm, nn.MultiheadAttention)) for m in model.modules()):
        assert "prim::GetAttr" not in str(frozen.graph)  # torch's pass stops at written buffers
    fast = torch.jit.optimize_for_inference(saved_and_loaded(program))
    torch.testing.assert_close(fast(X), model(X))


def test_the_model_stays_as_it_was(model: nn.Module, script: Any) -> None:
    modules = list(model.modules())
    types = [type(module) for module in modules]
    state = [{name: id(value) for name, value in vars(module).items()} for module in modules]
    values = {name: x.clone() for name, x in model.state_dict().items()}
    for _ in range(2):
        program = script(model)
    assert all(module is other for module, other in zip(modules, model.modules(), strict=True))
    assert [type(module) for module in model.modules()] == types
    for module, before in zip(modules, state, strict=True):
        assert {name: id(vars(module).get(name)) for name in before} == before
    torch.testing.assert_close(model.state_dict(), values, rtol=0, atol=0)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(X), program(X))
    with P.cached(model) as scope:
        model(X), model(X)
        assert scope.hits > 0
    expected = model(X)
    for module in list(model.modules()):
        for name in list(getattr(module, "parametrizations", ())):
            P.remove_parametrizations(module, name)
    assert not get_parametrizations(model)
    torch.testing.assert_close(model(X), expected)


def test_torch_compiles_other_models_as_before(script: Any) -> None:
    before = torch.jit._recursive.create_script_module
    script(linear())
    assert torch.jit._recursive.create_script_module is before
    plain = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    torch.testing.assert_close(script(plain)(X), plain(X))


def test_a_failure_between_the_two_steps_of_torch_leaves_its_next_call_right() -> None:
    class Refuses(nn.Module):
        def __prepare_scriptable__(self) -> nn.Module:
            raise OSError("refused")

    before = torch.jit._recursive.create_script_module
    with pytest.raises(OSError, match="refused"):
        torch.jit.script(nn.Sequential(linear(), Refuses()))
    plain = nn.Linear(3, 3)
    torch.testing.assert_close(torch.jit.script(plain)(X), plain(X))
    assert torch.jit._recursive.create_script_module is before


def test_threads_script_at_the_same_time() -> None:
    models = [nn.Sequential(linear(), nn.ReLU()) for _ in range(4)]
    programs: dict[int, Any] = {}
    start = threading.Barrier(len(models))

    def run(i: int) -> None:
        start.wait()
        programs[i] = torch.jit.script(models[i])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, model in enumerate(models):
        torch.testing.assert_close(programs[i](X), model(X))


def test_layers_of_one_form_share_one_type() -> None:
    program: Any = P.jit.script(nn.Sequential(*(linear() for _ in range(3))))
    types = {str(child._c._type()) for child in program.children()}
    assert len(types) == 1


# what cannot be scripted


class Exotic(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X * next(len(c) for c in globals())


def test_an_error_names_the_map_the_tensor_and_the_line(script: Any) -> None:
    layer = linear()
    P.register_parametrization(layer, "weight", Exotic())
    model = nn.Sequential(nn.ReLU(), layer)
    for _ in range(2):
        with pytest.raises(ScriptingError, match="map 1, Exotic, of '1.weight'") as caught:
            script(model)
        assert "for c in globals()" in str(caught.value)
        assert "torch.export" in str(caught.value)
    assert model[1] is layer
    assert model(X).shape == X.shape


def test_an_error_in_a_module_that_is_shared_is_told_alike() -> None:
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", Exotic())
    with pytest.raises(ScriptingError, match="map 0, Exotic, of '0.weight'"):
        P.jit.script(nn.Sequential(layer, layer))


class Halved(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, X: Tensor) -> Tensor:
        Y: Tensor = self.inner(X) / 2
        return Y

    def right_inverse(self, Y: Tensor) -> Tensor:
        return 2 * Y


def test_a_state_in_a_map_inside_of_another_follows_the_steps() -> None:
    torch.manual_seed(0)
    layer: Any = linear(Halved(SpectralNorm()))
    twin = copy.deepcopy(layer)
    program: Any = P.jit.script(twin)
    for _ in range(3):
        for module in (layer, program):
            with torch.no_grad():
                module.parametrizations.weight.original.add_(torch.eye(3), alpha=0.3)
        for _ in range(2):
            torch.testing.assert_close(program(X), layer(X))
    torch.testing.assert_close(twin.state_dict(), layer.state_dict())


def test_a_state_that_cannot_be_scripted_is_told_of_its_map() -> None:
    class Kept(P.Parametrization):
        warm_start = ("last",)

        def guess(self, X: Tensor) -> tuple[Tensor, ...]:
            return (X.clone(),)

        def refine(self, X: Tensor, last: Tensor) -> tuple[Tensor, ...]:  # of any length
            return (X + last,)

        def forward(self, X: Tensor) -> Tensor:
            self.follow(X)
            return X

    with pytest.raises(ScriptingError, match="map 0, Kept, of 'weight'"):
        P.jit.script(linear(Kept()))


def test_an_error_elsewhere_is_torchs_own(script: Any) -> None:
    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear()

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + globals()["nothing"]  # type: ignore[no-any-return]

    with pytest.raises(Exception, match="globals") as caught:
        script(Wrong())
    assert not isinstance(caught.value, ScriptingError)


# the cache of programs


def calls(program: Any, name: str = "weight") -> int:
    """How often the maps were evaluated so far."""
    return sum(int(b) for path, b in program.named_buffers() if path.endswith(f"{name}.0.calls"))


@pytest.fixture(params=["scripted", "loaded"])
def program(request: pytest.FixtureRequest) -> Any:
    """Two layers, of which the first is called twice."""
    first, second = linear(Counted()), linear(Counted())
    program = P.jit.script(nn.Sequential(first, second, first))
    return program if request.param == "scripted" else saved_and_loaded(program)


def evaluations(program: Any, run: Callable[[], object]) -> int:
    before = calls(program)
    run()
    return calls(program) - before


def test_a_program_evaluates_at_each_read_without_a_scope(program: Any) -> None:
    assert evaluations(program, lambda: program(X)) == 3


def test_a_scope_evaluates_each_tensor_once(program: Any) -> None:
    def run() -> None:
        with P.cached(program):
            for _ in range(3):
                program(X)

    expected = program(X)
    assert evaluations(program, run) == 2
    assert evaluations(program, run) == 2  # nothing is left of the first scope
    with P.cached(program):
        torch.testing.assert_close(program(X), expected)


def test_a_set_is_a_target_and_so_is_a_part_of_it(program: Any) -> None:
    found = get_parametrizations(program)
    assert found.names() == ["0.weight", "1.weight"]

    def run(targets: Any) -> Callable[[], None]:
        def calls_twice() -> None:
            with P.cached(targets):
                program(X), program(X)

        return calls_twice

    assert evaluations(program, run(found)) == 2
    assert evaluations(program, run(found.filter(path="0"))) == 1 + 2
    assert evaluations(program, run(found - found.filter(path="0"))) == 4 + 1
    assert evaluations(program, run(next(iter(found)))) == 1 + 2
    assert evaluations(program, run([])) == 6
    assert len(found.filter(map_type=Counted)) == 2
    assert len(found.filter(map_type=Double)) == 0


def test_a_value_belongs_to_the_outermost_scope(program: Any) -> None:
    found = get_parametrizations(program)

    def run() -> None:
        with P.cached(found.filter(path="0")):
            with P.cached(program):
                program(X)
            program(X)  # the second layer was covered by the inner scope only

    assert evaluations(program, run) == 1 + 2


def test_an_exception_ends_the_scope(program: Any) -> None:
    def fails() -> None:
        with P.cached(program):
            program(X)
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert evaluations(program, lambda: program(X)) == 3
    assert all(not chain.is_kept for chain in get_parametrizations(program))


def test_a_kept_value_is_never_stale(program: Any) -> None:
    original = next(p for name, p in program.named_parameters() if name.endswith("original"))

    def changed(change: Callable[[], object]) -> int:
        with P.cached(program):
            program(X)
            change()
            count = evaluations(program, lambda: program(X))
            torch.testing.assert_close(
                getattr(program, "0").parametrizations.weight(), 3 * original
            )
        return count

    def step() -> None:
        with torch.no_grad():
            original.add_(1)

    def swap() -> None:
        original.data = original.detach() + 1

    assert changed(lambda: None) == 0
    assert changed(step) == 1
    assert changed(swap) == 1
    assert changed(lambda: original.requires_grad_(False)) == 1
    original.requires_grad_(True)
    assert changed(lambda: program.load_state_dict(program.state_dict())) == 2
    assert changed(lambda: program.train(not program.training)) == 2
    assert changed(lambda: program(X).sum().backward()) == 2


def test_a_kept_value_knows_its_mode(program: Any) -> None:
    def count(mode: Any) -> int:
        with mode:
            return evaluations(program, lambda: program(X))

    for _ in range(3):  # TorchScript optimizes from the second call on
        with P.cached(program):
            with torch.no_grad():
                program(X)
                assert count(torch.no_grad()) == 0
            assert count(torch.enable_grad()) == 2
            program(X).sum().backward()
            assert count(torch.enable_grad()) == 2
            assert count(torch.inference_mode()) == 2
            assert count(torch.inference_mode()) == 0
            assert count(torch.no_grad()) == 2


def test_a_value_of_low_precision_stays_under_its_autocast() -> None:
    class Product(Counted):
        def forward(self, X: Tensor) -> Tensor:
            self.calls += 1
            return X @ X

    program: Any = P.jit.script(linear(Product()))
    chain: Any = next(iter(get_parametrizations(program)))

    def dtype_and_count(mode: Any) -> tuple[torch.dtype, int]:
        before = calls(program)
        with mode:
            dtype = chain().dtype
        return dtype, calls(program) - before

    for _ in range(3):
        with P.cached(program):
            assert dtype_and_count(torch.autocast("cpu", torch.bfloat16)) == (torch.bfloat16, 1)
            assert dtype_and_count(torch.autocast("cpu", torch.bfloat16)) == (torch.bfloat16, 0)
            assert dtype_and_count(torch.autocast("cpu", torch.float16)) == (torch.float16, 1)
            assert dtype_and_count(torch.enable_grad()) == (torch.float32, 1)
            assert dtype_and_count(torch.enable_grad()) == (torch.float32, 0)


def test_gradients_through_a_kept_value_are_right(program: Any) -> None:
    expected = copy.deepcopy(gradients(program))
    program.zero_grad()
    with P.cached(program):
        (program(X).square().sum() / 2 + program(X).square().sum() / 2).backward()
    torch.testing.assert_close({n: p.grad for n, p in program.named_parameters()}, expected)
    program.zero_grad()
    with P.cached(program):
        for _ in range(2):  # a second backward pass does not go through the graph of the first
            (program(X).square().sum() / 2).backward()
    torch.testing.assert_close({n: p.grad for n, p in program.named_parameters()}, expected)


def test_a_scope_frees_its_values_and_its_hooks(program: Any) -> None:
    with P.cached(program):
        program(X)
        chain: Any = next(iter(get_parametrizations(program)))
        assert chain.is_kept
    assert not chain.is_kept
    assert chain.kept.numel() == 0
    assert chain.scopes == 0
    assert not any(parameter._backward_hooks for parameter in program.parameters())


# scopes in methods that are scripted


class Loop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = P.register_parametrization(nn.RNNCell(3, 3), "weight_hh", Counted())
        self.out = linear(Counted())


class CoversSelf(Loop):
    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros_like(x)
        with cached(self):
            for _ in range(4):
                state = self.out(self.cell(x, state))
        return state


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


# torch.jit.trace


def test_a_trace_evaluates_once_in_a_scope_and_keeps_nothing() -> None:
    layer = linear(Counted())
    model = nn.Sequential(layer, layer)
    with P.cached(model):
        before = layer.weight
        with torch.no_grad():  # torch.jit.trace runs the model again to check
            traced = torch.jit.trace(model, X, check_trace=True)  # type: ignore[no-untyped-call]
            module = torch.jit.trace_module(model, {"forward": X})  # type: ignore[no-untyped-call]
        for program in (traced, module):
            assert str(program.inlined_graph).count("aten::mul") == 1
        assert type(layer.weight) is Tensor
        torch.testing.assert_close(layer.weight, before)
    with torch.no_grad():
        chain_of(layer).original.add_(1)
    for program in (traced, module):
        torch.testing.assert_close(program(X), model(X))
        program(X).sum().backward()
    assert chain_of(layer).original.grad is not None


# what users' classes do


class Noisy(nn.Module):
    """Draws random numbers, and writes to a buffer."""

    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, X: Tensor) -> Tensor:
        self.count += 1
        return X + torch.rand_like(X)


def test_scripting_evaluates_nothing_in_python(script: Any) -> None:
    parametrization = Noisy()
    layer = linear(parametrization)
    P.register_parametrization(chain_of(layer), "original", Noisy())
    before, state = parametrization.count.clone(), torch.random.get_rng_state()
    script(layer)
    assert parametrization.count == before
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_is_saved_or_copied_in_a_scope_is_in_none(program: Any) -> None:
    with P.cached(program):
        with torch.no_grad():
            program(X)
        copies = [saved_and_loaded(program), copy.deepcopy(program)]
        for other in copies:
            assert evaluations(other, lambda other=other: other(X)) == 3  # type: ignore[misc]
            for _ in range(2):
                other(X).sum().backward()
        assert evaluations(program, lambda: program(X)) == 2  # with gradients
    for other in copies:
        with P.cached(other):
            other(X)
            assert evaluations(other, lambda other=other: other(X)) == 0  # type: ignore[misc]
        assert evaluations(other, lambda other=other: other(X)) == 3  # type: ignore[misc]


class Registered(nn.Module):
    """Knows its subclasses, and wants a word from each."""

    known: ClassVar[dict[str, type]] = {}

    def __init_subclass__(cls, word: str, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Registered.known[word] = cls


class Once(Registered, word="once"):
    def __init__(self) -> None:
        super().__init__()
        self.layer = linear()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y


def test_a_class_that_knows_its_subclasses_hears_of_no_twin(script: Any) -> None:
    model = Once()
    torch.testing.assert_close(script(model)(X), model(X))
    assert Registered.known == {"once": Once}


class NotCompiled(Loop):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(x)
        return y

    def fit(self, x: Tensor) -> None:
        for layer in (self.out, self.cell):
            with cached(layer):
                layer(x)


def test_a_method_that_is_not_compiled_may_open_any_scope(script: Any) -> None:
    model = NotCompiled()
    torch.testing.assert_close(script(model)(X), model(X))


class DecoratedAndMore(Loop):
    @torch.jit.export
    @cached()
    def twice(self, x: Tensor) -> Tensor:
        with (
            cached(self.cell),
            (  # a comment: with a colon
                P.cached(self.out)
            ),
        ):  # and: another
            x = self.out(self.out(x))
        with cached([]):
            return x

    def forward(self, x: Tensor) -> Tensor:
        return self.twice(x)


def test_a_decorated_method_is_exported_and_may_open_scopes_too() -> None:
    model = DecoratedAndMore()
    program: Any = P.jit.script(model)
    expected = model(X)
    before = calls(program)  # a buffer that the two share
    torch.testing.assert_close(program.twice(X), expected)
    assert calls(program) - before == 1


class Summed(P.Parametrization):
    """A warm start, and parameters in a list."""

    warm_start = ("last",)
    last: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.terms = nn.ParameterList([torch.ones(3, 3), torch.zeros(3, 3)])

    def guess(self, X: Tensor) -> tuple[Tensor]:
        return (X.clone(),)

    def refine(self, X: Tensor, last: Tensor) -> tuple[Tensor]:
        return (last + 1,)

    def forward(self, X: Tensor) -> Tensor:
        self.follow(X)
        for term in self.terms:
            X = X + term
        return X + self.last.clone()


def test_parameters_in_a_list_are_scripted_and_watched() -> None:
    layer = linear(Summed())
    program: Any = P.jit.script(copy.deepcopy(layer))
    for _ in range(3):
        torch.testing.assert_close(program(X), layer(X))
        train(program, layer)
    with P.cached(program):
        before = program(X)
        with torch.no_grad():
            next(p for name, p in program.named_parameters() if "terms" in name).add_(1)
        assert not torch.allclose(program(X), before)


def test_the_children_of_a_program_are_what_torch_gives(script: Any) -> None:
    plain = nn.Sequential(nn.Linear(3, 3))
    assert torch.jit.script(plain)[0] is plain[0]
    model = nn.Sequential(linear())
    assert script(model)[0] is model[0]


def test_a_text_is_found_after_all_texts_were_forgotten() -> None:
    for _ in range(2):
        P.jit.script(CoversSelf())
        linecache.clearcache()


def test_asking_by_hand_is_refused() -> None:
    with pytest.raises(TypeError, match=r"paramdesc\.jit\.script"):
        linear().__prepare_scriptable__()  # type: ignore[operator]
