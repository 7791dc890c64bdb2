"""What a persistent scope evaluates anew, by mode, transform and tracer."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import paramdesc as P
from tests.caching.persistent.layers import assert_right, exponential, read_in
from tests.helpers import Double, chain_of, original_of

# what is not kept


def test_with_gradients_it_is_an_ordinary_scope() -> None:
    layer, parametrization = exponential()
    persistent = P.cached(layer, persistent=True)
    gradients = []
    for _ in range(2):
        with persistent as scope:
            first = layer.weight
            assert layer.weight is first
            (gradient,) = torch.autograd.grad(first.sum(), original_of(layer))
            gradients.append(gradient)
            assert layer.weight is not first
        assert len(scope) == 0
        value = weakref.ref(first)
        del first
        assert value() is None
    torch.testing.assert_close(gradients[0], original_of(layer).detach().exp())
    torch.testing.assert_close(gradients[0], gradients[1])
    assert parametrization.calls.count == 4


def test_a_pass_with_gradients_leaves_what_is_kept_without() -> None:
    layer, _ = exponential()
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad():
        kept = read_in(persistent, layer)
    assert read_in(persistent, layer).requires_grad
    with torch.no_grad():
        assert read_in(persistent, layer) is kept


def test_a_random_map_in_training_mode_is_evaluated_for_each_entry() -> None:
    torch.manual_seed(0)
    layer: Any = P.register_parametrization(nn.Linear(9, 9), "weight", nn.Dropout()).train()
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad():
        with persistent as scope:
            first = layer.weight
            assert layer.weight is first
        assert len(scope) == 0
        assert not torch.equal(read_in(persistent, layer), first)
        layer.eval()
        chain_of(layer)[0].train()
        assert not torch.equal(read_in(persistent, layer), read_in(persistent, layer))


def in_vmap(layer: Any) -> None:
    inputs = torch.ones(2, 3)
    torch.testing.assert_close(torch.vmap(layer)(inputs), layer(inputs))


def in_a_vmap_over_the_state(layer: Any) -> None:
    states = {name: torch.stack([x, x + 1]) for name, x in layer.state_dict().items()}

    def call(state: dict[str, Tensor]) -> Any:
        return torch.func.functional_call(layer, state, torch.ones(1, 3))

    expected = [call({name: x[i] for name, x in states.items()}) for i in range(2)]
    torch.testing.assert_close(torch.vmap(call)(states), torch.stack(expected))


def in_fake_mode(layer: Any) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert type(layer.weight) is not Tensor


def in_a_trace(layer: Any) -> None:
    traced: Any = torch.jit.trace(layer, torch.ones(1, 3))  # type: ignore[no-untyped-call]
    assert "aten::exp" in str(traced.inlined_graph)


def in_an_export(layer: Any) -> None:
    program = torch.export.export(layer, (torch.ones(1, 3),), strict=False)
    assert "aten.exp" in str(program.graph)


@pytest.mark.filterwarnings("ignore:.torch.jit")  # its end is announced, in a class that changes
@pytest.mark.parametrize(
    "other", [in_vmap, in_a_vmap_over_the_state, in_fake_mode, in_a_trace, in_an_export]
)
@pytest.mark.parametrize("is_first", [True, False])
def test_no_other_world_gets_or_leaves_a_value(
    other: Callable[[Any], None], is_first: bool
) -> None:
    layer, _ = exponential()
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad():
        kept = None if is_first else read_in(persistent, layer)
        with persistent:
            other(layer)
            if not is_first and other in (in_vmap, in_fake_mode, in_a_trace):
                assert layer.weight is kept  # the others lend other tensors to the layer
        with persistent:
            assert type(layer.weight) is Tensor
            assert_right(layer)


def test_functional_call_gets_its_own_value_and_leaves_none() -> None:
    layer, _ = exponential()
    persistent = P.cached(layer, persistent=True)
    inputs, name = torch.ones(1, 3), "parametrizations.weight.original"
    with torch.no_grad():
        expected = layer(inputs)
        for number in (0.0, 1.0):
            state = {name: torch.full((3, 3), number)}
            with persistent:
                torch.testing.assert_close(layer(inputs), expected)
                output = torch.func.functional_call(layer, state, inputs)
                weight = torch.full((3, 3), number).exp()
                torch.testing.assert_close(output, inputs @ weight.T + layer.bias)
            with persistent:
                torch.testing.assert_close(layer(inputs), expected)


@pytest.mark.parametrize("bound", ["tensor", "module", "partial", "method"])
def test_a_function_with_others_bound_to_it_keeps_nothing(bound: str) -> None:
    other = nn.Linear(3, 3)
    tensor = other.weight.detach()
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "tensor": lambda X: X * tensor,
        "module": lambda X: X * other.weight,
        "partial": functools.partial(torch.mul, tensor),
        "method": tensor.mul,
    }
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", functions[bound]).eval()
    kept = P.cached(layer, persistent=True)
    with torch.no_grad():
        for _ in range(2):
            with kept:
                expected = layer.get_parameter("parametrizations.weight.original") * tensor
                assert torch.equal(layer.weight, expected)
            tensor.mul_(2)


def test_a_model_in_shared_memory_keeps_nothing() -> None:
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", Double()).eval()
    kept = P.cached(layer.share_memory(), persistent=True)
    for _ in range(2):
        with kept as scope, torch.no_grad():
            assert layer.weight is layer.weight  # as in an ordinary scope
    assert scope.misses == 2
