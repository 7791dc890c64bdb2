"""Registering, asking and removing; torch's own suite, run in CI, covers the common ground."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing._internal.two_tensor import TwoTensor

import paramdesc as P
from tests.helpers import Double, original_of
from tests.registration.maps import Product


def test_a_registered_weight_is_the_map_of_the_same_parameter_object() -> None:
    linear = nn.Linear(3, 2)
    weight, before = linear.weight, linear.weight.detach().clone()
    assert P.register_parametrization(linear, "weight", torch.exp) is linear
    assert type(linear) is nn.Linear
    assert original_of(linear) is weight
    torch.testing.assert_close(linear.weight, before.exp())
    torch.autograd.backward(linear.weight.sum())
    torch.testing.assert_close(weight.grad, before.exp())


def test_a_plain_function_has_its_inverse_beside_it() -> None:
    linear: Any = nn.Linear(3, 2)
    nn.init.ones_(linear.bias)  # the logarithm of others is NaN, which is refused
    P.register_parametrization(linear, "bias", torch.exp, right_inverse=torch.log)
    linear.bias = torch.tensor([2.0, 3.0])
    torch.testing.assert_close(linear.bias, torch.tensor([2.0, 3.0]))
    torch.testing.assert_close(original_of(linear, "bias"), torch.tensor([2.0, 3.0]).log())
    assert "exp" in repr(linear)


def test_an_object_with_a_forward_is_a_map_though_it_is_no_module() -> None:
    class Scale:
        def forward(self, X: Tensor) -> Tensor:
            return 3 * X

        def right_inverse(self, X: Tensor) -> Tensor:
            return X / 3

    linear = P.register_parametrization(nn.Linear(2, 2), "weight", Scale())
    linear.weight = torch.ones(2, 2)
    torch.testing.assert_close(original_of(linear), torch.full((2, 2), 1 / 3))


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (Double, r"It is a class: pass an instance, Double\(\.\.\.\)"),
        (nn.Module(), "without a forward method"),
        ("symmetric", "Pass an nn.Module with a forward method"),
        (None, "Pass an nn.Module with a forward method"),
    ],
)
def test_what_is_no_map_is_refused_with_what_to_pass(wrong: Any, hint: str) -> None:
    linear = nn.Linear(2, 2)
    with pytest.raises(TypeError, match=hint):
        P.register_parametrization(linear, "weight", wrong)
    assert not P.is_parametrized(linear)


def test_right_inverse_is_for_functions() -> None:
    with pytest.raises(TypeError, match=r"Define Double\.right_inverse"):
        P.register_parametrization(nn.Linear(2, 2), "weight", Double(), right_inverse=torch.log)


def test_a_missing_tensor_is_named_with_those_that_exist() -> None:
    linear = P.register_parametrization(nn.Linear(2, 2), "bias", Double())
    with pytest.raises(ValueError, match=r"'wieght'\. Its tensors are: 'weight', 'bias'"):
        P.register_parametrization(linear, "wieght", Double())
    with pytest.raises(ValueError, match="does not have a parameter"):
        P.register_parametrization(nn.Linear(2, 2, bias=False), "bias", Double())


def test_a_module_with_an_attribute_of_that_name_is_left_alone() -> None:
    linear: Any = nn.Linear(2, 2)
    linear.parametrizations = [1, 2]
    with pytest.raises(ValueError, match="Rename the attribute"):
        P.register_parametrization(linear, "weight", Double())
    assert linear.parametrizations == [1, 2]
    assert isinstance(linear.weight, nn.Parameter)


def test_a_chain_applies_its_maps_in_order_and_assigns_in_reverse() -> None:
    linear = nn.Linear(2, 2)
    P.register_parametrization(linear, "weight", torch.sinh, right_inverse=torch.asinh)
    P.register_parametrization(linear, "weight", Double())
    torch.testing.assert_close(linear.weight, 2 * original_of(linear).sinh())
    linear.weight = torch.full((2, 2), 6.0)
    torch.testing.assert_close(original_of(linear), torch.full((2, 2), 3.0).asinh())


def test_several_originals_are_new_parameters() -> None:
    linear = nn.Linear(2, 2)
    before = linear.weight.detach().clone()
    P.register_parametrization(linear, "weight", Product())
    torch.testing.assert_close(linear.weight, before)
    assert [name for name, _ in linear.named_parameters()] == [
        "bias",
        "parametrizations.weight.original0",
        "parametrizations.weight.original1",
    ]
    linear.weight = torch.full((2, 2), -4.0)
    torch.testing.assert_close(linear.weight, torch.full((2, 2), -4.0))
    with pytest.raises(ValueError, match="leave_parametrized=True"):
        P.remove_parametrizations(linear, "weight", leave_parametrized=False)
    P.remove_parametrizations(linear, "weight")
    assert isinstance(linear.weight, nn.Parameter)
    torch.testing.assert_close(linear.weight.detach(), torch.full((2, 2), -4.0))


@pytest.mark.parametrize("persistent", [True, False])
def test_a_buffer_stays_what_it_was_in_the_state_dict(persistent: bool) -> None:
    module = nn.Module()
    module.register_buffer("mask", torch.ones(3), persistent=persistent)
    P.register_parametrization(module, "mask", Double())
    assert list(module.state_dict()) == (["parametrizations.mask.original"] if persistent else [])
    assert [name for name, _ in module.named_buffers()] == ["parametrizations.mask.original"]
    P.remove_parametrizations(module, "mask")
    assert list(module.state_dict()) == (["mask"] if persistent else [])
    torch.testing.assert_close(module.mask, torch.ones(3))


def test_an_original_can_be_parametrized_in_its_turn() -> None:
    linear: Any = P.register_parametrization(nn.Linear(2, 2), "weight", Double())
    chain = linear.parametrizations.weight
    P.register_parametrization(chain, "original", torch.sinh, right_inverse=torch.asinh)
    torch.testing.assert_close(linear.weight, 2 * original_of(chain, "original").sinh())
    names = [name for name, _ in linear.named_parameters()]
    assert names == ["bias", "parametrizations.weight.parametrizations.original.original"]
    linear.weight = torch.full((2, 2), 8.0)
    torch.testing.assert_close(linear.weight, torch.full((2, 2), 8.0))
    P.remove_parametrizations(chain, "original")
    P.remove_parametrizations(linear, "weight")
    assert isinstance(linear.weight, nn.Parameter)


@pytest.mark.parametrize("leave_parametrized", [True, False])
def test_removal_gives_the_same_parameter_back(leave_parametrized: bool) -> None:
    linear = nn.Linear(2, 2)
    weight, before = linear.weight, linear.weight.detach().clone()
    P.register_parametrization(linear, "weight", torch.exp)
    P.remove_parametrizations(linear, "weight", leave_parametrized)
    assert linear.weight is weight
    torch.testing.assert_close(weight.detach(), before.exp() if leave_parametrized else before)
    assert type(vars(linear)["_buffers"]) is dict
    assert not hasattr(linear, "parametrizations")
    assert vars(linear).keys() == vars(nn.Linear(2, 2)).keys()


def test_removing_what_is_not_there_names_what_is() -> None:
    linear = P.register_parametrization(nn.Linear(2, 2), "bias", Double())
    with pytest.raises(ValueError, match=r"on 'weight'\. Parametrized tensors: 'bias'"):
        P.remove_parametrizations(linear, "weight")


def test_unsafe_maps_may_change_shape_and_dtype() -> None:
    linear = P.register_parametrization(
        nn.Linear(3, 2), "weight", lambda X: X[:1].double(), unsafe=True
    )
    assert linear.weight.shape == (1, 3)
    assert linear.weight.dtype == torch.float64
    P.remove_parametrizations(linear, "weight", leave_parametrized=False)
    assert linear.weight.shape == (2, 3)


@pytest.mark.parametrize(
    "weight",
    [
        torch.randn(3, 3, dtype=torch.complex64),
        torch.randn(3, 3, dtype=torch.float16),
        torch.randn(3, 3, dtype=torch.bfloat16),
        torch.empty(0, 3),
        torch.empty(3, 3, device="meta"),
        torch.randn(3, 3).T,
    ],
    ids=["complex", "half", "bfloat16", "empty", "meta", "strided"],
)
def test_every_kind_of_parameter_round_trips(weight: Tensor) -> None:
    linear = nn.Linear(3, 3, device="meta")
    linear.weight = nn.Parameter(weight)
    P.register_parametrization(linear, "weight", Double())
    assert (linear.weight.shape, linear.weight.dtype) == (weight.shape, weight.dtype)
    assert linear.weight.device == weight.device
    P.remove_parametrizations(linear, "weight")
    if weight.device.type != "meta":
        torch.testing.assert_close(linear.weight.detach(), weight)


@pytest.mark.parametrize("swap", [False, True])
def test_tensor_subclasses_and_swapping_work(swap: bool) -> None:
    linear = nn.Linear(3, 3)
    linear.weight = nn.Parameter(TwoTensor(torch.ones(3, 3), torch.zeros(3, 3)))  # type: ignore[no-untyped-call]
    weight = linear.weight
    torch.__future__.set_swap_module_params_on_conversion(swap)
    try:
        P.register_parametrization(linear, "weight", Double())
        assert isinstance(linear.weight, TwoTensor)
        assert original_of(linear) is weight
        linear.double()
        assert linear.weight.dtype == torch.float64
        P.remove_parametrizations(linear, "weight")
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert isinstance(linear.weight, TwoTensor)


def test_a_map_follows_the_others_though_the_original_is_parametrized() -> None:
    linear: Any = P.register_parametrization(nn.Linear(2, 2), "weight", Double())
    chain = linear.parametrizations.weight
    P.register_parametrization(chain, "original", torch.sinh)
    P.register_parametrization(linear, "weight", torch.cos)
    torch.testing.assert_close(linear.weight, (2 * chain.original).cos())
    assert isinstance(chain[0], Double)
    assert [name for name, _ in chain.named_children()] == ["0", "parametrizations", "1"]


@pytest.mark.parametrize("requires_grad", [True, False])
def test_several_originals_leave_a_parameter_whatever_the_grad_mode(requires_grad: bool) -> None:
    linear = nn.Linear(2, 2).requires_grad_(requires_grad)
    P.register_parametrization(linear, "weight", Product())
    with torch.no_grad():
        P.remove_parametrizations(linear, "weight")
    assert isinstance(linear.weight, nn.Parameter)
    assert linear.weight.requires_grad == requires_grad


def test_type_and_class_never_change() -> None:
    linear = nn.Linear(2, 2)
    members = dict(vars(nn.Linear))
    P.register_parametrization(linear, "weight", Double())
    assert type(linear) is P.type_before_parametrizations(linear) is nn.Linear
    assert dict(vars(nn.Linear)) == members


def test_the_map_follows_the_training_mode_of_its_host() -> None:
    linear: Any = nn.Linear(2, 2).eval()
    P.register_parametrization(linear, "weight", Double())
    assert not any(module.training for module in linear.modules())


def test_a_shared_module_is_parametrized_once_for_all_its_holders() -> None:
    linear = nn.Linear(2, 2)
    model = nn.Sequential(linear, nn.ReLU(), linear)
    P.register_parametrization(linear, "weight", Double())
    assert len(list(model.parameters())) == 2
    torch.testing.assert_close(model[0].weight, model[2].weight)


def test_hooks_on_a_map_and_on_the_chain_are_called() -> None:
    linear: Any = P.register_parametrization(nn.Linear(2, 2), "weight", Double())
    called: list[str] = []
    chain = linear.parametrizations.weight
    handles = [
        chain.register_forward_hook(lambda *_: called.append("chain")),
        chain[0].register_forward_pre_hook(lambda *_: called.append("before map")),
        chain[0].register_forward_hook(lambda *_: called.append("after map")),
        chain[0].register_full_backward_hook(lambda *_: called.append("backward")),
    ]
    linear.weight.sum().backward()
    assert called == ["before map", "after map", "chain", "backward"]
    for handle in handles:
        handle.remove()
    assert linear.weight is not None
    assert len(called) == 4
