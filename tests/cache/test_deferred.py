"""Deferred gradients: those of a loop without a scope, by one backward pass of the maps."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.autograd import forward_ad
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing.spawn import ProcessContext, spawn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import paramdesc as P
from paramdesc.cache.scopes import active_scopes
from paramdesc.errors import DeferredGradientError
from paramdesc.parametrizations import Orthogonal, Symmetric
from tests.helpers import ROOT, Double, Exp, Shift, Sum, chain_of, original_of

Loop = Callable[[Any], None]


# the same gradients


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def batches(count: int = 4) -> list[Tensor]:
    """Micro-batches, the same ones each time."""
    generator = torch.Generator().manual_seed(1)
    numbers = torch.randn(count, 5, 3, generator=generator, dtype=torch.float64)
    return list(numbers.to(torch.get_default_dtype()))


def loss_of(output: Tensor) -> Tensor:
    return output.abs().pow(2).sum()


def backward(loss: Tensor, **options: Any) -> None:
    torch.autograd.backward(loss, **options)


def accumulate(model: Any) -> None:
    for batch in batches():
        backward(loss_of(model(batch)))


def trained(make: Callable[[], nn.Module], loop: Loop, deferred: bool) -> nn.Module:
    torch.manual_seed(0)
    model = make()
    with P.cached(model, deferred=True) if deferred else nullcontext():
        loop(model)
    return model


def assert_close(actual: Tensor, expected: Tensor) -> None:
    """To 1e-12 in double precision, else to rounding, of the largest number in `expected`."""
    is_double = expected.dtype in (torch.float64, torch.complex128)
    atol = (1e-12 if is_double else 1e-5) * float(expected.abs().max())
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def assert_same_gradients(model: nn.Module, expected: nn.Module) -> None:
    gradients = {name: x.grad for name, x in model.named_parameters()}
    for name, x in expected.named_parameters():
        gradient = gradients.pop(name)
        if x.grad is None or gradient is None:
            assert gradient is x.grad, name
        else:
            assert x.grad.abs().max() > 0, name
            assert_close(gradient, x.grad)
    assert not gradients


def assert_same(make: Callable[[], nn.Module], loop: Loop = accumulate) -> None:
    """That `loop` brings the same gradients with and without deferral, in both precisions."""
    for dtype in (torch.float64, torch.float32):
        with default_dtype(dtype):
            assert_same_gradients(trained(make, loop, True), trained(make, loop, False))


class Product(nn.Module):
    """`A exp(B)`, which has two originals."""

    def forward(self, A: Tensor, B: Tensor) -> Tensor:
        return A * B.exp()

    def right_inverse(self, Y: Tensor) -> tuple[Tensor, Tensor]:
        return Y, torch.zeros_like(Y)


class Times(nn.Module):
    """`X` times a tensor that belongs to something else."""

    def __init__(self, read: Callable[[], Tensor]) -> None:
        super().__init__()
        self.read = read

    def forward(self, X: Tensor) -> Tensor:
        return X * self.read().tanh()


class Doubled(nn.Module):
    """An unsafe map: another shape."""

    def forward(self, X: Tensor) -> Tensor:
        return torch.cat([X, X.exp()])


class ToComplex(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1j * x.flip(-1)


def layer(*maps: nn.Module, unsafe: bool = False, **options: Any) -> Any:
    """A layer whose weight goes through `maps`."""
    linear = nn.Linear(3, 3, **options)
    for parametrization in maps or (Exp(),):
        P.register_parametrization(linear, "weight", parametrization, unsafe=unsafe)
    return linear


def two_layers() -> nn.Module:
    return nn.Sequential(layer(), nn.Tanh(), layer(Exp()))


def nested() -> nn.Module:
    linear = layer()
    P.register_parametrization(chain_of(linear), "original", nn.Tanh())
    P.register_parametrization(chain_of(linear).parametrizations.original, "original", Exp())
    return linear  # type: ignore[no-any-return]


def closing_over() -> nn.Module:
    other = nn.Parameter(torch.randn(3, 3))
    linear = layer(Times(lambda: other), Exp())
    linear.register_parameter("other", other)
    return linear  # type: ignore[no-any-return]


def reading_another_layer() -> nn.Module:
    first = layer()
    return nn.Sequential(layer(Times(lambda: first.weight)), nn.Tanh(), first)


def used_twice() -> nn.Module:
    linear = layer()
    return nn.Sequential(linear, nn.Tanh(), linear)


def tied() -> nn.Module:
    first, second = layer(), layer(nn.Tanh())
    chain_of(second).original = original_of(first)
    return nn.Sequential(first, nn.Tanh(), second)


def over_a_buffer() -> nn.Module:
    linear = nn.Linear(3, 3)
    del linear.weight
    linear.register_buffer("weight", torch.randn(3, 3))
    return P.register_parametrization(linear, "weight", Exp())


def over_a_buffer_with_a_parameter() -> nn.Module:
    linear = over_a_buffer()
    return P.register_parametrization(linear, "weight", Shift())


def frozen() -> nn.Module:
    model: Any = two_layers()
    original_of(model[0]).requires_grad_(False)
    return model  # type: ignore[no-any-return]


def several_tensors_of_one_layer() -> nn.Module:
    linear = layer()
    P.register_parametrization(linear, "bias", Exp())
    return linear  # type: ignore[no-any-return]


def complex_layer() -> nn.Module:
    """In the precision that is the default."""
    dtype = (1j * torch.zeros(())).dtype
    return nn.Sequential(ToComplex(), layer(Exp(), dtype=dtype))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "one map": layer,
    "two layers": two_layers,
    "several originals": lambda: layer(Product()),
    "several originals, linear": lambda: layer(Sum()),
    "a chain": lambda: layer(Exp(), nn.Tanh(), Double()),
    "several originals in a chain": lambda: layer(Product(), nn.Tanh()),
    "nested": nested,
    "a parameter of the map": lambda: layer(Shift(), nn.Tanh(), Shift()),
    "a parameter of another module": closing_over,
    "a weight of another layer": reading_another_layer,
    "used twice": used_twice,
    "tied": tied,
    "a buffer": over_a_buffer,
    "a buffer, and a parameter of the map": over_a_buffer_with_a_parameter,
    "frozen": frozen,
    "weight and bias": several_tensors_of_one_layer,
    "complex": complex_layer,
    "unsafe": lambda: layer(Doubled(), unsafe=True, bias=False),
    "the original itself": lambda: layer(nn.Identity()),
    "orthogonal": lambda: P.register_parametrization(nn.Linear(3, 3), "weight", Orthogonal()),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_the_gradients_are_those_without_a_scope(make: Callable[[], nn.Module]) -> None:
    assert_same(make)


def test_a_map_that_returns_a_view_of_its_original_gets_its_gradient() -> None:
    class Transposed(nn.Module):
        def forward(self, X: Tensor) -> Tensor:
            return X.T

    assert_same(lambda: layer(Transposed()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_sparse_gradient_adds_up(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    embedding = nn.Embedding(5, 3, sparse=True, dtype=dtype)
    P.register_parametrization(embedding, "weight", Double())
    gradients = []
    for deferred in (True, False):
        embedding.zero_grad()
        with P.cached(embedding, deferred=deferred):
            for index in range(3):
                backward(loss_of(embedding(torch.tensor([1, index]))))
        gradients.append(original_of(embedding).grad.to_dense())
    assert gradients[1].abs().max() > 0
    assert_close(*gradients)


def test_a_gradient_is_added_to_what_is_in_grad() -> None:
    def loop(model: Any) -> None:
        for x in model.parameters():
            x.grad = torch.ones_like(x)
        accumulate(model)

    assert_same(two_layers, loop)
    model = two_layers()
    before = {x: torch.ones_like(x) for x in model.parameters()}
    for x, gradient in before.items():
        x.grad = gradient
    with P.cached(model, deferred=True):
        accumulate(model)
    assert all(x.grad is gradient for x, gradient in before.items())


def test_reads_without_gradients_between_the_passes_change_nothing() -> None:
    def loop(model: Any) -> None:
        for batch in batches():
            with torch.no_grad():
                model(batch)
            backward(loss_of(model(batch)))

    assert_same(two_layers, loop)


def test_a_value_that_only_a_graph_holds_still_gets_its_gradient() -> None:
    def loop(model: Any) -> None:
        losses = []
        for batch in batches():
            losses.append(loss_of(model(batch)))
            with torch.no_grad():  # takes its place in the scope
                model(batch)
        for loss in losses:
            backward(loss)

    assert_same(two_layers, loop)


def test_two_losses_of_one_pass_both_count() -> None:
    def loop(model: Any) -> None:
        for batch in batches():
            output = model(batch)
            backward(loss_of(output), retain_graph=True)
            backward(output.sum())

    assert_same(two_layers, loop)


def test_a_write_to_an_original_between_the_passes_starts_a_new_value() -> None:
    def loop(model: Any) -> None:
        for batch in batches():
            backward(loss_of(model(batch)))
            for scope in active_scopes():
                scope.backward()
            with torch.no_grad():
                original_of(model).mul_(0.5)

    assert_same(layer, loop)


# how often the maps run


class CountedExp(torch.autograd.Function):
    """exp, which counts both of its passes."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, count: Callable[[list[str]], None]) -> Tensor:
        count(["forward"])
        ctx.count = count
        value = X.exp()
        ctx.save_for_backward(value)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        ctx.count(["backward"])
        return gradient * ctx.saved_tensors[0], None


class Counted(nn.Module):
    def __init__(self, passes: Counter[str]) -> None:
        super().__init__()
        self.count = passes.update  # a dict would be watched by scopes

    def forward(self, X: Tensor) -> Any:
        return CountedExp.apply(X, self.count)  # type: ignore[no-untyped-call]


def counted() -> tuple[Any, Counter[str]]:
    """A layer, and what counts the passes of its map."""
    passes: Counter[str] = Counter()
    linear = layer(Counted(passes))
    passes.clear()
    return linear, passes


def test_sixteen_passes_take_one_evaluation_and_one_backward_pass_of_the_map() -> None:
    linear, passes = counted()
    with P.cached(linear, deferred=True) as scope:
        for batch in batches(16):
            backward(loss_of(linear(batch)))
        assert passes == {"forward": 1}
    assert passes == {"forward": 1, "backward": 1}
    assert (scope.misses, scope.hits) == (1, 15)


def test_each_call_of_backward_takes_one_of_the_map() -> None:
    linear, passes = counted()
    with P.cached(linear, deferred=True) as scope:
        for number in (1, 2, 3):
            accumulate(linear)
            scope.backward()
            assert passes == {"forward": number, "backward": number}
        scope.backward()
    assert passes == {"forward": 3, "backward": 3}


def test_a_kept_graph_takes_no_second_evaluation() -> None:
    linear, passes = counted()
    with P.cached(linear, deferred=True) as scope:
        accumulate(linear)
        scope.backward(retain_graph=True)
        accumulate(linear)
    assert passes == {"forward": 1, "backward": 2}
    expected = layer(Exp())
    expected.load_state_dict(linear.state_dict())
    accumulate(expected)
    accumulate(expected)
    assert_same_gradients(linear, expected)


def test_a_value_that_no_gradient_reaches_takes_no_backward_pass() -> None:
    linear, passes = counted()
    with P.cached(linear, deferred=True) as scope:
        assert linear.weight is linear.weight
        scope.backward()
    assert passes == {"forward": 1}
    assert original_of(linear).grad is None


def test_gradients_in_bfloat16_add_up_in_float32() -> None:
    linear = layer(Double()).bfloat16()
    with P.cached(linear, deferred=True):
        for factor in [1.0] + 256 * [2.0**-9]:  # in bfloat16, 1 + 2^-9 is 1
            backward((factor * linear.weight).sum())
    assert original_of(linear).grad.dtype == torch.bfloat16
    assert torch.equal(original_of(linear).grad, torch.full((3, 3), 3.0, dtype=torch.bfloat16))


# hooks


def test_linear_hooks_on_originals_give_the_same_and_run_once() -> None:
    calls: Counter[str] = Counter()

    def loop(model: Any) -> None:
        original = original_of(model)

        def triple(gradient: Tensor) -> Tensor:
            calls["tensor"] += 1
            return 3 * gradient

        def see(leaf: Tensor) -> None:
            calls["accumulated"] += 1
            assert leaf is original
            assert leaf.grad is not None

        original.register_hook(triple)
        original.register_post_accumulate_grad_hook(see)
        accumulate(model)

    for deferred, times in ((True, 1), (False, 4)):
        calls.clear()
        trained(layer, loop, deferred)
        assert calls == {"tensor": times, "accumulated": times}
    assert_same(layer, loop)


def test_an_optimizer_may_step_in_a_hook_on_its_original() -> None:
    linear = layer()
    original = original_of(linear)
    optimizer = torch.optim.SGD([original], lr=1e-3)
    before = original.detach().clone()

    def step(leaf: Tensor) -> None:
        optimizer.step()
        optimizer.zero_grad()

    original.register_post_accumulate_grad_hook(step)
    with P.cached(linear, deferred=True) as scope:
        for _ in range(2):
            accumulate(linear)
            scope.backward()
            assert original.grad is None
            assert not torch.equal(original, before)
            before = original.detach().clone()


def test_hooks_on_modules_run_at_each_pass_and_give_the_same() -> None:
    calls: Counter[str] = Counter()

    def loop(model: Any) -> None:
        def scale(module: nn.Module, gradients: Any, outputs: Any) -> Any:
            calls["backward"] += 1
            return tuple(None if x is None else 2 * x for x in gradients)

        def shift(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            calls["forward"] += 1
            return output + 1

        model[2].register_full_backward_hook(scale)
        model[0].register_forward_hook(shift)
        accumulate(model)

    trained(two_layers, loop, deferred=True)
    assert calls == {"backward": 4, "forward": 4}
    assert_same(two_layers, loop)


def test_hooks_on_maps_run_once_and_give_the_same() -> None:
    calls: Counter[str] = Counter()

    def loop(model: Any) -> None:
        def scale(module: nn.Module, gradients: Any, outputs: Any) -> Any:
            calls["backward"] += 1
            return (2 * gradients[0],)

        chain_of(model)[0].register_full_backward_hook(scale)
        accumulate(model)

    trained(layer, loop, deferred=True)
    assert calls == {"backward": 1}
    assert_same(layer, loop)


def test_hooks_on_the_value_see_each_pass() -> None:
    linear, seen = layer(), list[Tensor]()
    with P.cached(linear, deferred=True):
        linear.weight.register_hook(seen.append)
        accumulate(linear)
    assert len(seen) == 4


@pytest.mark.parametrize("make", [tied, layer], ids=["of two layers", "of two values"])
def test_hooks_on_an_original_run_once(make: Callable[[], nn.Module]) -> None:
    calls: Counter[str] = Counter()
    model = make()
    (original,) = originals(model)
    hooked: Any = original
    hooked.register_hook(lambda gradient: calls.update(["tensor"]))
    hooked.register_post_accumulate_grad_hook(lambda leaf: calls.update(["accumulated"]))
    with P.cached(model, deferred=True):
        for batch in batches():
            backward(loss_of(model(batch)))
            with torch.no_grad():  # the next pass goes through another value
                model(batch)
    assert calls == {"tensor": 1, "accumulated": 1}


def test_maps_may_share_a_part_of_their_graphs() -> None:
    def make() -> nn.Module:
        original = nn.Parameter(torch.randn(3, 3))
        shared = original.exp()
        model = nn.Sequential(layer(Times(lambda: shared)), layer(Times(lambda: shared)))
        model.register_parameter("shared", original)
        return model

    assert_same(make, lambda model: backward(loss_of(model(batches()[0]))))


# with the other parts of torch


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


def scaled_steps(model: Any, scope: Any, infinite_at: int = -1) -> list[float]:
    """A loop with autocast, GradScaler and clipping; the scales that it goes through."""
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    scales = []
    for step in range(3):
        optimizer.zero_grad()
        for batch in batches():
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(model(batch))
            backward(scaler.scale(loss * float("inf") if step == infinite_at else loss))
        if scope is not None:
            scope.backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    return scales


@pytest.mark.parametrize("infinite_at", [-1, 1])
def test_steps_with_autocast_and_a_scaler_are_the_same(infinite_at: int) -> None:
    torch.manual_seed(0)
    model, expected = two_layers(), two_layers()
    expected.load_state_dict(model.state_dict())
    start = expected.state_dict()["0.bias"].clone()
    scales = scaled_steps(expected, None, infinite_at)
    with P.cached(model, deferred=True) as scope:
        assert scaled_steps(model, scope, infinite_at) == scales
    assert (128.0 in scales) == (infinite_at == 1)
    assert not torch.equal(expected.state_dict()["0.bias"], start)
    for name, x in expected.state_dict().items():
        # a sum in another order may round to the other bfloat16 in the next step
        torch.testing.assert_close(model.state_dict()[name], x, rtol=1e-3, atol=1e-4)


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "plain": lambda x: torch.optim.AdamW(x, foreach=False),
    "foreach": lambda x: torch.optim.AdamW(x, foreach=True),
    "fused": lambda x: torch.optim.AdamW(x, fused=True),
    "fused SGD": lambda x: torch.optim.SGD(x, lr=0.01, fused=True),
}


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_training_in_one_scope_is_the_same(
    make_optimizer: Callable[[Any], torch.optim.Optimizer],
) -> None:
    def loop(model: Any) -> None:
        optimizer = make_optimizer(model.parameters())
        for _ in range(3):
            optimizer.zero_grad()
            accumulate(model)
            for scope in active_scopes():
                scope.backward()
            optimizer.step()

    with default_dtype(torch.float64):
        model, expected = trained(two_layers, loop, True), trained(two_layers, loop, False)
    for name, x in expected.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], x, rtol=1e-9, atol=0)


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


# recurrence


class Recurrent(nn.Module):
    """A loop over a cell, or nn.LSTM as it is, in windows."""

    def __init__(self, steps: bool = False, network: bool = False) -> None:
        super().__init__()
        self.has_steps = steps
        cell: Any = nn.LSTM(3, 4) if network else nn.RNNCell(3, 4)
        name, parametrization = (
            ("weight_hh_l0", nn.Tanh()) if network else ("weight_hh", Symmetric())
        )
        self.cell = P.register_parametrization(cell, name, parametrization)

    def forward(self, x: Tensor, state: Any) -> Any:
        if isinstance(self.cell, nn.RNNCell):
            for _ in range(3):
                state = self.cell(x, state)
            return state, state
        return self.cell(x.unsqueeze(0).expand(3, -1, -1), state)


def truncated(model: Recurrent) -> None:
    """Backpropagation through time, by windows of three steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    state: Any = None
    for batch in batches():
        output, state = model(batch, state)
        backward(loss_of(output))
        state = tuple(x.detach() for x in state) if isinstance(state, tuple) else state.detach()
        if model.has_steps:
            for scope in active_scopes():
                scope.backward()
            optimizer.step()  # the gradients are not reset, so they tell of all windows


@pytest.mark.parametrize("network", [False, True], ids=["RNNCell", "LSTM"])
@pytest.mark.parametrize("steps", [False, True], ids=["one step after", "steps inside"])
def test_truncated_backpropagation_gives_the_same(steps: bool, network: bool) -> None:
    assert_same(lambda: Recurrent(steps, network), truncated)


def test_a_cell_is_evaluated_once_for_all_windows() -> None:
    model = Recurrent()
    with P.cached(model, deferred=True) as scope:
        truncated(model)
    assert (scope.misses, scope.hits) == (1, 11)


def test_a_network_keeps_no_leaf_of_a_scope_that_is_over() -> None:
    model = Recurrent(network=True)
    for _ in range(2):
        with P.cached(model, deferred=True):
            truncated(model)
    truncated(model)


# nesting, decorators, options


def test_a_value_of_an_outer_scope_has_its_gradient_at_once() -> None:
    linear = layer()
    with P.cached(linear), P.cached(linear, deferred=True) as inner:
        accumulate(linear)
        assert original_of(linear).grad is not None
        before = original_of(linear).grad.clone()
        inner.backward()
        assert torch.equal(original_of(linear).grad, before)


def test_a_value_of_an_outer_deferred_scope_waits_for_that() -> None:
    linear = layer()
    with P.cached(linear, deferred=True):
        for kind in (P.cached(linear), P.cached(linear, deferred=True)):
            with kind:
                accumulate(linear)
            assert original_of(linear).grad is None
    expected = layer()
    expected.load_state_dict(linear.state_dict())
    accumulate(expected)
    accumulate(expected)
    assert_same_gradients(linear, expected)


def test_what_an_inner_scope_adds_ends_with_it() -> None:
    first, second = layer(), layer()
    with P.cached(first, deferred=True):
        with P.cached(second, deferred=True):
            accumulate(nn.Sequential(first, second))
        assert original_of(first).grad is None
        assert original_of(second).grad is not None
    assert original_of(first).grad is not None


def test_a_decorated_function_has_its_gradients_when_it_returns() -> None:
    linear, passes = counted()
    run = P.cached(linear, deferred=True)(accumulate)
    for number in (1, 2):
        run(linear)
        assert passes == {"forward": number, "backward": number}
        assert original_of(linear).grad is not None


def test_a_decorated_coroutine_has_its_gradients_when_it_returns() -> None:
    linear, passes = counted()

    @P.cached(linear, deferred=True)
    async def run() -> None:
        for batch in batches():
            await asyncio.sleep(0)
            backward(loss_of(linear(batch)))

    async def main() -> None:
        await asyncio.gather(run(), run())

    asyncio.run(main())
    assert passes == {"forward": 2, "backward": 2}


def test_a_scope_may_be_persistent_and_deferred() -> None:
    linear, passes = counted()
    linear.eval()
    scope = P.cached(linear, persistent=True, deferred=True)
    for number in (1, 2):
        with scope:
            with torch.no_grad():
                linear(batches()[0])
            accumulate(linear)
        assert passes == {"forward": 1 + number, "backward": number}


# threads and tasks


def test_threads_in_copies_of_the_context_add_up() -> None:
    def loop(model: Any) -> None:
        start = threading.Barrier(4)

        def work(batch: Tensor) -> None:
            start.wait(timeout=60)
            backward(loss_of(model(batch)))

        threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(work, batch))
            for batch in batches()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)

    for _ in range(5):
        with default_dtype(torch.float64):
            assert_same_gradients(
                trained(two_layers, loop, True), trained(two_layers, accumulate, False)
            )


def test_a_thread_without_the_context_has_its_gradient_at_once() -> None:
    linear = layer()
    with P.cached(linear, deferred=True):
        thread = threading.Thread(target=accumulate, args=(linear,))
        thread.start()
        thread.join(timeout=60)
        assert original_of(linear).grad is not None


def test_tasks_started_inside_add_up() -> None:
    linear, passes = counted()
    expected = layer()
    expected.load_state_dict(linear.state_dict())
    accumulate(expected)

    async def work(batch: Tensor) -> None:
        await asyncio.sleep(0)
        output = linear(batch)
        await asyncio.sleep(0)
        backward(loss_of(output))

    async def main() -> None:
        with P.cached(linear, deferred=True):
            await asyncio.gather(*map(work, batches()))
            assert original_of(linear).grad is None

    asyncio.run(main())
    assert passes == {"forward": 1, "backward": 1}
    assert_same_gradients(linear, expected)


# what is refused

INSIDE = r"(?s)'weight'.*Call loss.backward\(\) before, inside of the scope"


def test_a_backward_pass_after_the_scope_is_refused() -> None:
    linear = layer()
    with P.cached(linear, deferred=True):
        accumulate(linear)
        late = loss_of(linear(batches()[0]))
    before = original_of(linear).grad.clone()
    with pytest.raises(DeferredGradientError, match=INSIDE):
        backward(late)
    assert torch.equal(original_of(linear).grad, before)


def test_a_backward_pass_through_an_older_value_is_refused() -> None:
    linear = layer()
    with P.cached(linear, deferred=True) as scope:
        late = loss_of(linear(batches()[0]))
        scope.backward()
        with pytest.raises(DeferredGradientError, match=INSIDE):
            backward(late)
        accumulate(linear)  # read after it: right
    assert original_of(linear).grad is not None


def test_the_message_tells_the_path_of_the_tensor() -> None:
    model = two_layers()
    with P.cached(model, deferred=True):
        late = loss_of(model(batches()[0]))
    with pytest.raises(DeferredGradientError, match=r"'2\.weight'|'0\.weight'"):
        backward(late)


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {"nonlinear": loss_of, "linear": torch.sum}


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True")
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_backward_pass_that_builds_a_graph_is_refused(loss: Callable[[Tensor], Tensor]) -> None:
    linear, message = layer(), r"'weight'.*Write cached\(\.\.\.\) without deferred=True"
    with P.cached(linear, deferred=True):
        with pytest.raises(DeferredGradientError, match=message):
            backward(loss(linear(batches()[0])), create_graph=True)
        linear.zero_grad()
    with P.cached(linear):
        backward(loss(linear(batches()[0])), create_graph=True)
    assert original_of(linear).grad.requires_grad
    linear.zero_grad()  # the gradient holds its own graph


EARLY = r"(?s)'weight'.*or call scope.backward\(\), before all that reads"


def test_a_step_while_gradients_wait_is_refused() -> None:
    linear = layer()
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.1)
    before = original_of(linear).detach().clone()
    with P.cached(linear, deferred=True) as scope:
        optimizer.step()  # nothing waits yet
        accumulate(linear)
        with pytest.raises(DeferredGradientError, match=EARLY):
            optimizer.step()
        assert torch.equal(original_of(linear), before)
        scope.backward()
        optimizer.step()
    assert not torch.equal(original_of(linear), before)


EARLY_CALLS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "Optimizer.zero_grad": lambda linear, optimizer, scaler: optimizer.zero_grad(),
    "Module.zero_grad": lambda linear, optimizer, scaler: linear.zero_grad(),
    "unscale_": lambda linear, optimizer, scaler: scaler.unscale_(optimizer),
    "clip_grad_norm_": lambda linear, optimizer, scaler: nn.utils.clip_grad_norm_(
        linear.parameters(), 1e-3
    ),
    "clip_grad_value_": lambda linear, optimizer, scaler: nn.utils.clip_grad_value_(
        linear.parameters(), 1e-3
    ),
}


@pytest.mark.parametrize("call", EARLY_CALLS.values(), ids=EARLY_CALLS)
def test_what_reads_or_clears_gradients_that_wait_is_refused(call: Callable[..., Any]) -> None:
    linear = layer()
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu")
    with P.cached(linear, deferred=True) as scope:
        backward(scaler.scale(loss_of(linear(batches()[0]))))
        before = linear.bias.grad.clone()
        with pytest.raises(DeferredGradientError, match=EARLY):
            call(linear, optimizer, scaler)
        assert torch.equal(linear.bias.grad, before)
        scope.backward()
        call(linear, optimizer, scaler)
        assert linear.bias.grad is None or not torch.equal(linear.bias.grad, before)


def test_a_step_through_a_scaler_while_gradients_wait_is_refused() -> None:
    linear = layer()
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu")
    with P.cached(linear, deferred=True) as scope:
        backward(scaler.scale(loss_of(linear(batches()[0]))))
        with pytest.raises(DeferredGradientError, match=EARLY):
            scaler.step(optimizer)
        scope.backward()


@pytest.mark.parametrize("which", ["the map's", "another module's"])
def test_a_step_of_other_tensors_that_lead_to_the_value_is_refused(which: str) -> None:
    linear: Any = layer(Shift()) if which == "the map's" else closing_over()
    owned = chain_of(linear)[0].shift if which == "the map's" else linear.other
    optimizer = torch.optim.SGD([owned], lr=0.1)
    with P.cached(linear, deferred=True):
        accumulate(linear)
        with pytest.raises(DeferredGradientError, match=EARLY):
            optimizer.step()


def test_a_step_of_what_a_parametrized_original_is_made_of_is_refused() -> None:
    linear = nested()
    (original,) = originals(linear)
    optimizer = torch.optim.SGD([original], lr=0.1)
    with P.cached(linear, deferred=True):
        accumulate(linear)
        with pytest.raises(DeferredGradientError, match=EARLY):
            optimizer.step()


@pytest.mark.parametrize("kind", [torch.optim.LBFGS, torch.optim.SGD])
@pytest.mark.parametrize("settles", [False, True])
def test_a_closure_that_leaves_gradients_waiting_is_refused(kind: Any, settles: bool) -> None:
    linear = layer()
    optimizer = kind([original_of(linear)], lr=1e-3)
    before = original_of(linear).detach().clone()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(linear(batches()[0]))
        backward(loss)
        if settles:
            scope.backward()
        return loss

    with P.cached(linear, deferred=True) as scope:
        with nullcontext() if settles else pytest.raises(DeferredGradientError, match=EARLY):
            optimizer.step(closure)
        assert torch.equal(original_of(linear), before) is not settles


def test_a_step_of_an_optimizer_without_these_parameters_is_allowed() -> None:
    linear, other = layer(), layer()
    optimizer = torch.optim.SGD([*other.parameters(), linear.bias], lr=0.1)
    before = original_of(other).detach().clone()
    with P.cached(linear, deferred=True):
        accumulate(linear)
        accumulate(other)
        optimizer.step()
    assert not torch.equal(original_of(other), before)


def test_backward_on_a_scope_that_defers_nothing_is_refused() -> None:
    linear = layer()
    with P.cached(linear) as scope:
        accumulate(linear)
        with pytest.raises(DeferredGradientError, match=r"write cached\(\.\.\., deferred=True\)"):
            scope.backward()
    assert issubclass(DeferredGradientError, RuntimeError)


# errors in the middle: all or nothing


class Failing(torch.autograd.Function):
    """The identity, whose backward pass raises."""

    @staticmethod
    def forward(*inputs: Any) -> Any:
        return inputs[1].clone()

    @staticmethod
    def backward(*inputs: Any) -> Any:
        raise ArithmeticError(f"no gradient for {len(inputs) - 1} output")


class Fails(nn.Module):
    def forward(self, X: Tensor) -> Any:
        return Failing.apply(X)  # type: ignore[no-untyped-call]


def one_that_fails(at: int) -> Any:
    """Three layers; the map of one has no backward pass. Some originals have a gradient."""
    maps: list[list[nn.Module]] = [[Product()], [Shift()], [Exp()]]
    maps[at].append(Fails())
    model = nn.Sequential(*(layer(*each) for each in maps))
    for number, original in enumerate(originals(model)):
        original.grad = torch.rand_like(original) if number % 2 else None
    return model


def originals(model: Any) -> list[nn.Parameter]:
    return [x for name, x in model.named_parameters() if "parametrizations" in name]


def states(model: Any) -> list[Any]:
    """Each `.grad` of the originals and of the maps' own parameters, and a copy of it."""
    gradients = [x.grad for x in originals(model)]
    return [(x, None if x is None else x.clone()) for x in gradients]


def assert_unchanged(model: Any, before: list[Any]) -> None:
    for original, (gradient, copy) in zip(originals(model), before, strict=True):
        assert original.grad is gradient
        assert gradient is None or torch.equal(gradient, copy)


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("at_exit", [False, True], ids=["backward()", "at the end"])
def test_a_map_whose_backward_pass_raises_changes_no_gradient(at: int, at_exit: bool) -> None:
    model = one_that_fails(at)
    before = states(model)
    with pytest.raises(ArithmeticError, match="no gradient"):  # noqa: PT012, SIM117
        with P.cached(model, deferred=True) as scope:
            accumulate(model)
            if not at_exit:
                scope.backward()
    assert_unchanged(model, before)


def test_a_scope_goes_on_after_a_failed_backward_pass() -> None:
    model = nn.Sequential(layer(), layer(Fails()))
    with P.cached(model, deferred=True) as scope:
        accumulate(model)
        with pytest.raises(ArithmeticError):
            scope.backward()
        before = states(model)
        accumulate(model[0])
    assert [gradient for gradient, _ in before] == [None, None]
    expected = layer()
    expected.load_state_dict(model[0].state_dict())
    accumulate(expected)
    assert_close(original_of(model[0]).grad, original_of(expected).grad)


@pytest.mark.parametrize("kind", [KeyError, KeyboardInterrupt])
def test_an_exception_in_the_body_changes_no_gradient_and_tells_so(
    kind: type[BaseException],
) -> None:
    model = two_layers()
    for original in originals(model)[:1]:
        original.grad = torch.ones_like(original)
    before = states(model)
    with pytest.raises(kind) as caught, P.cached(model, deferred=True):  # noqa: PT012
        accumulate(model)
        raise kind
    assert_unchanged(model, before)
    if sys.version_info >= (3, 11):
        (note,) = caught.value.__notes__
        assert "'0.weight', '2.weight'" in note
        assert ".grad is as before" in note


def test_an_exception_while_nothing_waits_gets_no_note() -> None:
    linear = layer()
    with pytest.raises(KeyError) as caught, P.cached(linear, deferred=True) as scope:  # noqa: PT012
        accumulate(linear)
        scope.backward()
        raise KeyError
    assert not hasattr(caught.value, "__notes__")
    assert original_of(linear).grad is not None


def test_gradients_after_an_exception_are_refused() -> None:
    linear, late = layer(), list[Tensor]()
    with pytest.raises(KeyError), P.cached(linear, deferred=True):  # noqa: PT012
        late.append(loss_of(linear(batches()[0])))
        raise KeyError
    with pytest.raises(DeferredGradientError, match=INSIDE):
        backward(late[0])


# lifetime


class Token:
    """Something that a graph holds, and that can be referred to weakly."""


class Traced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, X: Tensor, tokens: list[Any]) -> Tensor:
        ctx.token = Token()
        tokens.append(weakref.ref(ctx.token))
        return X.exp()

    @staticmethod
    def backward(*inputs: Any) -> Any:
        return inputs[1], None


class Traceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[Any] = []

    def forward(self, X: Tensor) -> Any:
        return Traced.apply(X, self.tokens)  # type: ignore[no-untyped-call]


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("end", ["backward passes", "no backward pass", "an exception"])
def test_values_and_graphs_are_freed_at_the_end(end: str) -> None:
    linear = layer(Traceable())
    tokens = chain_of(linear)[0].tokens
    tokens.clear()
    with nullcontext() if end != "an exception" else pytest.raises(KeyError):  # noqa: SIM117
        with P.cached(linear, deferred=True):
            value = weakref.ref(linear.weight)
            (token,) = tokens
            if end != "no backward pass":
                accumulate(linear)
            assert value() is not None
            assert token() is not None
            if end == "an exception":
                raise KeyError
    assert value() is None
    assert token() is None


@pytest.mark.usefixtures("no_collector")
def test_a_graph_is_freed_when_its_gradient_has_gone_on() -> None:
    linear = layer(Traceable())
    tokens = chain_of(linear)[0].tokens
    tokens.clear()
    with P.cached(linear, deferred=True) as scope:
        for _ in range(3):
            accumulate(linear)
            scope.backward()
            assert [token() for token in tokens] == len(tokens) * [None]
        assert len(tokens) == 3


@pytest.mark.usefixtures("no_collector")
def test_a_model_is_freed_with_its_last_scope() -> None:
    linear = layer()
    with P.cached(linear, deferred=True) as scope:
        accumulate(linear)
    module = weakref.ref(linear)
    del linear
    assert module() is None
    assert scope.misses == 1


# several processes


REPLICATED: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "two layers": (two_layers, {}),
    "nested": (nested, {}),
    "views": (two_layers, {"gradient_as_bucket_view": True}),
    "one original of two layers": (tied, {}),
    "many buckets": (two_layers, {"bucket_cap_mb": 1e-5}),
}
LOOKING: dict[str, dict[str, Any]] = {
    "unused": {"find_unused_parameters": True},
    "static": {"static_graph": True},
}


def replicated_gradients(rank: int, deferred: bool, case: str) -> list[Tensor]:
    """Two steps of four micro-batches each, of which only the last one is synchronised."""
    make, options = REPLICATED[case]
    torch.manual_seed(0)
    model = DistributedDataParallel(make(), **options)
    for _ in range(2):
        with P.cached(model, deferred=True) if deferred else nullcontext():
            for number, batch in enumerate(batches(8)[rank::2]):
                with model.no_sync() if number < 3 else nullcontext():
                    backward(loss_of(model(batch)))
    return [torch.zeros(()) if x.grad is None else x.grad.clone() for x in model.parameters()]


def refusal(rank: int, options: dict[str, Any]) -> str:
    model = DistributedDataParallel(two_layers(), **options)
    try:
        with P.cached(model, deferred=True):
            backward(loss_of(model(batches()[rank])))
    except DeferredGradientError as error:
        return str(error)
    return "nothing was refused"


def work_in_group(rank: int, folder: str, cases: list[str]) -> None:
    """What each of two processes does: save the gradients of all cases."""
    untyped: Any = distributed  # its stub does not know FileStore
    store = untyped.FileStore(f"{folder}/store", 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    try:
        with default_dtype(torch.float64):
            found: dict[str, Any] = {
                case: [replicated_gradients(rank, deferred, case) for deferred in (False, True)]
                for case in cases
            }
            found["refusals"] = {name: refusal(rank, options) for name, options in LOOKING.items()}
        torch.save(found, f"{folder}/{rank}.pt")
    finally:
        distributed.destroy_process_group()


def run_group(folder: Path, cases: list[str]) -> list[dict[str, Any]]:
    """What the two processes have found, in two minutes at most."""
    deadline = time.monotonic() + 120
    context: ProcessContext = spawn(  # type: ignore[no-untyped-call]
        work_in_group, args=(str(folder), cases), nprocs=2, join=False
    )
    try:
        while not context.join(timeout=1):
            assert time.monotonic() < deadline, "the processes wait for each other"
    finally:
        for process in context.processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(ROOT)])
        yield run_group(tmp_path_factory.mktemp("group"), list(REPLICATED))


@pytest.mark.parametrize("case", REPLICATED)
def test_replicas_get_the_gradients_without_deferral(
    group: list[dict[str, Any]], case: str
) -> None:
    for rank in range(2):
        expected, actual = group[rank][case]
        for mine, theirs, other in zip(actual, expected, group[1 - rank][case][1], strict=True):
            assert theirs.abs().max() > 0
            assert_close(mine, theirs)
            assert torch.equal(mine, other)


@pytest.mark.parametrize("name", LOOKING)
def test_replicas_that_look_for_unused_parameters_are_refused(
    group: list[dict[str, Any]], name: str
) -> None:
    for found in group:
        message = found["refusals"][name]
        assert "'module.0.weight'" in message
        assert "Write DistributedDataParallel(model) without them" in message


@contextmanager
def group_of_one() -> Iterator[Any]:
    untyped: Any = distributed  # its stub does not know HashStore
    untyped.init_process_group("gloo", store=untyped.HashStore(), rank=0, world_size=1)
    try:
        yield init_device_mesh("cpu", (1,))
    finally:
        untyped.destroy_process_group()


@pytest.mark.parametrize("reshard", [True, False])
def test_a_sharded_model_is_refused_and_keeps_its_gradients(reshard: bool) -> None:
    message = r"'0\.weight' are sharded again.*Write cached\(\.\.\.\) without deferred=True"
    with group_of_one() as mesh:
        model = two_layers()
        for part in (model[0], model[2], model):  # type: ignore[index]
            fully_shard(part, mesh=mesh, reshard_after_forward=reshard)
        with pytest.raises(DeferredGradientError, match=message), P.cached(model, deferred=True):
            accumulate(model)
        assert all(original.grad is None for original in originals(model))
        with P.cached(model):
            accumulate(model)
        assert all(original.grad is not None for original in originals(model))
