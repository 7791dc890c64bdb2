"""`auto_cache(model)`: no scope to write, in inference and in training, off again without trace."""

from __future__ import annotations

import asyncio
import copy
import io
import pickle
import subprocess
import sys
import threading
import weakref
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import paramdesc as P
from paramdesc.cache.scopes import TRACED, active_scopes
from tests.cache.threads import TIMEOUT, in_threads
from tests.graphs.backend import READS_GRAD, Graphs
from tests.helpers import ROOT, Double, Exp, chain_of, linear, saved_and_loaded, train_step

INPUT = torch.linspace(-1, 1, 6).view(2, 3)


class Scripted(nn.Module):
    """exp of the original, in words that TorchScript knows."""

    def forward(self, X: Tensor) -> Tensor:
        return X.exp()


class Twice(nn.Module):
    """One layer, called twice; with a place for what is to happen between."""

    layer: Any

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x).tanh()
        self.pause()
        y: Tensor = self.layer(x)
        return y

    def pause(self) -> None:
        pass


class Failing(Twice):
    error: type[BaseException] | None = KeyError

    def pause(self) -> None:
        if self.error is not None:
            raise self.error


class Recursive(Twice):
    """Calls itself, to a depth."""

    depth = 0

    def pause(self) -> None:
        if self.depth < 3:
            self.depth += 1
            self(INPUT)


class Checkpointed(Twice):
    """Each use of the layer in a region that runs twice."""

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = checkpoint(self.layer, x, use_reentrant=False).tanh()
        return x


def twice(kind: type[Twice] = Twice) -> Any:
    """A model that is auto-cached, in training mode."""
    torch.manual_seed(0)
    model = kind(linear(Exp()))
    P.auto_cache(model)
    Exp.evaluations = 0
    return model


def plain(model: nn.Module) -> Any:
    """The same model without the setting."""
    twin = copy.deepcopy(model)
    P.auto_cache(twin, enabled=False)
    return twin


def original_of(model: Any) -> Any:
    return chain_of(model.layer).original


def gradients(model: nn.Module, output: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(output.square().sum(), list(model.parameters())))


def assert_same(model: Any, other: Callable[..., Tensor] | None = None) -> None:
    """Output and gradients of `other`, the model by default, are those without the setting."""
    twin = plain(model)
    expected = twin(INPUT)
    output = (model if other is None else other)(INPUT)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(gradients(model, output), gradients(twin, expected))


# inference


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_in_inference_a_value_is_evaluated_once(mode: Callable[[], Any]) -> None:
    model = twice().eval()
    with mode():
        expected = plain(model)(INPUT)
        Exp.evaluations = 0
        for _ in range(3):
            torch.testing.assert_close(model(INPUT), expected)
        assert model.layer.weight is model.layer.weight
    assert Exp.evaluations == 1


def test_what_is_frozen_is_evaluated_once_in_any_mode() -> None:
    model = twice().eval().requires_grad_(False)
    for _ in range(3):
        model(INPUT)
    assert Exp.evaluations == 1


def test_the_scope_tells_of_the_model() -> None:
    model, other = twice().eval(), twice().eval()
    scope = P.auto_cache(model)
    assert (scope.hits, scope.misses, len(scope)) == (0, 0, 0)
    with torch.no_grad():
        model(INPUT)
        other(INPUT)
    assert (scope.hits, scope.misses, len(scope)) == (1, 1, 1)
    assert chain_of(model.layer) in scope
    assert chain_of(other.layer) not in scope


CHANGES: dict[str, Callable[[Any], object]] = {
    "in-place write": lambda m: original_of(m).add_(1),
    "assignment": lambda m: setattr(m.layer, "weight", torch.full((3, 3), 2.0)),
    "new original": lambda m: setattr(
        chain_of(m.layer), "original", nn.Parameter(torch.ones(3, 3))
    ),
    "load_state_dict": lambda m: m.load_state_dict({k: v + 1 for k, v in m.state_dict().items()}),
    "load_state_dict with assign": lambda m: m.load_state_dict(
        {k: v + 1 for k, v in m.state_dict().items()}, assign=True
    ),
    "double": lambda m: m.double(),
    "requires_grad_": lambda m: m.requires_grad_(False),
    "train": lambda m: m.train(),
    "nn.init": lambda m: nn.init.constant_(m.layer.weight, 4.0),
    "another map": lambda m: P.register_parametrization(m.layer, "weight", torch.sin),
}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_noticed_without_any_scope(name: str, mode: Callable[[], Any]) -> None:
    model = twice().eval()
    with mode():
        before = model.layer.weight
        assert model.layer.weight is before
    with torch.no_grad():
        CHANGES[name](model)
    with mode():
        assert model.layer.weight is not before
        torch.testing.assert_close(model.layer.weight, chain_of(model.layer)(), rtol=0, atol=0)


def test_a_model_that_trains_and_predicts_in_turn_predicts_with_what_it_learned() -> None:
    model = twice()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model.train()(INPUT).square().sum().backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            torch.testing.assert_close(model(INPUT), plain(model)(INPUT), rtol=0, atol=0)


def test_in_inference_threads_share_one_evaluation() -> None:
    model = twice().eval()
    second = threading.Event()
    entered: list[None] = []

    def wait_for_a_second_one(*_: Any) -> None:
        entered.append(None)
        if len(entered) > 1:
            second.set()
        second.wait(0.3)  # it never comes

    chain_of(model.layer)[0].register_forward_pre_hook(wait_for_a_second_one)

    @torch.no_grad()
    def predict() -> Any:
        model(INPUT)
        return model.layer.weight

    first, *others = in_threads(predict)
    assert all(value is first for value in others)
    assert not second.is_set()


def test_in_training_each_thread_has_its_own_passes() -> None:
    model = twice()
    twin = plain(model)
    expected = gradients(twin, twin(INPUT))
    results = in_threads(lambda: gradients(model, model(INPUT)))
    for result in results:
        torch.testing.assert_close(result, expected)


@pytest.fixture
def many_switches() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("many_switches")
def test_models_may_come_and_go_in_one_thread_while_another_trains() -> None:
    models = [twice() for _ in range(200)]
    for model in models:
        model(INPUT)
    scope, ended = P.auto_cache(models[0]), threading.Event()

    def make_others() -> None:
        try:
            for _ in range(300):
                twice()(INPUT)
        finally:
            ended.set()

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(make_others)
        while not ended.is_set():
            models[0](INPUT)
            assert len(scope.report()) == 1
        future.result(TIMEOUT)


def test_in_inference_tasks_share_one_evaluation() -> None:
    model = twice().eval()
    values: list[Any] = []

    async def predict() -> None:
        for _ in range(3):
            model(INPUT)
            values.append(model.layer.weight)
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(predict() for _ in range(20)))

    with torch.no_grad():
        asyncio.run(main())
    assert all(value is values[0] for value in values)
    assert Exp.evaluations == 1


# training


@pytest.mark.parametrize("training", [True, False])
def test_with_gradients_each_forward_pass_evaluates_once(training: bool) -> None:
    model = twice().train(training)
    outputs = [model(INPUT) for _ in range(3)]
    assert Exp.evaluations == 3
    assert all(output.requires_grad for output in outputs)
    model.layer(INPUT)  # a call of a part is no forward pass
    assert Exp.evaluations == 4


def test_training_mode_without_gradients_evaluates_once_in_a_pass() -> None:
    model = twice()
    with torch.no_grad():
        for _ in range(3):
            model(INPUT)
    assert Exp.evaluations == 3


def test_gradients_are_those_without_the_setting() -> None:
    assert_same(twice())
    assert_same(twice().eval())


def test_two_forward_passes_and_then_two_backward_passes() -> None:
    model = twice()
    twin = plain(model)
    for each in (model, twin):
        outputs = [each(INPUT), each(INPUT + 1)]
        for output in reversed(outputs):
            output.square().sum().backward()
    for ours, expected in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad)


def test_a_backward_pass_inside_of_the_forward_pass() -> None:
    class Inner(Twice):
        def forward(self, x: Tensor) -> Tensor:
            first: Tensor = self.layer(x)
            torch.autograd.backward(first.square().sum())
            y: Tensor = self.layer(x)
            return y

    model = twice(Inner)
    expected = plain(model)
    model(INPUT).square().sum().backward()
    expected(INPUT).square().sum().backward()
    torch.testing.assert_close(original_of(model).grad, original_of(expected).grad)


def test_a_recursive_model_evaluates_once_in_its_outermost_call() -> None:
    model = twice(Recursive)
    output = model(INPUT)
    assert Exp.evaluations == 1
    twin = plain(twice())
    torch.testing.assert_close(gradients(model, output), gradients(twin, twin(INPUT)))


def test_parts_that_have_the_setting_too_share_the_pass_of_the_whole() -> None:
    model = twice()
    P.auto_cache(model.layer)
    model(INPUT)
    assert Exp.evaluations == 1
    model.layer(INPUT)
    assert Exp.evaluations == 2
    P.auto_cache(model, enabled=False)
    model(INPUT)
    assert Exp.evaluations == 4


def test_a_scope_around_the_calls_takes_the_values() -> None:
    model = twice()
    with P.cached():
        model(INPUT)
        model(INPUT)
    assert Exp.evaluations == 1


def test_deferred_gradients_around_the_calls_are_right() -> None:
    model = twice()
    twin = plain(model)
    with P.cached(deferred=True):
        for k in range(3):
            model(INPUT + k).sum().backward()
    assert Exp.evaluations == 1
    for k in range(3):
        twin(INPUT + k).sum().backward()
    torch.testing.assert_close(original_of(model).grad, original_of(twin).grad)


# errors


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


# lifetime


class Remembering(Twice):
    """Refers to the value that it used last."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self.seen: list[Any] = []

    def pause(self) -> None:
        self.seen[:] = [weakref.ref(self.layer.weight)]

    def is_alive(self) -> bool:
        return self.seen[0]() is not None


@pytest.mark.usefixtures("no_collector")
def test_after_a_pass_without_a_graph_the_value_is_gone() -> None:
    model = twice(Remembering)
    with torch.no_grad():
        model(INPUT)
    assert not model.is_alive()


@pytest.mark.usefixtures("no_collector")
def test_the_graph_holds_the_memory_until_the_backward_pass() -> None:
    memory: list[Any] = []

    class Watching(Twice):
        def pause(self) -> None:
            memory[:] = [weakref.ref(self.layer.weight.untyped_storage())]

    model = twice(Watching)
    loss = model(INPUT).sum()
    assert active_scopes() == ()
    assert memory[0]() is not None
    loss.backward()
    del loss
    assert memory[0]() is None
    assert len(P.auto_cache(model)) == 0


@pytest.mark.usefixtures("no_collector")
def test_an_outdated_value_is_freed_before_the_next_one_is_made() -> None:
    model = twice().eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with torch.no_grad():
        value = weakref.ref(model.layer.weight)
    model(INPUT).sum().backward()
    optimizer.step()
    alive: list[bool] = []
    handle = chain_of(model.layer)[0].register_forward_pre_hook(
        lambda *_: alive.append(value() is not None)
    )
    with torch.no_grad():
        model(INPUT)
    handle.remove()
    assert alive == [False]


@pytest.mark.usefixtures("no_collector")
def test_a_model_that_is_deleted_takes_its_values_along() -> None:
    model = twice().eval()
    with torch.no_grad():
        value = weakref.ref(model.layer.weight)
    module, chain = weakref.ref(model), weakref.ref(chain_of(model.layer))
    del model
    assert [reference() for reference in (module, chain, value)] == [None, None, None]


# on and off


def state_of(model: nn.Module) -> dict[str, Any]:
    """The attributes of all modules, those that are collections by their items."""
    return {
        name: {
            key: (list(value.items()) if isinstance(value, dict) else value)
            for key, value in vars(module).items()
        }
        for name, module in model.named_modules()
    }


def test_off_again_leaves_no_trace() -> None:
    model = nn.Sequential(Twice(linear(Exp())), nn.ReLU())
    model.register_forward_hook(print_nothing)
    model.register_forward_pre_hook(print_nothing, prepend=True)
    before, text = state_of(model), repr(model)
    scope = P.auto_cache(model)
    assert state_of(model) != before
    model.train()(INPUT)
    with torch.no_grad():
        model.eval()(INPUT)
    assert len(scope) == 1
    model.train()
    P.auto_cache(model, enabled=False)
    assert state_of(model) == before
    assert repr(model) == text
    assert len(scope) == 0


def print_nothing(*_: Any) -> None:
    pass


def test_on_or_off_twice_is_as_once() -> None:
    model = Twice(linear(Exp()))
    before = state_of(model)
    P.auto_cache(model)
    once = state_of(model)
    P.auto_cache(model)
    assert state_of(model) == once
    Exp.evaluations = 0
    for _ in range(2):
        P.auto_cache(model, enabled=False)
        assert state_of(model) == before
        model(INPUT)
    assert Exp.evaluations == 4


def test_a_model_without_parametrizations_is_left_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    before = state_of(model)
    assert len(P.auto_cache(model)) == 0
    assert state_of(model) == before


def test_of_a_part_the_rest_is_left_as_it_is() -> None:
    model = nn.Sequential(Twice(linear(Exp())), Twice(linear(Exp()))).eval()
    before = state_of(model[1])
    Exp.evaluations = 0
    P.auto_cache(model[0])
    assert state_of(model[1]) == before
    with torch.no_grad():
        model(INPUT)
        model(INPUT)
    assert Exp.evaluations == 1 + 4
    P.auto_cache(model, enabled=False)
    with torch.no_grad():
        model(INPUT)
    assert Exp.evaluations == 5 + 4


def test_what_is_parametrized_later_needs_another_call() -> None:
    model = twice().eval()
    P.remove_parametrizations(model.layer, "weight")
    model(INPUT)
    P.register_parametrization(model.layer, "weight", Exp())
    with torch.no_grad():
        assert model.layer.weight is not model.layer.weight
        P.auto_cache(model)
        assert model.layer.weight is model.layer.weight
    P.auto_cache(model, enabled=False)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("wrong", [None, 3, "model", [nn.Linear(2, 2)], nn.Linear])
def test_what_is_no_module_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"takes an eager module\. Got .*Pass the model\."):
        P.auto_cache(wrong)


@pytest.mark.filterwarnings("ignore:.torch.jit")  # its end is announced, in a class that changes
def test_a_scripted_program_is_refused_with_what_to_write() -> None:
    program: Any = torch.jit.script(linear())
    with pytest.raises(TypeError, match=r"with cached\(program\):"):
        P.auto_cache(program)
    with torch.no_grad(), P.cached(program):
        program(INPUT)


# copies


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": saved_and_loaded,
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_has_the_setting_and_values_of_its_own(name: str) -> None:
    model = twice().eval()
    with torch.no_grad():
        kept = model.layer.weight
        twin = COPIES[name](model)
        assert len(P.auto_cache(twin)) == 0
        Exp.evaluations = 0
        assert twin.layer.weight is not kept
        assert twin.layer.weight is twin.layer.weight
        twin(INPUT)
        assert Exp.evaluations == 1
        original_of(twin).add_(1)
        assert model.layer.weight is kept
        torch.testing.assert_close(twin.layer.weight, kept * torch.e)
    twin.train()(INPUT)
    assert Exp.evaluations == 3
    assert_same(twin)


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_can_be_switched_off_on_its_own(name: str) -> None:
    model = twice().eval()
    twin = COPIES[name](model)
    P.auto_cache(twin, enabled=False)
    with torch.no_grad():
        assert twin.layer.weight is not twin.layer.weight
        assert model.layer.weight is model.layer.weight


def test_a_shallow_copy_shares_the_values() -> None:
    model = twice().eval()
    twin = copy.copy(model)
    with torch.no_grad():
        assert twin.layer.weight is model.layer.weight
        twin(INPUT)
    twin.train()(INPUT)
    assert active_scopes() == ()
    assert Exp.evaluations == 2


def tensors_in_file(model: nn.Module) -> list[int]:
    """The sizes of the tensors in what `torch.save` writes."""
    file = io.BytesIO()
    torch.save(model, file)
    with zipfile.ZipFile(file) as archive:
        return sorted(entry.file_size for entry in archive.infolist() if "/data/" in entry.filename)


def test_no_value_is_saved() -> None:
    model = twice().eval()
    before = pickle.dumps(model)
    with torch.no_grad():
        model(INPUT)
    assert len(P.auto_cache(model)) == 1
    assert pickle.dumps(model) == before
    sizes = sorted(tensor.nbytes for tensor in model.state_dict().values())
    assert tensors_in_file(model) == sizes


def test_the_state_dict_is_that_without_the_setting() -> None:
    model = twice().eval()
    twin = plain(model)
    with torch.no_grad():
        model(INPUT)
    assert list(model.state_dict()) == list(twin.state_dict())
    assert model.state_dict()._metadata == twin.state_dict()._metadata
    twin.load_state_dict(model.state_dict())
    model.load_state_dict(twin.state_dict())


IN_A_FRESH_PROCESS = """
import sys, torch
sys.path.append(sys.argv[2])
model, inputs, outputs = torch.load(sys.argv[1], weights_only=False)
calls, evaluations = [], []
for _ in range(3):  # torch numbers the hooks of a process from zero
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    model.register_forward_hook(lambda *_: calls.append(2))
layer = model[0]
layer.parametrizations.weight[0].register_forward_hook(lambda *_: evaluations.append(1))
with torch.no_grad():
    for _ in range(4):
        assert model(inputs).equal(outputs)
assert len(evaluations) == 1, evaluations
model.train()(inputs).sum().backward()
assert len(evaluations) == 2, evaluations
assert calls == [1, 1, 1, 2, 2, 2] * 5
print("as before")
"""


def test_the_setting_works_in_a_fresh_process(tmp_path: Path) -> None:
    shared = linear(Double())
    model = nn.Sequential(shared, nn.Tanh(), shared).eval()
    P.auto_cache(model)
    with torch.no_grad():
        torch.save((model, INPUT, model(INPUT)), tmp_path / "model.pt")
    command = [sys.executable, "-c", IN_A_FRESH_PROCESS, str(tmp_path / "model.pt"), str(ROOT)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=TIMEOUT
    )
    assert done.stdout == "as before\n", done.stderr


def replicate(module: nn.Module) -> Any:
    """What nn.DataParallel makes of `module` for a device: tensors in the place of parameters."""
    replica: Any = module._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
    for name, child in module._modules.items():
        replica._modules[name] = None if child is None else replicate(child)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            setattr(replica, name, parameter.view_as(parameter))
    for name, buffer in module._buffers.items():
        replica._buffers[name] = buffer
    return replica


@pytest.mark.parametrize("training", [True, False])
def test_replicas_of_data_parallel_keep_nothing_and_are_right(training: bool) -> None:
    model = twice().train(training)
    twin = plain(model)
    expected = gradients(twin, twin(INPUT))
    for _ in range(2):
        replica = replicate(model)
        output = replica(INPUT)
        assert active_scopes() == ()
        torch.testing.assert_close(gradients(model, output), expected)
    with torch.no_grad():
        model.eval()
        train_step(model.layer)
        replica = replicate(model)
        torch.testing.assert_close(replica(INPUT), plain(model)(INPUT))
        assert replica.layer.weight is not replica.layer.weight


# compiled, traced, exported


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


# checkpoints


def test_checkpoints_inside_of_the_model() -> None:
    model = twice(Checkpointed)
    assert_same(model)
    for _ in range(2):
        assert_same(model.eval())


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_a_checkpoint_around_the_model(use_reentrant: bool) -> None:
    model = twice()
    twin = plain(model)
    inputs = INPUT.clone().requires_grad_()
    for each in (model, twin):
        for _ in range(2):
            checkpoint(each, inputs, use_reentrant=use_reentrant).square().sum().backward()
    for ours, expected in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gradients", [True, False])
def test_nn_init_takes_effect(training: bool, gradients: bool) -> None:
    layer = linear(Double())
    P.auto_cache(layer.train(training))
    with torch.set_grad_enabled(gradients):
        nn.init.constant_(layer.weight, 3.0)
        assert torch.equal(layer.weight, torch.full((3, 3), 3.0))


@pytest.mark.parametrize("is_written", [True, False])
def test_a_read_with_gradients_frees_an_outdated_value_and_keeps_a_current_one(
    is_written: bool,
) -> None:
    layer = linear(Double()).eval()
    told = P.auto_cache(layer)
    with torch.no_grad():
        value = weakref.ref(layer.weight)
        if is_written:
            layer.get_parameter("parametrizations.weight.original").add_(1)
    assert layer.weight.requires_grad
    assert (value() is None) == is_written
    assert len(told) == (0 if is_written else 1)
