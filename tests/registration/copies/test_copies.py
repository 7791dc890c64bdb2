"""Copies of every kind are whole, and independent of what they were made from."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

import paramdesc
from paramdesc.parametrizations import SpectralNorm
from tests.helpers import (
    ROOT,
    Double,
    Shift,
    chain_of,
    linear,
    predict_in_child,
    saved_and_loaded,
    train_step,
)
from tests.registration.copies.models import INPUTS, MODELS, change, tensors


def test_copy_gives_the_same_outputs(model: nn.Module, make_copy: Callable[[Any], Any]) -> None:
    twin = make_copy(model)
    assert type(twin) is type(model)
    assert twin(INPUTS).equal(model(INPUTS))
    assert list(twin.state_dict()) == list(model.state_dict())
    assert (
        paramdesc.get_parametrizations(twin).names()
        == paramdesc.get_parametrizations(model).names()
    )


def test_copy_and_original_do_not_move_one_another(
    model: nn.Module, make_copy: Callable[[Any], Any]
) -> None:
    before = model(INPUTS)
    twin = make_copy(model)
    change(twin)
    assert model(INPUTS).equal(before)
    assert not twin(INPUTS).equal(before)
    assert not {id(tensor) for tensor in tensors(twin)} & {id(tensor) for tensor in tensors(model)}


def test_copy_made_in_a_scope_has_values_of_its_own_there(
    model: nn.Module, make_copy: Callable[[Any], Any]
) -> None:
    with paramdesc.cached():
        before = model(INPUTS)
        twin = make_copy(model)
        assert twin(INPUTS).equal(before)
        change(twin)
        assert not twin(INPUTS).equal(before)
        assert model(INPUTS).equal(before)


def test_copy_after_backward_inside_and_outside_a_scope(make_copy: Callable[[Any], Any]) -> None:
    layer = linear(Shift())
    layer(INPUTS).sum().backward()
    assert make_copy(layer).weight.equal(layer.weight)
    with paramdesc.cached():
        layer(INPUTS).sum().backward()
        assert make_copy(layer).weight.equal(layer.weight)


def test_copy_can_be_registered_on_and_removed_from(make_copy: Callable[[Any], Any]) -> None:
    layer = linear()
    twin = make_copy(layer)
    paramdesc.register_parametrization(twin, "bias", Double())
    paramdesc.remove_parametrizations(twin, "weight")
    assert isinstance(layer.bias, nn.Parameter)
    assert paramdesc.is_parametrized(layer, "weight")
    assert isinstance(twin.weight, nn.Parameter)
    assert paramdesc.is_parametrized(twin, "bias")


def test_shared_modules_and_originals_stay_shared(make_copy: Callable[[Any], Any]) -> None:
    layer, other = linear(Shift()), nn.Linear(3, 3)
    paramdesc.transfer_parametrizations_and_params(layer, other)
    first, again, third = make_copy(nn.ModuleList([layer, layer, other]))
    assert first is again
    assert chain_of(first).original is chain_of(third).original
    assert chain_of(first)[0] is chain_of(third)[0]
    change(chain_of(first)[0])
    assert third.weight.equal(first.weight)


def test_optimizer_of_the_first_does_not_move_the_copy() -> None:
    layer = linear()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    twin = copy.deepcopy(layer)
    layer(INPUTS).sum().backward()
    optimizer.step()
    assert not layer.weight.equal(twin.weight)


class CopiesItself(nn.Linear):
    """Has a `__deepcopy__` of its own, as classes that hold unpicklable things have."""

    def __deepcopy__(self, memo: dict[int, Any]) -> CopiesItself:
        twin = self.__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin


@pytest.mark.parametrize("in_scope", [False, True])
def test_deepcopy_through_a_deepcopy_of_the_class(in_scope: bool) -> None:
    layer = paramdesc.register_parametrization(CopiesItself(3, 3), "weight", Shift())
    with paramdesc.cached() if in_scope else torch.enable_grad():
        before = layer.weight
        twin = copy.deepcopy(layer)
        change(twin)
        assert layer.weight.equal(before)
        torch.testing.assert_close(twin.weight, before + 2)


# copy.copy


def test_shallow_copy_reads_the_same_originals() -> None:
    layer = linear()
    twin = copy.copy(layer)
    assert type(twin) is nn.Linear
    assert chain_of(twin).original is chain_of(layer).original
    train_step(layer)
    assert twin.weight.equal(layer.weight)


def test_shallow_copy_made_before_registration_stays_a_module_torch_understands() -> None:
    layer = nn.Linear(3, 3)
    twin = copy.copy(layer)
    paramdesc.register_parametrization(layer, "weight", Double())
    assert isinstance(layer.weight, Tensor)
    assert all(isinstance(buffer, Tensor) for buffer in twin.buffers())
    assert twin.state_dict()


IN_A_FRESH_PROCESS = """
import sys, torch
sys.path.append(sys.argv[2])
for model, inputs, outputs in torch.load(sys.argv[1], weights_only=False):
    assert model(inputs).equal(outputs), model
    model(inputs).sum().backward()
print("all the same")
"""


def test_whole_models_load_in_a_fresh_process(tmp_path: Path) -> None:
    models = [(model, INPUTS, model(INPUTS).detach()) for model in (f() for f in MODELS.values())]
    torch.save(models, tmp_path / "models.pt")
    command = [sys.executable, "-c", IN_A_FRESH_PROCESS, str(tmp_path / "models.pt"), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout == "all the same\n", done.stderr


def test_spawned_process_takes_a_model_as_its_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    layer = linear(Shift())
    answers: Any = torch.zeros(4, 3)
    answers.share_memory_()
    spawn(predict_in_child, args=(layer, INPUTS, answers))  # type: ignore[no-untyped-call]
    assert answers.equal(layer(INPUTS))


def test_shared_memory_holds_the_originals() -> None:
    layer = linear(Shift())
    before = layer.weight
    layer.share_memory()
    assert all(tensor.is_shared() for tensor in tensors(layer))  # type: ignore[no-untyped-call]
    assert layer.weight.equal(before)


@pytest.mark.parametrize("copied", [copy.deepcopy, saved_and_loaded])
def test_a_step_that_no_evaluation_has_followed_is_followed_by_the_copy(copied: Any) -> None:
    layer = linear(SpectralNorm())
    layer(INPUTS)
    train_step(layer)
    twin = copied(layer)
    assert twin.weight.equal(layer.weight)
    state = chain_of(twin)[0]._u.clone()
    assert twin.weight.equal(layer.weight)
    assert chain_of(twin)[0]._u.equal(state)
