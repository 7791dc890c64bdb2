"""Registering, asking and removing; torch's own suite, run in CI, covers the common ground."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing._internal.two_tensor import TwoTensor

import paramdesc as P
from paramdesc.errors import add_note
from paramdesc.registration.namespace import AttributeNamespace
from tests.helpers import Double, chain_of, linear


class Product(nn.Module):
    """Several originals, for it is given as the product of two."""

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:
        return X * Y

    def right_inverse(self, X: Tensor) -> tuple[Tensor, Tensor]:
        return X.abs().sqrt(), X.sign() * X.abs().sqrt()


def original_of(module: nn.Module, tensor_name: str = "weight") -> Any:
    return module.get_submodule(f"parametrizations.{tensor_name}").original


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


def test_completion_repr_and_the_getters_answer() -> None:
    linear = P.register_parametrization(nn.Linear(2, 2), "weight", Double())
    assert "weight" in dir(linear)
    assert "Double()" in repr(linear)
    torch.testing.assert_close(linear.get_buffer("weight"), linear.weight)
    with pytest.raises(AttributeError, match="is not an nn.Parameter"):
        linear.get_parameter("weight")
    assert linear.get_parameter("parametrizations.weight.original") is original_of(linear)
    assert isinstance(linear.get_submodule("parametrizations.weight"), P.ParametrizationList)
    assert [name for name, _ in linear.named_buffers()] == []
    assert not hasattr(linear, "wieght")


def test_assignment_accepts_any_tensor_and_refuses_the_rest() -> None:
    linear: Any = P.register_parametrization(nn.Linear(2, 2), "weight", Double())
    original = original_of(linear)
    linear.weight = torch.ones(2, 2)
    assert original_of(linear) is original
    for wrong, message in [
        (nn.Parameter(torch.ones(2, 2)), r"`module\.weight = value\.detach\(\)`"),
        (nn.Identity(), "cannot assign an nn.Parameter or nn.Module"),
        (None, "cannot assign None to 'weight'"),
        (3, "cannot assign 'int'"),
    ]:
        with pytest.raises(TypeError, match=message):
            linear.weight = wrong
    with pytest.raises(TypeError, match=r"remove_parametrizations\(module, \"weight\"\), then"):
        del linear.weight
    torch.testing.assert_close(linear.weight, torch.ones(2, 2))


def test_an_assigned_tensor_is_not_shared_with_the_original() -> None:
    linear = P.register_parametrization(
        nn.Linear(2, 2), "weight", lambda X: X, right_inverse=lambda X: X
    )
    value = torch.ones(2, 2)
    linear.weight = value
    value.zero_()
    torch.testing.assert_close(linear.weight.detach(), torch.ones(2, 2))


def test_assignment_needs_every_right_inverse() -> None:
    linear = P.register_parametrization(nn.Linear(2, 2), "weight", torch.exp)
    with pytest.raises(RuntimeError, match="FunctionMap does not implement right_inverse"):
        linear.weight = torch.ones(2, 2)


@pytest.mark.parametrize(
    ("inverse", "message"),
    [
        (lambda X: X.double(), "has dtype torch.float64 while `original` has dtype"),
        (lambda X: (X, X), "should return a tensor. Got tuple"),
    ],
)
def test_an_inverse_that_fits_no_more_changes_nothing(inverse: Any, message: str) -> None:
    given: list[Any] = [lambda X: X]
    linear = P.register_parametrization(
        nn.Linear(2, 2), "weight", lambda X: X, right_inverse=lambda X: given[-1](X)
    )
    before = linear.weight.detach().clone()
    given.append(inverse)
    with pytest.raises(ValueError, match=message):
        linear.weight = torch.ones(2, 2)
    torch.testing.assert_close(linear.weight.detach(), before)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda X: X, "must return a sequence of tensors. Got Tensor"),
        (lambda X: (X,), "of length 2. Got a sequence of length 1"),
        (lambda X: (X, 1), "Got element 1 of type int"),
        (lambda X: (X, X.double()), "Tensor 1 returned by `right_inverse` has dtype"),
    ],
)
def test_several_originals_are_assigned_all_or_none(result: Any, message: str) -> None:
    product = Product()
    linear = P.register_parametrization(nn.Linear(2, 2), "weight", product)
    before = linear.weight.detach().clone()
    product.right_inverse = result  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=message):
        linear.weight = torch.ones(2, 2)
    torch.testing.assert_close(linear.weight.detach(), before)


def test_transfer_shares_maps_and_originals() -> None:
    source = P.register_parametrization(nn.Linear(3, 3), "weight", Product())
    P.register_parametrization(source, "bias", lambda X: X[:1], unsafe=True)
    target = P.transfer_parametrizations_and_params(source, nn.Linear(3, 3))
    torch.testing.assert_close(target.weight, source.weight)
    assert target.bias.shape == (1,)
    for name in ("original0", "original1"):
        path = f"parametrizations.weight.{name}"
        assert target.get_parameter(path) is source.get_parameter(path)
    plain = nn.Linear(3, 3)
    assert P.transfer_parametrizations_and_params(plain, target) is target


def test_transfer_reaches_parametrized_originals() -> None:
    source: Any = P.register_parametrization(nn.Linear(2, 2), "weight", Double())
    P.register_parametrization(source.parametrizations.weight, "original", torch.sinh)
    target = P.transfer_parametrizations_and_params(source, nn.Linear(2, 2))
    torch.testing.assert_close(target.weight, source.weight)
    path = "parametrizations.weight.parametrizations.original.original"
    assert target.get_parameter(path) is source.get_parameter(path)


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


def test_transfer_makes_what_is_missing_as_it_was() -> None:
    source = nn.Module()
    source.register_buffer("mask", torch.ones(2))
    P.register_parametrization(source, "mask", Double())
    target = P.transfer_parametrizations_and_params(source, nn.Linear(2, 2), "mask")
    torch.testing.assert_close(target.mask, source.mask)
    assert "mask" not in dict(target.named_parameters())
    with pytest.raises(ValueError, match="on 'weight'"):
        P.transfer_parametrizations_and_params(source, nn.Linear(2, 2), "weight")


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


def test_an_error_in_a_map_is_itself_with_its_address() -> None:
    def broken(X: Tensor) -> Tensor:
        return X.no_such_attribute  # type: ignore[attr-defined,no-any-return]

    model: Any = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(2, 2)))
    P.register_parametrization(model[1][0], "weight", Double())
    P.register_parametrization(model[1][0], "weight", broken, unsafe=True)
    with pytest.raises(AttributeError, match="no_such_attribute") as caught:
        model(torch.ones(1, 2))
    note = "while evaluating 'weight' of Linear at '1.0': map 1, FunctionMap"
    assert caught.value.__notes__ == [note]


def test_an_error_in_a_right_inverse_has_its_address_too() -> None:
    def refuse(X: Tensor) -> Tensor:
        if X.min() < 0:
            raise ValueError("negative")
        return X

    linear = P.register_parametrization(
        nn.Linear(2, 2), "bias", torch.abs, right_inverse=lambda X: X.abs()
    )
    P.register_parametrization(linear, "weight", lambda X: X.abs(), unsafe=True)
    chain: Any = linear.get_submodule("parametrizations.weight")
    chain[0].right_inverse = refuse
    with pytest.raises(ValueError, match="negative") as caught:
        linear.weight = -torch.ones(2, 2)
    assert caught.value.__notes__ == ["while assigning 'weight' of Linear: map 0, FunctionMap"]


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


def test_the_namespace_shows_real_buffers_only() -> None:
    module = nn.Module()
    module.register_buffer("real", torch.ones(1))
    module.register_buffer("mask", torch.ones(1))
    P.register_parametrization(module, "mask", Double())
    namespace: Any = module._buffers
    assert isinstance(namespace, AttributeNamespace)
    assert list(namespace) == ["real"]
    assert len(namespace) == 1
    assert namespace
    assert list(namespace.values()) == [module.real]
    assert set(namespace.keys()) == {"real", "mask"}
    assert namespace.get("mask") is not None
    assert namespace.get("other", 3) == 3
    assert namespace.pop("other", 3) == 3
    with pytest.raises(TypeError, match="cannot delete"):
        namespace.pop("mask")
    assert "mask" in repr(namespace)
    module.real = torch.zeros(1)
    assert list(copy.copy(namespace).items()) == [("real", module.real)]
    del module.real
    assert not namespace


def test_a_parameter_may_take_the_place_of_a_real_buffer() -> None:
    module: Any = nn.Module()
    module.register_buffer("real", torch.ones(1))
    module.register_buffer("mask", torch.ones(1))
    P.register_parametrization(module, "mask", Double())
    module.real = nn.Parameter(torch.zeros(1))
    assert list(dict(module.named_parameters())) == ["real"]
    assert "real" not in module._buffers


class Bad(nn.Module):
    """A map whose forward and right_inverse are given."""

    def __init__(self, forward: Any, inverse: Any = None) -> None:
        super().__init__()
        self.functions = (forward, inverse)

    def forward(self, X: Tensor) -> Any:
        return self.functions[0](X)

    def right_inverse(self, X: Tensor) -> Any:
        if self.functions[1] is None:
            raise NotImplementedError
        return self.functions[1](X)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Bad(lambda X: (X, X)), "A parametrization must return a tensor. Got tuple"),
        (Bad(lambda X: X.double()), "may not change the dtype"),
        (Bad(lambda X: X[:1]), r"may not change the shape(.|\n)*weight\.shape: torch.Size\(\[2, 2"),
        (Bad(torch.sin, lambda X: (X, X)), "right_inverse must return a tensor. Got tuple"),
        (Bad(torch.sin, lambda X: X.double()), "right_inverse must have the same dtype"),
        (Bad(torch.sin, lambda X: X[:1]), "right_inverse must have the same shape"),
    ],
)
def test_a_map_that_does_not_fit_between_is_refused(wrong: Bad, message: str) -> None:
    linear = P.register_parametrization(nn.Linear(2, 2), "weight", Double())
    before = linear.weight.detach().clone()
    with pytest.raises(ValueError, match=message):
        P.register_parametrization(linear, "weight", wrong)
    torch.testing.assert_close(linear.weight.detach(), before)


def test_an_inverse_that_is_not_implemented_is_the_identity_at_registration() -> None:
    linear = P.register_parametrization(nn.Linear(2, 2), "weight", Double())
    before = linear.weight.detach().clone()
    P.register_parametrization(linear, "weight", Bad(torch.sin))
    torch.testing.assert_close(linear.weight.detach(), before.sin())
    with pytest.raises(NotImplementedError):
        linear.weight = torch.ones(2, 2)


def test_a_note_is_kept_where_exceptions_take_none() -> None:
    class OldError:
        pass

    error: Any = OldError()
    add_note(error, "where it was")
    assert error.__notes__ == ["where it was"]


class Based(nn.Module):
    """`X + base`, where assigning makes the value the base."""

    base: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("base", None)

    def forward(self, X: Tensor) -> Tensor:
        return X if self.base is None else X + self.base

    def right_inverse(self, Y: Tensor) -> Tensor:
        self.base = Y.clone()
        return torch.zeros_like(Y)


def test_the_trial_of_a_further_map_leaves_no_trace_in_it() -> None:
    layer = linear(Double())
    expected = layer.weight.detach().clone()
    P.register_parametrization(layer, "weight", Based())
    assert layer.weight.equal(expected)
    layer.weight = torch.eye(3)
    assert layer.weight.equal(torch.eye(3))
    assert chain_of(layer)[1].base.equal(torch.eye(3))
