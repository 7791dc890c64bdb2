"""`cached(..., persistent=True)`: values without gradients outlive the scope, and never lie."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import pickle
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import paramdesc as P
from paramdesc.cache.scopes import active_scopes
from tests.cache.threads import THREADS, TIMEOUT, in_threads
from tests.helpers import Counting, Double, Sum, chain_of, counting, original_of, train_step


def exponential(n: int = 3, device: str = "cpu") -> tuple[Any, Counting]:
    """A layer in evaluation mode, and its map."""
    layer, parametrization = counting(n, device)
    return layer.eval(), parametrization


def fresh(layer: nn.Module) -> Tensor:
    """What the weight must be now."""
    value: Tensor = chain_of(layer)()
    return value


def assert_right(layer: Any) -> None:
    torch.testing.assert_close(layer.weight, fresh(layer), rtol=0, atol=0)


def read_in(scope: P.cached, layer: Any) -> Tensor:
    with scope:
        value: Tensor = layer.weight
        return value


# what is kept


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_value_is_kept_from_one_entry_to_the_next(mode: Callable[[], Any]) -> None:
    layer, parametrization = exponential()
    persistent = P.cached(layer, persistent=True)
    with mode():
        first = read_in(persistent, layer)
        with persistent as scope:
            assert layer.weight is first
            assert (scope.hits, scope.misses, len(scope)) == (1, 1, 1)
        assert layer.weight is not first  # outside it is as without
        assert_right(layer)
        assert read_in(persistent, layer) is first
    assert parametrization.calls.count == 1 + 1 + 2


def test_what_is_frozen_needs_no_mode() -> None:
    layer, parametrization = exponential()
    layer.requires_grad_(False)
    persistent = P.cached(layer, persistent=True)
    assert read_in(persistent, layer) is read_in(persistent, layer)
    assert parametrization.calls.count == 1


def test_other_objects_keep_values_of_their_own() -> None:
    layer, _ = exponential()
    one, other = P.cached(layer, persistent=True), P.cached(layer, persistent=True)
    with torch.no_grad():
        assert read_in(one, layer) is not read_in(other, layer)
        with one, other:
            assert layer.weight is read_in(one, layer)


def test_only_targets_are_kept() -> None:
    (a, _), (b, _) = exponential(), exponential()
    persistent = P.cached(a, persistent=True)
    with torch.no_grad():
        assert read_in(persistent, a) is read_in(persistent, a)
        assert read_in(persistent, b) is not read_in(persistent, b)


def test_several_originals_are_kept_and_watched() -> None:
    layer: Any = P.register_parametrization(nn.Linear(3, 3), "weight", Sum()).eval()
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad():
        assert read_in(persistent, layer) is read_in(persistent, layer)
        for original in chain_of(layer).originals():
            before = read_in(persistent, layer)
            original.add_(1)
            torch.testing.assert_close(read_in(persistent, layer), before + 1)


def test_a_decorated_function_keeps_values_from_call_to_call() -> None:
    layer, parametrization = exponential()

    @P.cached(layer, persistent=True)
    @torch.no_grad()
    def read() -> Any:
        return layer.weight

    first = read()
    assert read() is first
    train_step(layer)
    assert read() is not first
    assert parametrization.calls.count == 2


def test_a_decorated_coroutine_keeps_values_from_call_to_call() -> None:
    layer, parametrization = exponential()

    @P.cached(layer, persistent=True)
    async def read() -> Any:
        with torch.no_grad():
            first = layer.weight
        await asyncio.sleep(0)
        return first

    async def main() -> list[Any]:
        return await asyncio.gather(*(read() for _ in range(5)))

    first, *others = [*asyncio.run(main()), *asyncio.run(main())]
    assert all(value is first for value in others)
    assert parametrization.calls.count == 1


# what is noticed


def replace_data(layer: nn.Module) -> None:
    original_of(layer).data = torch.full((3, 3), 0.5)


def assign(layer: Any) -> None:
    layer.weight = torch.full((3, 3), 2.0)


def rebind(layer: nn.Module) -> None:
    chain_of(layer).original = nn.Parameter(torch.ones(3, 3))


def other_state(layer: nn.Module) -> dict[str, Tensor]:
    return {name: value + 1 for name, value in layer.state_dict().items()}


def swap(layer: nn.Module) -> None:
    exchange: Any = torch.utils.swap_tensors
    exchange(original_of(layer), nn.Parameter(torch.ones(3, 3)))


def convert_by_swapping(layer: nn.Module) -> None:
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        layer.double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def optimize(layer: nn.Module, **options: Any) -> None:
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.Adam(layer.parameters(), lr=0.1, **options).step()


def own(change: Callable[[Any], object]) -> Callable[[nn.Module], object]:
    return lambda layer: change(chain_of(layer)[0])


CHANGES: dict[str, Callable[[Any], object]] = {
    "in-place write": lambda m: original_of(m).add_(1),
    "write to a view": lambda m: original_of(m).view(-1)[1:].zero_(),
    "new .data": replace_data,
    "assignment": assign,
    "new original": rebind,
    "load_state_dict": lambda m: m.load_state_dict(other_state(m)),
    "load_state_dict with assign": lambda m: m.load_state_dict(other_state(m), assign=True),
    ".to(dtype)": lambda m: m.to(torch.float64),
    ".double()": lambda m: m.double(),
    ".double() by swapping": convert_by_swapping,
    "swap_tensors": swap,
    "requires_grad_": lambda m: m.requires_grad_(False),
    "requires_grad_ of the original": lambda m: original_of(m).requires_grad_(False),
    "train of the model": lambda m: m.train(),
    "train of the map": own(lambda p: p.train()),
    "optimizer step": optimize,
    "fused optimizer step": lambda m: optimize(m, fused=True),
    "foreach optimizer step": lambda m: optimize(m, foreach=True),
    "nn.init of the original": lambda m: nn.init.ones_(original_of(m)),
    "nn.init of the tensor": lambda m: nn.init.constant_(m.weight, 4.0),
    "the map's parameter": own(lambda p: p.shift.add_(1)),
    "the map's new parameter": own(lambda p: setattr(p, "shift", nn.Parameter(torch.ones(())))),
    "the map's buffer": own(lambda p: p.scale.mul_(2)),
    "the map's new buffer": own(lambda p: p.register_buffer("scale", torch.full((), 2.0))),
    "the map's tensor": own(lambda p: p.plain.mul_(2)),
    "the map's tensor in a list": own(lambda p: p.several[0].mul_(2)),
    "the map's new tensor in a list": own(lambda p: p.several.__setitem__(0, torch.full((), 2.0))),
    "the map's number": own(lambda p: setattr(p, "power", 2)),
    "another map": lambda m: P.register_parametrization(m, "weight", torch.sin),
    "the map replaced": lambda m: chain_of(m).__setitem__(0, Counting().double().eval()),
}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("place", ["in one entry", "between two", "in another entry"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_noticed(name: str, place: str, mode: Callable[[], Any]) -> None:
    layer, _ = exponential()
    persistent = P.cached(layer, persistent=True)
    with mode():
        before = read_in(persistent, layer)
    with torch.no_grad():
        if place != "in one entry":
            with P.cached() if place == "in another entry" else torch.no_grad():
                CHANGES[name](layer)
    with mode(), persistent:
        if place == "in one entry":
            assert layer.weight is before
            with torch.inference_mode(False), torch.no_grad():
                CHANGES[name](layer)
        assert layer.weight is not before
        assert_right(layer)


def test_a_removed_map_is_noticed() -> None:
    layer, parametrization = exponential()
    P.register_parametrization(layer, "weight", torch.sin)
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad():
        before = read_in(persistent, layer)
        del chain_of(layer)._modules["1"]
        assert read_in(persistent, layer) is not before
        torch.testing.assert_close(read_in(persistent, layer), parametrization(original_of(layer)))


def test_a_parametrization_that_is_removed_and_registered_again_is_noticed() -> None:
    layer, _ = exponential()
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad():
        before = read_in(persistent, layer).clone()
        P.remove_parametrizations(layer, "weight")
        torch.testing.assert_close(read_in(persistent, layer), before)
        P.register_parametrization(layer, "weight", torch.sinh)
        torch.testing.assert_close(read_in(persistent, layer), before.sinh())


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize(("n", "device"), [(0, "cpu"), (3, "meta"), (0, "meta")])
def test_a_conversion_without_an_address_to_compare_is_noticed(n: int, device: str) -> None:
    layer, _ = exponential(n, device)
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad():
        assert read_in(persistent, layer) is read_in(persistent, layer)
        layer.double()
        assert read_in(persistent, layer).dtype == torch.float64
        layer.to_empty(device="cpu")
        assert read_in(persistent, layer).device.type == "cpu"


def test_a_write_to_the_value_is_not_kept() -> None:
    layer, _ = exponential()
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad():
        before = read_in(persistent, layer)
        expected = before.clone()
        before.zero_()
        torch.testing.assert_close(read_in(persistent, layer), expected)


def test_evaluation_mode_that_is_back_keeps_again() -> None:
    layer, _ = exponential()
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad():
        before = read_in(persistent, layer).clone()
        layer.train()
        torch.testing.assert_close(read_in(persistent, layer), 3 * before)
        layer.eval()
        after = read_in(persistent, layer)
        torch.testing.assert_close(after, before)
        assert read_in(persistent, layer) is after


def test_each_mode_gets_a_tensor_that_it_can_use() -> None:
    layer, _ = exponential()
    persistent = P.cached(layer, persistent=True)
    for _ in range(2):
        with torch.inference_mode():
            assert not read_in(persistent, layer).requires_grad
        with torch.no_grad():
            assert not read_in(persistent, layer).is_inference()
            assert not read_in(persistent, layer).requires_grad
        assert read_in(persistent, layer).requires_grad


def test_autocast_has_values_of_its_own() -> None:
    layer: Any = P.register_parametrization(nn.Linear(2, 2), "weight", lambda X: X @ X).eval()
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad():
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16):
                assert read_in(persistent, layer).dtype == torch.bfloat16
            assert read_in(persistent, layer).dtype == torch.float32


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


# nesting


@pytest.mark.parametrize("is_outer", [True, False])
def test_it_nests_with_ordinary_scopes(is_outer: bool) -> None:
    layer, parametrization = exponential()
    persistent, ordinary = P.cached(layer, persistent=True), P.cached()
    scopes = (persistent, ordinary) if is_outer else (ordinary, persistent)
    with torch.no_grad():
        with scopes[0], scopes[1]:
            first = layer.weight
        with scopes[0], scopes[1]:
            assert layer.weight is first
            train_step(layer)
            assert_right(layer)
    assert parametrization.calls.count == 2 + 1
    with scopes[0]:
        with scopes[1]:
            first = layer.weight
            assert first.requires_grad
        assert layer.weight is first  # the outer one owns what needs a gradient


def test_one_object_may_be_entered_again_inside_itself() -> None:
    layer, parametrization = exponential()
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad(), persistent:
        first = layer.weight
        with persistent:
            assert layer.weight is first
        assert layer.weight is first
    with torch.no_grad():
        assert read_in(persistent, layer) is first
    assert parametrization.calls.count == 1


def test_a_map_may_read_what_is_being_evaluated() -> None:
    layer, parametrization = exponential()
    depths: list[int] = []

    def read_again(*_: Any) -> None:
        depths.append(len(depths))
        if len(depths) < 3:
            assert layer.weight is not None

    parametrization.register_forward_pre_hook(read_again)
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad(), persistent:
        assert_right(layer)
    with torch.no_grad(), persistent:
        assert layer.weight is layer.weight


def test_an_original_that_is_parametrized_is_kept_and_watched() -> None:
    layer, _ = exponential()
    chain = chain_of(layer)
    P.register_parametrization(chain, "original", torch.sinh)
    layer.eval()
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad():
        assert read_in(persistent, layer) is read_in(persistent, layer)
        before = read_in(persistent, layer)
        chain.parametrizations.original.original.add_(1)
        with persistent:
            assert layer.weight is not before
            assert_right(layer)


# threads and tasks


@pytest.mark.parametrize("entered", ["by each thread", "by one for all"])
def test_one_thread_evaluates_and_all_get_its_value(entered: str) -> None:
    layer, parametrization = exponential()
    persistent = P.cached(layer, persistent=True)
    second = threading.Event()

    def wait_for_a_second_one(*_: Any) -> None:
        if parametrization.calls.count:
            second.set()
        parametrization.calls.count += 1
        second.wait(0.3)  # it never comes

    parametrization.register_forward_pre_hook(wait_for_a_second_one)

    @torch.no_grad()
    def read() -> Any:
        return read_in(persistent, layer)

    first, *others = in_threads(read)
    assert all(value is first for value in others)
    assert not second.is_set()


def test_threads_do_not_see_a_scope_that_they_have_not_entered() -> None:
    layer, _ = exponential()
    with torch.no_grad(), P.cached(layer, persistent=True):
        first = layer.weight

        @torch.no_grad()
        def read() -> Any:
            return layer.weight

        values = in_threads(read)
    assert len({id(value) for value in (first, *values)}) == THREADS + 1


def test_threads_see_a_change_that_one_makes_between_their_reads() -> None:
    layer, parametrization = exponential()
    persistent = P.cached(layer, persistent=True)
    barrier = threading.Barrier(THREADS)

    @torch.no_grad()
    def work() -> list[Tensor]:
        found = []
        for _ in range(5):
            found.append(read_in(persistent, layer))
            if barrier.wait(TIMEOUT) == 0:
                original_of(layer).add_(1)
            barrier.wait(TIMEOUT)
        return found

    first, *others = in_threads(work)
    for step in range(5):
        assert all(values[step] is first[step] for values in others)
    for before, after in pairwise(first):
        torch.testing.assert_close(after, before * torch.e)
    assert parametrization.calls.count == 5


def test_an_error_in_one_thread_does_not_stop_the_others() -> None:
    layer, parametrization = exponential()
    persistent = P.cached(layer, persistent=True)

    def fail_at_first(*_: Any) -> None:
        parametrization.calls.count += 1
        if parametrization.calls.count == 1:
            raise ArithmeticError

    parametrization.register_forward_pre_hook(fail_at_first)

    @torch.no_grad()
    def read() -> Any:
        return read_in(persistent, layer)

    results = in_threads(read, ArithmeticError)
    values = [value for value in results if isinstance(value, Tensor)]
    assert len(values) == THREADS - 1
    assert all(value is values[0] for value in values)


def test_threads_with_gradients_have_graphs_of_their_own() -> None:
    layer, _ = exponential()
    persistent = P.cached(layer, persistent=True)

    def train() -> Any:
        with persistent:
            first = layer.weight
            assert layer.weight is first
            (gradient,) = torch.autograd.grad(first.sum(), original_of(layer))
            return first, gradient

    results = in_threads(train)
    assert len({id(value) for value, _ in results}) == THREADS
    for _, gradient in results:
        torch.testing.assert_close(gradient, original_of(layer).detach().exp())


def test_tasks_share_values_but_not_the_scope() -> None:
    layer, parametrization = exponential()
    persistent = P.cached(layer, persistent=True)
    values: list[Any] = []

    async def use(number: int) -> None:
        for _ in range(3):
            with persistent:
                values.append(layer.weight)
                for _ in range(number % 4):
                    await asyncio.sleep(0)
                    assert layer.weight is values[0]
            assert active_scopes() == ()
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(use(number) for number in range(50)))

    with torch.no_grad():
        asyncio.run(main())
    assert all(value is values[0] for value in values)
    assert parametrization.calls.count == 1


def test_a_scope_may_end_in_another_order_than_threads_have_entered_it() -> None:
    layer, parametrization = exponential()
    persistent = P.cached(layer, persistent=True)
    entered, leave = threading.Event(), threading.Event()

    @torch.no_grad()
    def stay() -> Any:
        with persistent:
            entered.set()
            assert leave.wait(TIMEOUT)
            return layer.weight

    with ThreadPoolExecutor(1) as pool, torch.no_grad():
        with persistent:
            future = pool.submit(stay)
            assert entered.wait(TIMEOUT)
            first = layer.weight
        leave.set()
        assert future.result(TIMEOUT) is first
    assert parametrization.calls.count == 1


# lifetime


def test_a_scope_without_targets_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Write cached\(model, persistent=True\)"):
        P.cached(persistent=True)


@pytest.mark.usefixtures("no_collector")
def test_values_and_modules_end_with_the_object_that_keeps_them() -> None:
    layer, parametrization = exponential()
    persistent = P.cached(layer, persistent=True)
    with torch.no_grad():
        value = weakref.ref(read_in(persistent, layer))
    modules = [weakref.ref(x) for x in (layer, chain_of(layer), parametrization)]
    assert value() is not None
    del persistent
    assert value() is None
    del layer, parametrization
    assert [module() for module in modules] == [None, None, None]


def test_an_outdated_value_is_freed_before_the_new_one_is_made() -> None:
    layer, parametrization = exponential()
    persistent = P.cached(layer, persistent=True)
    alive: list[bool] = []
    with torch.no_grad():
        value = weakref.ref(read_in(persistent, layer))
        parametrization.register_forward_pre_hook(lambda *_: alive.append(value() is not None))
        train_step(layer)
        read_in(persistent, layer)
    assert alive == [False]


# compiled code


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_compiled_model_uses_what_is_kept_and_sees_changes(
    backend: str, mode: Callable[[], Any]
) -> None:
    layer, parametrization = exponential()
    compiled: Any = torch.compile(layer, backend=backend, fullgraph=True)
    persistent, inputs = P.cached(layer, persistent=True), torch.ones(2, 3)
    changes = ["in-place write", "assignment", "load_state_dict", "the map's buffer", ".double()"]
    for place, change in enumerate([None, *changes]):
        if change is not None:
            with torch.no_grad():
                CHANGES[change](layer)
        inputs = inputs.to(original_of(layer).dtype)
        with mode():
            expected = layer(inputs)
            parametrization.calls.count = 0
            for _ in range(3):
                with persistent:
                    torch.testing.assert_close(compiled(inputs), expected)
                    torch.testing.assert_close(compiled(inputs), expected)
            assert parametrization.calls.count == 1, place
    with persistent:
        compiled(inputs).sum().backward()
    assert original_of(layer).grad is not None


def test_gradients_on_or_off_and_inference_mode_share_a_value() -> None:
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", Double()).eval()
    kept = P.cached(layer, persistent=True)
    for mode in (torch.no_grad, torch.inference_mode) * 2:
        with kept as scope, mode():
            assert not layer.weight.is_inference()
    assert scope.misses == 1


def test_a_frozen_model_serves_with_gradients_switched_on() -> None:
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", Double()).eval()
    layer.requires_grad_(False)
    kept = P.cached(layer, persistent=True)
    for _ in range(2):
        with kept as scope:
            first = layer.weight
            with torch.no_grad():
                assert layer.weight is first
    assert (scope.misses, scope.hits) == (1, 3)


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


def test_another_part_of_the_same_memory_is_noticed() -> None:
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", Double()).eval()
    kept = P.cached(layer, persistent=True)
    original = layer.get_parameter("parametrizations.weight.original")
    with torch.no_grad():
        for _ in range(2):
            with kept:
                assert torch.equal(layer.weight, 2 * original)
            original.data = original.data.t()


def test_what_is_added_to_a_map_is_noticed() -> None:
    double = Double()
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", double).eval()
    kept = P.cached(layer, persistent=True)
    with kept as scope, torch.no_grad():
        assert layer.weight is layer.weight
        hook = double.register_forward_hook(lambda module, args, output: output + 1)
        original = layer.get_parameter("parametrizations.weight.original")
        assert torch.equal(layer.weight, 2 * original + 1)
        hook.remove()
        assert torch.equal(layer.weight, 2 * original)
    assert scope.misses == 3


def test_the_object_is_copied_and_pickled_with_a_model_that_holds_it() -> None:
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", Double()).eval()
    model = nn.Sequential(layer)
    model.kept = P.cached(layer, persistent=True)  # type: ignore[assignment]
    twins: list[Any] = [model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for twin in twins:
        for _ in range(2):
            with twin.kept as scope, torch.no_grad():
                assert torch.equal(twin[0].weight, layer.weight)
        assert scope.misses == 1


def test_a_map_that_refers_to_its_module_does_not_keep_it_alive() -> None:
    def make() -> nn.Module:
        double = Double()
        layer = P.register_parametrization(nn.Linear(3, 3), "weight", double).eval()
        double.__dict__["host"] = [layer]
        return layer

    layer = make()
    told = P.auto_cache(layer)
    with torch.no_grad():
        assert layer.weight is layer.weight
    assert told.misses == 1
    gone = weakref.ref(layer)
    del layer, told
    gc.collect()
    assert gone() is None
