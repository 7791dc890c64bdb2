"""`adopt`: what torch's engine registered is ours, and nothing else has changed."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as torch_maps
from torch.nn.utils import parametrize as torch_engine

from paramdesc import ParametrizationList, adopt, get_parametrizations, is_parametrized
from paramdesc import register_parametrization as register
from paramdesc import remove_parametrizations as remove
from paramdesc.registration import adoption
from tests.helpers import Double, Shift, Sum, chain_of, linear, saved_and_loaded, torch_linear

INPUTS = torch.linspace(-1, 1, 12).view(4, 3)


def nested() -> Any:
    layer = torch_linear(Sum())
    torch_engine.register_parametrization(layer, "weight", Double())
    torch_engine.register_parametrization(layer, "bias", Double())
    torch_engine.register_parametrization(chain_of(layer), "original0", Shift())
    return layer


def on_buffer() -> Any:
    layer = nn.BatchNorm1d(3)
    return torch_engine.register_parametrization(layer, "running_mean", Double())


class UsesLayer(nn.Module):
    """A map with a parametrized layer inside."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch_linear()

    def forward(self, X: Tensor) -> Tensor:
        product: Tensor = X @ self.layer.weight
        return product


MODELS: dict[str, Callable[[], Any]] = {
    "one original": torch_linear,
    "map with a parameter": lambda: torch_linear(Shift()),
    "several originals": lambda: torch_linear(Sum()),
    "chain and nested": nested,
    "buffer": on_buffer,
    "layer inside a map": lambda: torch_linear(UsesLayer()),
    "orthogonal": lambda: torch_maps.orthogonal(nn.Linear(3, 3)),
    "weight norm": lambda: torch_maps.weight_norm(nn.Linear(3, 3)),
    "weight norm on two": lambda: torch_maps.weight_norm(
        torch_maps.weight_norm(nn.Linear(3, 3)), "bias"
    ),
    "spectral norm": lambda: torch_maps.spectral_norm(nn.Linear(3, 3)),
    "mixed": lambda: nn.Sequential(torch_linear(), linear(), nn.Sequential(torch_linear(Sum()))),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    """A model that torch's engine parametrizes, in evaluation mode."""
    return MODELS[request.param]().eval()


def test_outputs_parameters_and_names_stay(model: Any) -> None:
    outputs, names = model(INPUTS), list(model.state_dict())
    parameters = [(name, id(tensor)) for name, tensor in model.named_parameters()]
    buffers = [(name, id(tensor)) for name, tensor in model.named_buffers()]
    assert adopt(model) is model
    assert model(INPUTS).equal(outputs)
    assert list(model.state_dict()) == names
    assert [(name, id(tensor)) for name, tensor in model.named_parameters()] == parameters
    assert [(name, id(tensor)) for name, tensor in model.named_buffers()] == buffers


def test_classes_are_restored_and_chains_are_ours(model: Any) -> None:
    lists = [
        path
        for path, module in model.named_modules()
        if isinstance(module, torch_engine.ParametrizationList)
    ]
    adopt(model)
    assert not any("Parametrized" in type(module).__name__ for module in model.modules())
    assert all(type(model.get_submodule(path)) is ParametrizationList for path in lists)
    assert len(get_parametrizations(model)) == len(lists)


@pytest.mark.parametrize(
    "make_copy",
    [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module)), saved_and_loaded],
)
def test_adopted_model_can_be_copied(model: Any, make_copy: Callable[[Any], Any]) -> None:
    twin = make_copy(adopt(model))
    assert twin(INPUTS).equal(model(INPUTS))
    assert not {id(tensor) for tensor in twin.parameters()} & {
        id(tensor) for tensor in model.parameters()
    }


def test_checkpoint_made_before_loads_after(model: Any) -> None:
    outputs, saved = model(INPUTS), copy.deepcopy(model.state_dict())
    adopt(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert not model(INPUTS).equal(outputs)
    model.load_state_dict(saved)
    torch.testing.assert_close(model(INPUTS), outputs)


def test_adopting_twice_changes_nothing(model: Any) -> None:
    outputs = adopt(model)(INPUTS)
    chains = list(get_parametrizations(model))
    assert adopt(model)(INPUTS).equal(outputs)
    assert list(get_parametrizations(model)) == chains


def test_optimizer_goes_on_where_it_was() -> None:
    model, reference = (nn.Sequential(torch_linear(Shift()), nested()) for _ in range(2))
    reference.load_state_dict(model.state_dict())
    optimizers = [torch.optim.Adam(m.parameters(), lr=0.1) for m in (model, reference)]
    for number in range(4):
        if number == 2:
            adopt(model)
        for module, optimizer in zip((model, reference), optimizers, strict=True):
            optimizer.zero_grad()
            module(INPUTS).square().sum().backward()
            optimizer.step()
    assert model(INPUTS).equal(reference(INPUTS))


def test_hooks_stay_and_run() -> None:
    layer = torch_linear()
    calls: list[str] = []
    layer.register_forward_hook(lambda *_: calls.append("layer"))
    chain_of(layer).register_forward_hook(lambda *_: calls.append("chain"))
    chain_of(layer)[0].register_forward_hook(lambda *_: calls.append("map"))
    adopt(layer)(INPUTS)
    assert calls == ["map", "chain", "layer"]


@pytest.mark.parametrize("prefix", ["", "0."])
def test_checkpoint_of_the_oldest_weight_norm_still_loads(prefix: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        oldest = nn.utils.weight_norm(nn.Linear(3, 3))
    saved = {prefix + name: tensor for name, tensor in oldest.state_dict().items()}
    layer: Any = torch_maps.weight_norm(nn.Linear(3, 3))
    model: Any = nn.Sequential(layer) if prefix else layer
    for adopted in (adopt(model), saved_and_loaded(model)):
        adopted.load_state_dict(saved)
        torch.testing.assert_close(adopted(INPUTS), oldest(INPUTS))


def test_shared_modules_chains_and_originals_stay_shared() -> None:
    first, second, third = torch_linear(), nn.Linear(3, 3), torch_linear()
    torch_engine.transfer_parametrizations_and_params(first, second)
    third.parametrizations["weight"] = first.parametrizations["weight"]
    model = adopt(nn.ModuleList([first, first, second, third]))
    assert model[0] is model[1]
    assert chain_of(first).original is chain_of(second).original
    assert chain_of(first) is chain_of(third)
    with torch.no_grad():
        chain_of(first).original.add_(1)
    assert first.weight.equal(second.weight)
    assert first.weight.equal(third.weight)


def test_copies_that_share_the_class_are_adopted_one_by_one() -> None:
    layer = torch_linear()
    twin = copy.deepcopy(layer)
    adopt(layer)
    assert type(twin).__name__ == "ParametrizedLinear"
    assert twin.weight.equal(layer.weight)
    adopt(twin)
    assert type(twin) is nn.Linear
    assert twin.weight.equal(layer.weight)


def test_recurrent_network_gives_the_same_outputs() -> None:
    network: Any = torch_maps.orthogonal(nn.GRU(3, 4), "weight_ih_l0")
    sequence = torch.randn(5, 1, 3)
    outputs = network(sequence)[0]
    assert adopt(network)(sequence)[0].equal(outputs)
    assert type(network) is nn.GRU
    assert saved_and_loaded(network)(sequence)[0].equal(outputs)


def test_adopted_module_is_ours_for_registration_and_removal() -> None:
    layer = adopt(torch_linear())
    register(layer, "bias", Double())
    remove(layer, "weight")
    remove(layer, "bias")
    assert type(layer) is nn.Linear
    assert not is_parametrized(layer)
    assert sorted(layer.state_dict()) == ["bias", "weight"]


@pytest.mark.parametrize("persistent", [True, False])
def test_buffers_keep_their_place_in_the_state_dict(persistent: bool) -> None:
    module: Any = nn.Module()
    module.register_buffer("mask", torch.ones(2), persistent=persistent)
    torch_engine.register_parametrization(module, "mask", Double())
    names = list(module.state_dict())
    adopt(module)
    assert list(module.state_dict()) == names
    assert module.mask.equal(torch.ones(2))


def test_models_without_torchs_parametrizations_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(3, 3), linear())
    chain, names = chain_of(model[1]), list(model.state_dict())
    assert adopt(model) is model
    assert chain_of(model[1]) is chain
    assert list(model.state_dict()) == names


@pytest.mark.parametrize("failing", range(5))
def test_failure_in_the_middle_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    model = nn.Sequential(nested(), torch_maps.weight_norm(nn.Linear(3, 3)), torch_linear())
    outputs = model(INPUTS)
    before = [(module, type(module), dict(vars(module))) for module in model.modules()]
    hooks = dict(model[1]._load_state_dict_pre_hooks)
    calls = iter(range(10))
    adopt_chain = adoption.adopt_chain

    def fail_once(*arguments: Any) -> None:
        if next(calls) == failing:
            raise RuntimeError("injected")
        adopt_chain(*arguments)

    monkeypatch.setattr(adoption, "adopt_chain", fail_once)
    with pytest.raises(RuntimeError, match="injected"):
        adopt(model)
    assert [(module, type(module), dict(vars(module))) for module in model.modules()] == before
    assert dict(model[1]._load_state_dict_pre_hooks) == hooks
    assert model(INPUTS).equal(outputs)
    for layer in model:
        torch_engine.remove_parametrizations(layer, "weight")
