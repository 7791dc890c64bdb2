"""`torch.nn.init` and `reset_parameters` on a parametrized module set its value."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paramdesc import cached, register_parametrization
from paramdesc.errors import MissingRightInverseError
from paramdesc.parametrizations import Symmetric
from tests.helpers import Double, Sum, chain_of, linear


class Transposed(nn.Module):
    """Its value is a view of the original."""

    def forward(self, X: Tensor) -> Tensor:
        return X.mT

    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y.mT


class TransposedDouble(Transposed):
    """Its value is a view of a tensor that nobody has."""

    def forward(self, X: Tensor) -> Tensor:
        return (2 * X).mT

    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y.mT / 2


MAPS: list[Callable[[], nn.Module]] = [Double, Sum, Transposed, TransposedDouble, nn.Identity]


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("scope", [nullcontext, cached])
@pytest.mark.parametrize("make", MAPS)
def test_initialising_the_weight_sets_its_value(
    make: Callable[[], nn.Module], scope: Callable[[], Any], gradients: bool
) -> None:
    layer = nn.Linear(3, 3)
    register_parametrization(layer, "weight", make(), unsafe=True)
    expected = torch.empty(3, 3)
    torch.manual_seed(0)
    nn.init.xavier_normal_(expected)
    torch.manual_seed(0)
    with scope(), torch.set_grad_enabled(gradients):
        result = nn.init.xavier_normal_(layer.weight)
        torch.testing.assert_close(layer.weight, expected, check_stride=False)
        torch.testing.assert_close(result, expected, check_stride=False)
    torch.testing.assert_close(layer.weight.detach(), expected, check_stride=False)


def test_a_value_outside_of_the_constraint_is_projected_and_returned() -> None:
    layer = linear(Symmetric())
    result = nn.init.normal_(tensor=layer.weight)
    assert result.equal(result.mT)
    assert result.equal(layer.weight)


@pytest.mark.parametrize("make", [Double, TransposedDouble])
def test_part_of_a_weight_can_be_initialised(make: Callable[[], nn.Module]) -> None:
    layer = linear(make())
    before = layer.weight.detach().clone()
    for row in range(2):
        nn.init.ones_(layer.weight[row])
    expected = before.clone()
    expected[:2] = 1
    torch.testing.assert_close(layer.weight.detach(), expected, check_stride=False)


HOSTS: dict[str, Callable[[], Any]] = {
    "linear": lambda: nn.Linear(3, 4),
    "convolution": lambda: nn.Conv1d(2, 3, 2),
    "embedding": lambda: nn.Embedding(5, 3),
    "batch norm": lambda: nn.BatchNorm1d(3),
    "bilinear": lambda: nn.Bilinear(2, 3, 4),
}


@pytest.mark.parametrize("name", HOSTS)
def test_reset_parameters_of_the_host_takes_effect(name: str) -> None:
    plain, layer = HOSTS[name](), HOSTS[name]()
    register_parametrization(layer, "weight", Double())
    with torch.no_grad():
        layer.weight = 7 * torch.ones_like(layer.weight)
    for module in (plain, layer):
        torch.manual_seed(0)
        module.reset_parameters()
    torch.testing.assert_close(layer.weight, plain.weight)


def test_attention_is_reset_too() -> None:
    plain: Any = nn.MultiheadAttention(4, 2)
    attention: Any = nn.MultiheadAttention(4, 2)
    register_parametrization(attention, "in_proj_weight", Double())
    for module in (plain, attention):
        torch.manual_seed(0)
        module._reset_parameters()
    torch.testing.assert_close(attention.in_proj_weight, plain.in_proj_weight)


def test_a_function_applied_to_a_model_initialises_each_module_of_it() -> None:
    model = nn.Sequential(linear(), nn.Linear(3, 3), linear(Sum()))

    @torch.no_grad()
    def initialize(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.constant_(module.weight, 0.5)
            nn.init.zeros_(module.bias)

    model.apply(initialize)
    for layer in model.children():
        assert torch.all(torch.as_tensor(layer.weight) == 0.5)


def test_a_map_without_right_inverse_raises_and_nothing_changes() -> None:
    layer = register_parametrization(nn.Linear(3, 3), "weight", torch.exp)
    before = layer.weight.detach().clone()
    with pytest.raises(MissingRightInverseError):
        nn.init.zeros_(layer.weight)
    assert layer.weight.equal(before)


def test_a_strict_map_refuses_a_value_outside() -> None:
    layer = linear(Symmetric())
    chain_of(layer)[0].strict = True
    before = layer.weight.detach().clone()
    with pytest.raises(ValueError, match="not symmetric"):
        nn.init.normal_(layer.weight)
    assert layer.weight.equal(before)


def test_other_tensors_are_initialised_as_ever() -> None:
    layer = linear()
    before = layer.weight.detach().clone()
    for tensor in (torch.ones(3, 3), nn.Parameter(torch.ones(3, 3)), 1 * layer.weight.detach() + 1):
        nn.init.zeros_(tensor)
        assert not tensor.any()
    chain_of(layer).original.requires_grad_(False)
    nn.init.ones_(chain_of(layer).original)
    assert layer.weight.eq(2).all()
    assert not before.eq(2).all()


def test_functions_keep_their_names_and_pickle() -> None:
    linear()
    for name in ("xavier_uniform_", "zeros_", "kaiming_normal_"):
        function = getattr(nn.init, name)
        assert pickle.loads(pickle.dumps(function)) is function
        assert function.__name__ == name
        assert function.__doc__


def test_a_weight_on_meta_can_be_initialised() -> None:
    layer = linear().to("meta")
    nn.init.zeros_(layer.weight)
    assert layer.weight.is_meta


def test_compiled_code_may_initialise_tensors_of_its_own() -> None:
    linear()

    @torch.compile(backend="eager", fullgraph=True)
    def fill(x: Tensor) -> Tensor:
        return nn.init.ones_(torch.empty_like(x))

    assert fill(torch.zeros(2)).tolist() == [1, 1]


def test_tensors_with_the_same_numbers_are_not_taken_for_the_weight() -> None:
    layer = linear()
    before = layer.weight.detach().clone()
    value = layer.weight
    copied = value.detach().clone()
    nn.init.zeros_(copied)
    assert layer.weight.equal(before)
    assert value.equal(before)
    layer.weight = torch.zeros(3, 3)
    layer(torch.ones(1, 3))
    nn.init.ones_(torch.zeros(3, 3))
    assert not layer.weight.any()
    with torch.no_grad():
        for _ in range(50):
            layer(torch.ones(1, 3))
            nn.init.ones_(torch.empty(3, 3))  # where the value was
    assert not layer.weight.any()


@pytest.mark.parametrize("scope", [nullcontext, cached])
def test_the_data_of_a_weight_stands_for_it(scope: Callable[[], Any]) -> None:
    layer = linear()
    with scope():
        nn.init.ones_(layer.weight.data)
        assert layer.weight.eq(1).all()
        nn.init.zeros_(layer.weight.detach())
        assert not layer.weight.any()


def test_a_tensor_that_transformers_has_loaded_is_left() -> None:
    """Its models initialize after loading what has no mark, and mark what they have loaded."""
    layer: Any = register_parametrization(nn.Linear(3, 3), "weight", Symmetric())
    before = layer.weight.detach().clone()
    layer.parametrizations.weight.original._is_hf_initialized = True
    nn.init.zeros_(layer.weight)
    assert torch.equal(layer.weight, before)
    del layer.parametrizations.weight.original._is_hf_initialized
    nn.init.zeros_(layer.weight)
    assert not layer.weight.any()
