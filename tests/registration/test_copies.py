"""Copies of every kind are whole, and independent of what they were made from."""

from __future__ import annotations

import copy
import importlib
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.utils import parametrizations as torch_maps
from torch.optim.swa_utils import AveragedModel

import paramdesc
from paramdesc.parametrizations import SpectralNorm, Symmetric
from tests.helpers import (
    ROOT,
    Double,
    Shift,
    Sum,
    chain_of,
    linear,
    predict_in_child,
    saved_and_loaded,
    torch_linear,
    train_step,
)
from tests.registration.models import nested


def on_buffer() -> nn.BatchNorm1d:
    return paramdesc.register_parametrization(nn.BatchNorm1d(3).eval(), "running_mean", Double())


def with_function() -> nn.Linear:
    return paramdesc.register_parametrization(
        nn.Linear(3, 3), "bias", torch.sinh, right_inverse=torch.asinh
    )


MODELS: dict[str, Callable[[], nn.Module]] = {
    "one original": linear,
    "map with a parameter": lambda: linear(Shift()),
    "several originals": lambda: linear(Sum()),
    "chain and nested": nested,
    "buffer": on_buffer,
    "function": with_function,
    "symmetric": lambda: linear(Symmetric()),
    "spectral norm": lambda: linear(SpectralNorm()),
    "inside a model": lambda: nn.Sequential(linear(), nn.ReLU(), nn.Sequential(linear(Sum()))),
}


def through_pickle(protocol: int) -> Callable[[Any], Any]:
    return lambda module: pickle.loads(pickle.dumps(module, protocol))


def through_cloudpickle(module: Any) -> Any:
    cloudpickle = pytest.importorskip("cloudpickle")
    return pickle.loads(cloudpickle.dumps(module))


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    **{f"pickle {i}": through_pickle(i) for i in range(2, pickle.HIGHEST_PROTOCOL + 1)},
    "torch.save": saved_and_loaded,
    "cloudpickle": through_cloudpickle,
}

INPUTS = torch.linspace(-1, 1, 12).view(4, 3)


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    return MODELS[request.param]()


@pytest.fixture(params=COPIES)
def make_copy(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    return COPIES[request.param]


def tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def change(module: nn.Module) -> None:
    with torch.no_grad():
        for tensor in tensors(module):
            tensor.add_(1)


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


# other processes

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


# state_dict

SAME_MAPS: list[type[nn.Module]] = [Double, Shift, Sum, Symmetric]


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("make_map", SAME_MAPS)
def test_checkpoints_go_both_ways_between_the_engines(
    make_map: type[nn.Module], assign: bool
) -> None:
    ours = linear(make_map())
    theirs = torch_linear(make_map())
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()), assign=assign)
    assert theirs.weight.equal(ours.weight)
    change(theirs)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()), assign=assign)
    assert ours.weight.equal(theirs.weight)


def test_checkpoint_of_torchs_spectral_norm_loads_into_ours() -> None:
    theirs: Any = torch_maps.spectral_norm(nn.Linear(3, 3)).eval()
    ours = linear(SpectralNorm()).eval()
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours.weight, theirs.weight)


@pytest.mark.parametrize("assign", [False, True])
def test_loading_in_a_scope_shows_at_once(assign: bool) -> None:
    ours, source = linear(Shift()), linear(Shift())
    with paramdesc.cached():
        assert not ours.weight.equal(source.weight)
        ours.load_state_dict(source.state_dict(), assign=assign)
        assert ours.weight.equal(source.weight)


def test_strict_false_tells_the_names_that_do_not_fit() -> None:
    plain, ours = nn.Linear(3, 3), linear()
    before = ours.weight
    told = ours.load_state_dict(plain.state_dict(), strict=False)
    assert told.missing_keys == ["parametrizations.weight.original"]
    assert told.unexpected_keys == ["weight"]
    assert ours.weight.equal(before)
    assert ours.bias.equal(plain.bias)


# averaging


@pytest.mark.parametrize("use_buffers", [False, True])
def test_averaged_model_averages_the_originals(use_buffers: bool) -> None:
    model = nn.Sequential(linear(), nn.BatchNorm1d(3))
    averaged: Any = AveragedModel(model, use_buffers=use_buffers)
    originals = []
    for _ in range(3):
        train_step(model[0])
        originals.append(chain_of(model[0]).original.detach().clone())
        averaged.update_parameters(model)
    torch.testing.assert_close(averaged.module[0].weight, 2 * torch.stack(originals).mean(0))
    assert not averaged.module[0].weight.equal(model[0].weight)


def test_averaged_model_evaluates_with_the_averages_in_a_scope() -> None:
    layer = linear()
    averaged = AveragedModel(layer, avg_fn=lambda mean, new, count: (mean + new) / 2)
    averaged.update_parameters(layer)
    with paramdesc.cached():
        before = averaged(INPUTS)
        train_step(layer)
        averaged.update_parameters(layer)
        assert not averaged(INPUTS).equal(before)
        assert not averaged(INPUTS).equal(layer(INPUTS))


# replicas


@pytest.fixture
def replicate(monkeypatch: pytest.MonkeyPatch) -> Callable[[nn.Module, int], list[Any]]:
    """`torch.nn.parallel.replicate` itself, with copies in the place of transfers."""
    module = importlib.import_module("torch.nn.parallel.replicate")

    def broadcast(tensors: Any, devices: Any, detach: bool = False) -> list[list[Tensor]]:
        if not detach:
            return [[x.clone() for x in tensors] for _ in devices]
        return [[x.detach() if device == 0 else x.clone() for x in tensors] for device in devices]

    monkeypatch.setattr(module, "_get_device_index", lambda device, optional: device)
    monkeypatch.setattr(module, "_broadcast_coalesced_reshape", broadcast)
    return lambda network, count: module.replicate(network, list(range(count)))


def test_replicas_give_the_same_outputs(model: nn.Module, replicate: Any) -> None:
    for replica in replicate(model, 2):
        assert type(replica) is type(model)
        assert replica(INPUTS).equal(model(INPUTS))


@pytest.mark.parametrize("in_scope", [False, True])
def test_each_replica_reads_its_own_originals(replicate: Any, in_scope: bool) -> None:
    model = nn.Sequential(linear(), nn.ReLU(), nested())
    with paramdesc.cached() if in_scope else torch.enable_grad():
        before = model(INPUTS)
        first, second = replicate(model, 2)
        assert first(INPUTS).equal(before)
        with torch.no_grad():
            chain_of(first[0]).original.add_(1)
            chain_of(first[2]).original1.add_(1)
        assert not first[0].weight.equal(model[0].weight)
        assert not first[2].weight.equal(model[2].weight)
        assert second(INPUTS).equal(before)
        assert model(INPUTS).equal(before)


def test_gradients_flow_from_the_replicas_to_the_model(replicate: Any) -> None:
    layer = linear(Shift())
    for replica in replicate(layer, 2):
        replica(INPUTS).sum().backward()
    twin = copy.deepcopy(layer)
    twin.zero_grad()
    twin(torch.cat([INPUTS, INPUTS])).sum().backward()
    for parameter, expected in zip(layer.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad)


def test_training_step_moves_the_state_of_the_model_through_its_replicas(replicate: Any) -> None:
    layer = linear(SpectralNorm())
    layer(INPUTS)
    state = chain_of(layer)[0]._u.clone()
    for replica in replicate(layer, 2):
        replica(INPUTS)
    assert chain_of(layer)[0]._u.equal(state)
    train_step(layer)
    for replica in replicate(layer, 2):
        replica(INPUTS)
    assert not chain_of(layer)[0]._u.equal(state)


def test_abandoned_replica_does_not_disturb_the_next(replicate: Any) -> None:
    layer: Any = linear()
    layer._replicate_for_data_parallel()
    kept = layer._replicate_for_data_parallel()
    first, second = replicate(layer, 2)
    with torch.no_grad():
        chain_of(first).original.add_(1)
    assert second.weight.equal(layer.weight)
    assert not first.weight.equal(layer.weight)
    assert kept is not first


# recurrent networks keep their weights in a list besides

RECURRENT = [nn.RNN, nn.GRU, nn.LSTM]


@pytest.mark.parametrize("forward_first", [False, True])
@pytest.mark.parametrize("cls", RECURRENT)
def test_recurrent_network_copies(
    cls: Callable[[int, int], nn.RNNBase], forward_first: bool, make_copy: Callable[[Any], Any]
) -> None:
    network = paramdesc.register_parametrization(cls(3, 4), "weight_hh_l0", Double())
    sequence = torch.randn(5, 1, 3)
    if forward_first:
        network(sequence)
    twin = make_copy(network)
    assert twin(sequence)[0].equal(network(sequence)[0])
    train_step(twin, "weight_hh_l0")
    assert not twin(sequence)[0].equal(network(sequence)[0])
    twin(sequence)[0].sum().backward()
    assert chain_of(twin, "weight_hh_l0").original.grad is not None
    assert chain_of(network, "weight_hh_l0").original.grad is None


@pytest.mark.parametrize("cls", RECURRENT)
def test_recurrent_network_shows_a_step_at_once(cls: Callable[[int, int], nn.RNNBase]) -> None:
    network = paramdesc.register_parametrization(cls(3, 4), "weight_hh_l0", Double())
    plain = cls(3, 4)
    sequence = torch.randn(5, 1, 3)
    with paramdesc.cached():
        network(sequence)
        train_step(network, "weight_hh_l0")
        outputs = network(sequence)[0]
    with torch.no_grad():
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            getattr(plain, name).copy_(getattr(network, name))
    assert outputs.equal(plain(sequence)[0])


# other tensors in the place of the originals


@pytest.mark.parametrize("in_scope", [False, True])
def test_functional_call_lends_originals_under_their_names(in_scope: bool) -> None:
    layer = linear(Shift())
    lent = {name: torch.zeros_like(tensor) for name, tensor in layer.named_parameters()}
    with paramdesc.cached() if in_scope else torch.enable_grad():
        before = layer(INPUTS)
        assert not torch.func.functional_call(layer, lent, (INPUTS,)).any()
        assert layer(INPUTS).equal(before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make_map", [*SAME_MAPS, SpectralNorm])
def test_conversion_reaches_the_value(make_map: type[nn.Module], dtype: torch.dtype) -> None:
    layer = linear(make_map())
    with paramdesc.cached():
        before = layer.weight
        layer.to(dtype)
        assert layer.weight.dtype == dtype
        rounding = 4 * torch.finfo(dtype).eps  # of values up to two, in two operations
        torch.testing.assert_close(
            layer.weight.to(before), before, rtol=0, atol=max(rounding, 1e-6)
        )


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make_map", [*SAME_MAPS, SpectralNorm])
def test_registration_keeps_the_dtype(make_map: type[nn.Module], dtype: torch.dtype) -> None:
    layer = nn.Linear(3, 3, dtype=dtype)
    paramdesc.register_parametrization(layer, "weight", make_map())
    assert layer.weight.dtype == dtype
    assert copy.deepcopy(layer).weight.equal(layer.weight)


@pytest.mark.parametrize("make_map", [*SAME_MAPS, SpectralNorm])
def test_layer_made_on_meta_is_filled_after_to_empty(make_map: type[nn.Module]) -> None:
    layer = nn.Linear(3, 3, device="meta")
    paramdesc.register_parametrization(layer, "weight", make_map())
    assert layer.weight.is_meta
    layer.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    layer.weight = torch.eye(3)
    torch.testing.assert_close(layer.weight, torch.eye(3))
    layer.to("meta")
    assert layer.weight.is_meta


@pytest.mark.parametrize("shape", [(0, 0), (2, 0, 0)])
@pytest.mark.parametrize("make_map", [*SAME_MAPS, SpectralNorm])
def test_empty_tensors_register_copy_and_assign(
    make_map: type[nn.Module], shape: tuple[int, ...]
) -> None:
    module = nn.Module()
    module.weight = nn.Parameter(torch.empty(shape))
    paramdesc.register_parametrization(module, "weight", make_map())
    twin: Any = copy.deepcopy(module)
    twin.weight = torch.empty(shape)
    assert twin.weight.shape == shape
    paramdesc.remove_parametrizations(twin, "weight")
    assert isinstance(twin.weight, nn.Parameter)


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
