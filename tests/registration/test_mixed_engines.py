"""torch's own engine and ours on one module or model: it works, or nothing has happened."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as torch_maps
from torch.nn.utils import parametrize as torch_engine

from paramdesc import (
    cached,
    get_parametrizations,
    is_parametrized,
    register_parametrization,
    remove_parametrizations,
    transfer_parametrizations_and_params,
    type_before_parametrizations,
)
from paramdesc.errors import MixedEnginesError
from tests.helpers import Double, Shift, Sum, chain_of, linear, torch_linear

LINEAR = dict(vars(nn.Linear))
INPUTS = torch.linspace(-1, 1, 6).view(2, 3)


@pytest.fixture(autouse=True)
def linear_is_never_changed() -> Any:
    yield
    assert dict(vars(nn.Linear)) == LINEAR


def facts(module: nn.Module) -> list[Any]:
    """What may not change when a call is refused: classes, names, objects and hooks."""
    return [
        [
            (path, type(found), list(vars(found)), len(found._load_state_dict_pre_hooks))
            for path, found in module.named_modules()
        ],
        [(name, id(tensor)) for name, tensor in module.named_parameters()],
        [(name, tensor.tolist()) for name, tensor in module.state_dict().items()],
    ]


# torch's functions on modules of ours

REFUSED: dict[str, Callable[[Any], object]] = {
    "register on another tensor": lambda m: torch_engine.register_parametrization(
        m, "bias", Double()
    ),
    "remove": lambda m: torch_engine.remove_parametrizations(m, "weight"),
    "remove to the original": lambda m: torch_engine.remove_parametrizations(
        m, "weight", leave_parametrized=False
    ),
    "weight_norm on another tensor": lambda m: torch_maps.weight_norm(m, "bias"),
    "spectral_norm on another tensor": lambda m: torch_maps.spectral_norm(m, "bias"),
    "transfer another tensor to it": lambda m: torch_engine.transfer_parametrizations_and_params(
        torch_engine.register_parametrization(nn.Linear(3, 3), "bias", Double()), m
    ),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_what_would_change_the_class_is_refused_before_any_harm(
    call: Callable[[Any], object],
) -> None:
    layer = linear()
    before = facts(layer)
    with pytest.raises(MixedEnginesError, match="Write paramdesc"):
        call(layer)
    assert facts(layer) == before
    assert layer(INPUTS).equal(torch.nn.functional.linear(INPUTS, layer.weight, layer.bias))
    assert pickle.loads(pickle.dumps(layer)).weight.equal(layer.weight)


def test_registering_on_the_same_tensor_adds_a_map() -> None:
    layer = linear()
    before = layer.weight
    torch_engine.register_parametrization(layer, "weight", Shift())
    assert type(layer) is nn.Linear
    torch.testing.assert_close(layer.weight, before + 0.5)
    assert pickle.loads(pickle.dumps(layer)).weight.equal(layer.weight)


def test_spectral_norm_of_torch_on_the_same_tensor_works() -> None:
    layer = torch_maps.spectral_norm(linear())
    assert type(layer) is nn.Linear
    norm = torch.linalg.matrix_norm(layer.weight, 2).item()
    assert norm == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("apply", [torch_maps.weight_norm, torch_maps.orthogonal])
def test_maps_of_torch_that_cannot_stand_second_are_refused_before_any_harm(
    apply: Callable[[nn.Module], nn.Module],
) -> None:
    layer = linear()
    before = facts(layer)
    with pytest.raises(TypeError):
        apply(layer)
    assert facts(layer) == before
    assert pickle.loads(pickle.dumps(layer)).weight.equal(layer.weight)


def test_questions_of_torch_are_answered_truly() -> None:
    layer = linear()
    assert torch_engine.is_parametrized(layer)
    assert torch_engine.is_parametrized(layer, "weight")
    assert not torch_engine.is_parametrized(layer, "bias")
    assert torch_engine.type_before_parametrizations(layer) is nn.Linear
    remove_parametrizations(layer, "weight")
    assert not torch_engine.is_parametrized(layer)
    assert torch_engine.type_before_parametrizations(layer) is nn.Linear


def test_torch_transfers_from_ours_to_a_plain_module() -> None:
    layer = linear(Shift())
    target: Any = nn.Linear(3, 3)
    torch_engine.transfer_parametrizations_and_params(layer, target)
    assert target.weight.equal(layer.weight)
    assert chain_of(target).original is chain_of(layer).original
    assert type(layer) is nn.Linear


def test_scope_of_torch_around_modules_of_ours_changes_nothing() -> None:
    layer = linear()
    with torch_engine.cached():
        before = layer.weight
        with torch.no_grad():
            chain_of(layer).original.add_(1)
        torch.testing.assert_close(layer.weight, before + 2)


def test_torch_engine_works_on_a_module_that_was_ours() -> None:
    layer = remove_parametrizations(linear(), "weight")
    torch_engine.register_parametrization(layer, "weight", Double())
    assert type(layer) is not nn.Linear
    torch_engine.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear
    assert isinstance(layer.weight, nn.Parameter)


def test_plain_modules_beside_ours_stay_free_for_torch() -> None:
    first, second = linear(), nn.Linear(3, 3)
    torch_engine.register_parametrization(second, "weight", Double())
    assert type(first) is nn.Linear
    assert type(second).__name__ == "ParametrizedLinear"
    assert "weight" not in vars(nn.Linear)
    first(second(INPUTS)).sum().backward()
    assert chain_of(first).original.grad is not None
    assert chain_of(second).original.grad is not None


# our functions on modules of torch's engine


def test_registering_ours_on_the_same_tensor_takes_the_module_over() -> None:
    layer = torch_linear()
    before, original = layer.weight, chain_of(layer).original
    register_parametrization(layer, "weight", Shift())
    assert type(layer) is nn.Linear
    assert chain_of(layer).original is original
    torch.testing.assert_close(layer.weight, before + 0.5)
    assert pickle.loads(pickle.dumps(layer)).weight.equal(layer.weight)


def test_registering_ours_on_another_tensor_takes_the_module_over() -> None:
    layer = torch_linear()
    weight, bias = layer.weight, layer.bias.detach().clone()
    register_parametrization(layer, "bias", Double())
    assert type(layer) is nn.Linear
    assert layer.weight.equal(weight)
    torch.testing.assert_close(layer.bias, bias)
    assert get_parametrizations(layer).names() == ["weight", "bias"]


@pytest.mark.parametrize("leave_parametrized", [True, False])
def test_removing_with_ours_restores_the_class(leave_parametrized: bool) -> None:
    layer = torch_linear()
    original, value = chain_of(layer).original, layer.weight.detach()
    remove_parametrizations(layer, "weight", leave_parametrized)
    assert type(layer) is nn.Linear
    assert layer.weight is original
    torch.testing.assert_close(layer.weight.detach(), value if leave_parametrized else value / 2)


def no_square(X: Tensor) -> Tensor:
    return X[0]


@pytest.mark.parametrize(
    "call",
    [
        lambda layer: register_parametrization(layer, "absent", Double()),
        lambda layer: register_parametrization(layer, "weight", no_square),
        lambda layer: register_parametrization(layer, "bias", torch.linalg.inv),
        lambda layer: remove_parametrizations(layer, "bias"),
    ],
)
def test_failure_leaves_the_module_to_torchs_engine(call: Callable[[Any], object]) -> None:
    layer = torch_linear()
    before = facts(layer)
    with pytest.raises((ValueError, RuntimeError)):
        call(layer)
    assert facts(layer) == before
    torch_engine.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear


def test_removing_several_originals_to_one_is_refused_and_leaves_torchs_engine() -> None:
    layer = torch_linear(Sum())
    before = facts(layer)
    with pytest.raises(ValueError, match="leave_parametrized=True"):
        remove_parametrizations(layer, "weight", leave_parametrized=False)
    assert facts(layer) == before


def test_our_questions_about_modules_of_torchs_engine_are_answered() -> None:
    layer = torch_linear()
    assert is_parametrized(layer)
    assert is_parametrized(layer, "weight")
    assert not is_parametrized(layer, "bias")
    assert type_before_parametrizations(layer) is nn.Linear
    assert type(layer) is not nn.Linear


@pytest.mark.parametrize("make_map", [Double, Shift, Sum])
def test_ours_transfers_from_modules_of_torchs_engine(make_map: type[nn.Module]) -> None:
    layer = torch_linear(make_map())
    target: Any = transfer_parametrizations_and_params(layer, nn.Linear(3, 3))
    assert type(target) is nn.Linear
    assert target.weight.equal(layer.weight)
    for name, parameter in chain_of(layer).named_parameters():
        assert dict(chain_of(target).named_parameters())[name] is parameter


def test_ours_transfers_to_modules_of_torchs_engine() -> None:
    source, target = linear(), torch_linear()
    transfer_parametrizations_and_params(source, target)
    assert type(target) is nn.Linear
    assert chain_of(target).original is chain_of(source).original


# one model


def test_layers_of_both_engines_train_in_one_model() -> None:
    model = nn.Sequential(
        linear(Shift()), torch_linear(Shift()), torch_maps.orthogonal(nn.Linear(3, 3))
    )
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with cached(model):
        model(INPUTS).square().sum().backward()
        optimizer.step()
        first = model(INPUTS)
    assert model(INPUTS).equal(first)
    changed = [
        name for name, tensor in model.state_dict().items() if not tensor.equal(before[name])
    ]
    assert {name.partition(".")[0] for name in changed} == {"0", "1", "2"}
    assert get_parametrizations(model).names() == ["0.weight"]


def test_torch_says_itself_that_a_plain_name_cannot_be_removed() -> None:
    layer = linear()
    with pytest.raises(ValueError, match="does not have a parametrization on bias"):
        torch_engine.remove_parametrizations(layer, "bias")
