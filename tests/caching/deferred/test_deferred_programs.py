"""Deferred gradients with checkpoints, compiled code, transforms and exported programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

import paramdesc as P
from paramdesc.caching.active import active_scopes
from tests.caching.deferred.comparing import (
    assert_close,
    assert_same,
    assert_same_gradients,
    default_dtype,
)
from tests.caching.deferred.loops import accumulate, backward, batches, loss_of, trained
from tests.caching.deferred.models import layer, two_layers


def test_a_gradient_penalty_inside_is_differentiated() -> None:
    def loop(model: Any) -> None:
        for batch in batches():
            batch.requires_grad_()
            output = model(batch).tanh().sum()
            (gradient,) = torch.autograd.grad(output, batch, create_graph=True)
            backward(output + gradient.pow(2).sum())

    assert_same(two_layers, loop)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_region_inside_gives_the_same(reentrant: bool) -> None:
    def loop(model: Any) -> None:
        for batch in batches():
            hidden = checkpoint(model[0], batch.requires_grad_(), use_reentrant=reentrant)
            output = checkpoint(model[1:], hidden, use_reentrant=reentrant)
            backward(loss_of(output))

    assert_same(two_layers, loop)


def test_a_compiled_model_in_a_scope_gives_the_same_by_one_evaluation() -> None:
    def loop(model: Any) -> None:
        torch.compiler.reset()
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        accumulate(compiled)
        for scope in active_scopes():
            assert (scope.misses, scope.hits > 0) == (2, True)
            scope.backward()
            accumulate(compiled)  # with values evaluated anew
            assert scope.misses == 4
        if not active_scopes():
            accumulate(compiled)

    with default_dtype(torch.float64):
        assert_same_gradients(trained(two_layers, loop, True), trained(two_layers, loop, False))


def test_gradients_of_a_functional_call_go_to_its_tensors() -> None:
    torch.manual_seed(0)
    linear = layer().double()
    given = [
        {name: (x.detach() / 2).requires_grad_() for name, x in linear.named_parameters()}
        for _ in range(2)
    ]
    for deferred, tensors in zip((True, False), given, strict=True):
        with P.cached(linear, deferred=deferred), default_dtype(torch.float64):
            for batch in batches():
                backward(loss_of(torch.func.functional_call(linear, tensors, batch)))
    for name, x in linear.named_parameters():
        assert x.grad is None
        actual, expected = (tensors[name].grad for tensors in given)
        assert actual is not None
        assert expected is not None
        assert_close(actual, expected)


TRANSFORMS: dict[str, Callable[..., Any]] = {
    "vmap": lambda model, x, _: torch.vmap(model)(x),
    "grad": lambda model, x, call: torch.func.grad(call)(parameters(model)),
    "vjp": lambda model, x, call: torch.func.vjp(call, parameters(model))[1](torch.ones(())),
    "jacrev": lambda model, x, call: torch.func.jacrev(call)(parameters(model)),
    "jvp": lambda model, x, call: torch.func.jvp(call, (parameters(model),), (parameters(model),)),
    "forward mode": lambda model, x, call: tangent(model, call),
    "per sample": lambda model, x, call: torch.vmap(
        torch.func.grad(lambda given, row: torch.func.functional_call(model, given, row).sum()),
        in_dims=(None, 0),
    )(parameters(model), x),
}


def parameters(model: nn.Module) -> Any:
    return {name: x.detach() for name, x in model.named_parameters()}


def tangent(model: nn.Module, call: Callable[[Any], Tensor]) -> Any:
    dual: Any = forward_ad
    with dual.dual_level():
        duals = {name: dual.make_dual(x, x.detach().cos()) for name, x in model.named_parameters()}
        return dual.unpack_dual(call(duals)).tangent


@pytest.mark.filterwarnings("ignore:.torch.jit")  # torch.func.jvp scripts its decompositions
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_transforms_see_through_to_the_originals(transform: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    model, batch = layer(), batches()[0]

    def call(given: Any) -> Tensor:
        return loss_of(torch.func.functional_call(model, given, batch))

    expected = transform(model, batch, call)
    with P.cached(model, deferred=True):
        accumulate(model)
        torch.testing.assert_close(transform(model, batch, call), expected)


def test_an_exported_program_still_trains_its_originals() -> None:
    linear, batch = layer(), batches()[0]
    with P.cached(linear, deferred=True):
        program = torch.export.export(linear, (batch,), strict=False).module()
    assert_trains(program, linear)


@pytest.mark.filterwarnings("ignore:.torch.jit")  # its end is announced
def test_a_traced_program_still_trains_its_originals() -> None:
    linear, batch = layer(), batches()[0]
    with P.cached(linear, deferred=True):
        traced: Any = torch.jit.trace(linear, batch)  # type: ignore[no-untyped-call]
    assert_trains(traced, linear)


def assert_trains(program: Any, linear: nn.Module) -> None:
    name = "parametrizations.weight.original"
    gradients = [
        torch.autograd.grad(loss_of(model(batches()[0])), model.get_parameter(name))[0]
        for model in (program, linear)
    ]
    assert_close(*gradients)
