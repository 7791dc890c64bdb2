"""Maps on tensors that have no shape yet: registered as soon as they have one."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paramdesc import (
    get_parametrizations,
    is_parametrized,
    register_parametrization,
    remove_parametrizations,
)
from paramdesc.parametrizations import SpectralNorm, Symmetric
from tests.helpers import Double, Shift, chain_of, saved_and_loaded

INPUTS = torch.linspace(-1, 1, 6).view(2, 3)


def waiting(parametrization: nn.Module | None = None) -> Any:
    """A lazy layer whose weight waits for its shape."""
    return register_parametrization(nn.LazyLinear(3), "weight", parametrization or Double())


def test_first_call_registers_and_already_uses_the_map() -> None:
    layer = waiting(Symmetric())
    assert not is_parametrized(layer)
    outputs = layer(INPUTS)
    assert type(layer) is nn.Linear
    assert layer.weight.equal(layer.weight.mT)
    torch.testing.assert_close(outputs, nn.functional.linear(INPUTS, layer.weight, layer.bias))


def test_several_maps_keep_their_order() -> None:
    layer = register_parametrization(waiting(), "weight", Shift())
    register_parametrization(layer, "bias", Double())
    layer(INPUTS)
    assert [type(found) for found in chain_of(layer).maps()] == [Double, Shift]
    assert get_parametrizations(layer).names() == ["weight", "bias"]


def test_parameter_object_and_optimizer_stay() -> None:
    layer = waiting()
    parameter, optimizer = layer.weight, torch.optim.SGD(layer.parameters(), lr=1.0)
    layer(INPUTS).sum().backward()
    before = layer.weight.detach()
    optimizer.step()
    assert chain_of(layer).original is parameter
    assert not layer.weight.equal(before)


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (nn.LazyConv2d(4, 2), torch.ones(1, 3, 5, 5)),
        (nn.LazyConvTranspose1d(4, 2), torch.ones(1, 3, 5)),
        (nn.LazyBatchNorm1d(), torch.ones(4, 3)),
    ],
)
def test_every_lazy_layer_is_served(layer: Any, inputs: Tensor) -> None:
    register_parametrization(layer, "weight", SpectralNorm())
    layer(inputs)
    assert get_parametrizations(layer).names() == ["weight"]
    assert not layer._forward_pre_hooks
    assert pickle.loads(pickle.dumps(layer)).weight.equal(layer.weight)


def test_lazy_buffers_wait_too() -> None:
    layer: Any = register_parametrization(nn.LazyBatchNorm1d().eval(), "running_var", Double())
    layer(torch.ones(4, 3))
    assert get_parametrizations(layer).names() == ["running_var"]
    assert layer.running_var.equal(torch.ones(3))


@pytest.mark.parametrize(
    "make_copy",
    [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module)), saved_and_loaded],
)
def test_copy_of_a_waiting_layer_waits_on_its_own(make_copy: Callable[[Any], Any]) -> None:
    layer = waiting(Shift())
    twin = make_copy(layer)
    twin(INPUTS)
    assert is_parametrized(twin, "weight")
    assert not is_parametrized(layer)
    layer(INPUTS)
    assert chain_of(layer)[0] is not chain_of(twin)[0]


def test_removal_before_the_first_call_leaves_a_plain_layer() -> None:
    layer = remove_parametrizations(waiting(), "weight")
    layer(INPUTS)
    assert not is_parametrized(layer)
    assert isinstance(layer.weight, nn.Parameter)


def test_weight_loaded_before_the_first_call_is_parametrized_at_it() -> None:
    layer, source = waiting(), nn.Linear(3, 3)
    layer.load_state_dict(source.state_dict())
    layer(INPUTS)
    assert is_parametrized(layer, "weight")
    torch.testing.assert_close(layer.weight, source.weight)


def test_model_of_waiting_layers_materializes_in_one_call() -> None:
    model = nn.Sequential(waiting(), nn.Sequential(waiting(Shift())))
    model(INPUTS)
    assert get_parametrizations(model).names() == ["0.weight", "1.0.weight"]


def test_mode_of_the_layer_reaches_the_map() -> None:
    layer = waiting().eval()
    layer(INPUTS)
    assert not any(module.training for module in layer.modules())


def test_conversion_reaches_the_waiting_map() -> None:
    layer = waiting(Shift()).double()
    layer(INPUTS.double())
    assert chain_of(layer)[0].shift.dtype == torch.float64


def no_square(X: Tensor) -> Tensor:
    return X[0]


def test_map_that_does_not_fit_is_refused_at_every_call() -> None:
    layer = register_parametrization(nn.LazyLinear(3), "weight", no_square)
    for _ in range(2):
        with pytest.raises(ValueError, match="shape"):
            layer(INPUTS)
    remove_parametrizations(layer, "weight")
    assert layer(INPUTS).shape == (2, 3)


def test_what_is_no_map_or_no_tensor_is_refused_at_once() -> None:
    layer: Any = nn.LazyLinear(3)
    with pytest.raises(TypeError, match="Not a parametrization"):
        register_parametrization(layer, "weight", 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="absent"):
        register_parametrization(layer, "absent", Double())
    assert len(layer._forward_pre_hooks) == len(nn.LazyLinear(3)._forward_pre_hooks)
