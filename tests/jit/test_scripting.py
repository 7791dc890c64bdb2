"""Scripted programs: the same numbers, the same tensors, and an untouched model.

Without postponed annotations: TorchScript takes those of a class as they are.
"""

import copy
import pickle
import threading
from typing import Any

import pytest
import torch
from torch import nn

import paramdesc as P
from paramdesc import get_parametrizations
from paramdesc.parametrizations import SpectralNorm
from tests.helpers import linear
from tests.jit.models import DEPRECATED, MODELS, X, assert_alike, saved_and_loaded, train

pytestmark = DEPRECATED


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[request.param]()


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
