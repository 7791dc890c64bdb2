"""The cache: what a scope covers, how scopes nest, and when a value may be used again."""

from __future__ import annotations

import asyncio
import copy
import gc
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize as torch_engine

import paramdesc as P
from tests.helpers import Counting, Exp, counting, original_of

# what a scope covers


def test_without_a_scope_every_read_evaluates() -> None:
    linear, parametrization = counting()
    assert linear.weight is not linear.weight
    assert parametrization.calls.count == 2


def test_a_scope_evaluates_once_and_tells_so() -> None:
    linear, parametrization = counting()
    with P.cached() as scope:
        first = linear.weight
        assert linear.weight is first
        assert (scope.hits, scope.misses, len(scope)) == (1, 1, 1)
        assert linear.get_submodule("parametrizations.weight") in scope
        assert "'weight'" in repr(scope)
    assert parametrization.calls.count == 1
    assert (scope.hits, scope.misses, len(scope)) == (1, 1, 0)
    assert linear.weight is not first


def test_targets_choose_what_is_covered() -> None:
    a, b = counting()[0], counting()[0]
    model = nn.Sequential(a, b)
    chain: Any = a.get_submodule("parametrizations.weight")
    for targets in [(a,), (chain,), ([a],), (P.get_parametrizations(a),), ({chain}, [[a]])]:
        with P.cached(*targets):
            assert a.weight is a.weight
            assert b.weight is not b.weight
    with P.cached(model):
        assert a.weight is a.weight
        assert b.weight is b.weight
    with P.cached(iter([a])):
        assert a.weight is a.weight


def test_an_empty_set_covers_nothing() -> None:
    linear, _ = counting()
    empty: tuple[Any, ...] = ([], P.get_parametrizations(nn.Linear(2, 2)), [[]])
    for nothing in empty:
        with P.cached(nothing):
            assert linear.weight is not linear.weight


@pytest.mark.parametrize("wrong", [3, "weight", None, 1.5, torch.ones(2), [3], ["weight"]])
def test_other_targets_are_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"takes modules, ParametrizationLists, and sets"):
        P.cached(wrong)


def test_a_decorator_without_parentheses_is_told() -> None:
    with pytest.raises(TypeError, match=r"@cached\(\), with parentheses"):
        P.cached(lambda: None)  # type: ignore[arg-type]


def test_a_later_registration_is_covered_by_a_scope_for_all() -> None:
    with P.cached(), P.cached(nn.Linear(2, 2)):
        linear, _ = counting()
        assert linear.weight is linear.weight


# nesting


def test_a_value_belongs_to_the_outermost_scope_that_covers_it() -> None:
    linear, parametrization = counting()
    with P.cached() as outer:
        with P.cached() as inner:
            first = linear.weight
            assert (len(outer), len(inner)) == (1, 0)
        assert linear.weight is first
    assert parametrization.calls.count == 1


def test_an_inner_scope_adds_coverage_that_dies_with_it() -> None:
    a, b = counting()[0], counting()[0]
    with P.cached(a) as outer:
        with P.cached(b) as inner:
            first = a.weight, b.weight
            assert (len(outer), len(inner)) == (1, 1)
        assert a.weight is first[0]
        assert b.weight is not first[1]


def test_one_object_may_be_entered_again_inside_itself() -> None:
    linear, _ = counting()
    scope = P.cached(linear)
    with scope:
        with scope:
            first = linear.weight
        assert linear.weight is first
    with scope:
        assert linear.weight is not first


def test_an_exception_ends_the_scope() -> None:
    linear, _ = counting()
    scopes: list[P.Scope] = []

    def fail() -> None:
        with P.cached() as scope:
            scopes.append(scope)
            assert linear.weight is linear.weight
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert len(scopes[0]) == 0
    assert linear.weight is not linear.weight


def test_each_call_of_a_decorated_function_has_its_own_scope() -> None:
    linear, parametrization = counting()

    @P.cached(linear)
    def twice(again: bool) -> Tensor:
        first = linear.weight
        assert linear.weight is first
        return twice(False) if again else first

    assert twice.__name__ == "twice"
    assert twice(True) is not twice(False)
    assert parametrization.calls.count == 2


def test_generators_are_refused_as_decorated_functions() -> None:
    def steps() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match=r"Write `with cached\(\.\.\.\):` inside"):
        P.cached()(steps)


def test_a_generator_closed_elsewhere_frees_its_values() -> None:
    linear, _ = counting()
    scopes: list[P.Scope] = []

    def steps() -> Generator[Tensor, None, None]:
        with P.cached() as scope:
            scopes.append(scope)
            yield linear.weight

    async def main() -> None:
        generator = steps()
        await asyncio.to_thread(next, generator)
        await asyncio.to_thread(generator.close)

    asyncio.run(main())
    assert len(scopes[0]) == 0


# validity


def step(linear: nn.Module) -> None:
    with torch.no_grad():
        original_of(linear).add_(1)


def assign(linear: nn.Module) -> None:
    linear.weight = torch.full((3, 3), 2.0)


def rebind(linear: nn.Module) -> None:
    linear.get_submodule("parametrizations.weight").original = nn.Parameter(torch.ones(3, 3))


def replace_data(linear: nn.Module) -> None:
    original_of(linear).data = torch.ones(3, 3)


def own(change: Callable[[Counting], object]) -> Callable[[nn.Module], object]:
    return lambda linear: change(linear.get_submodule("parametrizations.weight")[0])  # type: ignore[index]


CHANGES: dict[str, Callable[[Any], object]] = {
    "in-place write": step,
    "write through .data": replace_data,
    "assignment": assign,
    "new original": rebind,
    "load_state_dict": lambda m: m.load_state_dict(
        {name: value + 1 for name, value in m.state_dict().items()}
    ),
    "double": lambda m: m.double(),
    "eval": lambda m: m.eval(),
    "eval of the map": own(lambda p: p.eval()),
    "the map's parameter": own(lambda p: p.shift.data.fill_(1) and p.shift.add_(1)),
    "the map's buffer": own(lambda p: p.get_buffer("scale").mul_(2)),
    "the map's new buffer": own(lambda p: p.register_buffer("scale", torch.full((), 2.0))),
    "the map's tensor": own(lambda p: p.plain.mul_(2)),
    "the map's tensor in a list": own(lambda p: p.several[0].mul_(2)),
    "the map's new tensor in a list": own(lambda p: p.several.__setitem__(0, torch.full((), 2.0))),
    "the map's number": own(lambda p: setattr(p, "power", 2)),
    "another map": lambda m: P.register_parametrization(m, "weight", torch.sin),
    "the map replaced": lambda m: m.parametrizations.weight.__setitem__(0, Counting().double()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen_inside_the_scope(name: str) -> None:
    linear, _ = counting()
    with P.cached(), torch.no_grad():
        before = linear.weight
        assert linear.weight is before
        CHANGES[name](linear)
        assert linear.weight is not before
        expected = linear.get_submodule("parametrizations.weight")()
        torch.testing.assert_close(linear.weight, expected, rtol=0, atol=0)


@pytest.mark.parametrize("fused", [False, True])
def test_an_optimizer_step_is_seen_inside_the_scope(fused: bool) -> None:
    linear, _ = counting()
    optimizer = torch.optim.Adam(linear.parameters(), lr=0.1, fused=fused)
    torch.autograd.backward(linear.weight.sum())
    with P.cached(), torch.no_grad():
        before = linear.weight
        optimizer.step()
        assert not torch.equal(linear.weight, before)


def test_a_write_to_the_value_itself_is_not_kept() -> None:
    linear, _ = counting()
    with P.cached(), torch.no_grad():
        before = linear.weight.clone()
        linear.weight.zero_()
        torch.testing.assert_close(linear.weight, before)


def test_a_value_without_gradient_is_not_used_where_there_is_one() -> None:
    linear, _ = counting()
    with P.cached():
        with torch.no_grad():
            assert not linear.weight.requires_grad
        assert linear.weight.requires_grad
        with torch.no_grad():
            assert not linear.weight.requires_grad
        with torch.inference_mode():
            assert linear.weight.is_inference()
            assert linear.weight is linear.weight
        assert not linear.weight.is_inference()
        original_of(linear).requires_grad_(False)
        linear.get_submodule("parametrizations.weight.0").requires_grad_(False)
        assert not linear.weight.requires_grad


def test_freezing_the_original_is_seen() -> None:
    linear = P.register_parametrization(nn.Linear(2, 2), "weight", torch.exp)
    with P.cached():
        assert linear.weight.requires_grad
        original_of(linear).requires_grad_(False)
        assert not linear.weight.requires_grad


def test_a_value_under_autocast_stays_there() -> None:
    linear = P.register_parametrization(nn.Linear(2, 2), "weight", lambda X: X @ X)
    with P.cached():
        with torch.autocast("cpu", torch.bfloat16):
            assert linear.weight.dtype == torch.bfloat16
            assert linear.weight is linear.weight
        assert linear.weight.dtype == torch.float32
        with torch.autocast("cpu", torch.float16):
            assert linear.weight.dtype == torch.float16


def test_two_backward_passes_in_one_scope_get_a_graph_each() -> None:
    linear, parametrization = counting()
    gradients = []
    with P.cached():
        for _ in range(2):
            linear.zero_grad()
            assert linear.weight is linear.weight
            torch.autograd.backward(linear(torch.ones(1, 3)).sum())
            gradients.append(original_of(linear).grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1])
    assert parametrization.calls.count == 2


def test_a_backward_pass_that_does_not_reach_the_value_does_not_end_it() -> None:
    linear, _ = counting()
    other = torch.ones(3, requires_grad=True)
    with P.cached():
        first = linear.weight
        torch.autograd.backward(other.sum())
        assert linear.weight is first


def test_the_backward_pass_may_come_after_the_scope() -> None:
    linear, _ = counting()
    with P.cached():
        loss = linear(linear(torch.ones(1, 3))).sum()
    torch.autograd.backward(loss)
    assert original_of(linear).grad.abs().sum() > 0


def test_a_kept_value_in_a_chain_is_itself_made_of_kept_values() -> None:
    linear: Any = P.register_parametrization(nn.Linear(2, 2), "weight", torch.exp)
    chain = linear.parametrizations.weight
    P.register_parametrization(chain, "original", torch.sinh)
    with P.cached(linear) as scope:
        assert linear.weight is linear.weight
        assert chain.original is chain.original
        assert scope.misses == 2
        with torch.no_grad():
            chain.parametrizations.original.original.add_(1)
        torch.testing.assert_close(linear.weight, chain.original.exp())


def test_an_unsafe_map_may_return_what_is_no_tensor() -> None:
    pair: Any = lambda X: (X, X)  # noqa: E731
    linear: Any = P.register_parametrization(nn.Linear(2, 2), "weight", pair, unsafe=True)
    with P.cached():
        assert isinstance(linear.weight, tuple)
        assert linear.weight is not linear.weight


def test_an_inference_tensor_is_evaluated_at_each_read() -> None:
    with torch.inference_mode():
        linear, _ = counting()
    with torch.inference_mode(), P.cached():
        before = linear.weight
        original_of(linear).add_(1)
        assert not torch.equal(linear.weight, before)


# what torch's cache does instead: each of these fails there


class Engine:
    """One of the two engines, by the names that both have."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def linear(self) -> Any:
        return self.module.register_parametrization(nn.Linear(2, 2), "weight", Exp())

    def cached(self) -> Any:
        return self.module.cached()


def returns_the_new_weight_after_a_step(engine: Engine) -> None:
    linear = engine.linear()
    optimizer = torch.optim.SGD(linear.parameters(), lr=1.0)
    with engine.cached():
        torch.autograd.backward(linear.weight.sum())
        optimizer.step()
        torch.testing.assert_close(linear.weight, linear.parametrizations.weight.original.exp())


def returns_the_new_weight_after_an_assignment(engine: Engine) -> None:
    linear = engine.linear()
    with engine.cached():
        assert linear.weight is not None
        linear.weight = torch.full((2, 2), 5.0)
        torch.testing.assert_close(linear.weight.detach(), torch.full((2, 2), 5.0))


def returns_the_new_weight_after_load_state_dict(engine: Engine) -> None:
    linear, other = engine.linear(), engine.linear()
    with engine.cached():
        assert linear.weight is not None
        linear.load_state_dict(other.state_dict())
        torch.testing.assert_close(linear.weight, other.weight)


def returns_the_new_dtype_after_double(engine: Engine) -> None:
    linear = engine.linear()
    with engine.cached():
        assert linear.weight is not None
        assert linear.double().weight.dtype == torch.float64


def gives_functional_call_its_own_weight(engine: Engine) -> None:
    linear = engine.linear()
    name = "parametrizations.weight.original"
    with engine.cached():
        results = [
            torch.func.functional_call(
                linear, {name: torch.full((2, 2), value), "bias": torch.zeros(2)}, torch.ones(1, 2)
            )
            for value in (0.0, 1.0)
        ]
    assert not torch.equal(*results)


def keeps_the_gradient_after_a_read_without(engine: Engine) -> None:
    linear = engine.linear()
    with engine.cached():
        with torch.no_grad():
            assert linear.weight is not None
        torch.autograd.backward(linear.weight.sum())
    assert linear.parametrizations.weight.original.grad is not None


def leaves_no_low_precision_outside_of_autocast(engine: Engine) -> None:
    linear = engine.module.register_parametrization(nn.Linear(2, 2), "weight", Squared())
    with engine.cached():
        with torch.autocast("cpu", torch.bfloat16):
            assert linear.weight is not None
        assert linear.weight.dtype == torch.float32


class Squared(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X @ X


def lets_threads_train_apart(engine: Engine) -> None:
    linear = engine.linear()
    values: list[Tensor] = []

    def read() -> None:
        with engine.cached():
            values.append(linear.weight)

    with engine.cached():
        read_here = linear.weight
        thread = threading.Thread(target=read)
        thread.start()
        thread.join(timeout=60)
    for value in (read_here, *values):
        torch.autograd.backward(value.sum())


def gives_a_copy_its_own_weight(engine: Engine) -> None:
    linear = engine.linear()
    with engine.cached():
        assert linear.weight is not None
        twin = copy.deepcopy(linear)
        with torch.no_grad():
            twin.parametrizations.weight.original.add_(1)
        torch.testing.assert_close(twin.weight, twin.parametrizations.weight.original.exp())


def gives_short_lived_modules_their_own_weight(engine: Engine) -> None:
    with engine.cached():
        for _ in range(50):
            linear = engine.linear()
            torch.testing.assert_close(linear.weight, linear.parametrizations.weight.original.exp())
            del linear
            gc.collect()  # torch's class holds the module in a cycle


def leaves_no_fake_tensor_after_an_export(engine: Engine) -> None:
    linear = engine.linear()
    with engine.cached():
        torch.export.export(linear, (torch.ones(1, 2),), strict=False)
        assert type(linear.weight.detach()) is Tensor


def survives_two_backward_passes(engine: Engine) -> None:
    linear = engine.linear()
    with engine.cached():
        for _ in range(2):
            torch.autograd.backward(linear.weight.sum())


def can_be_traced(engine: Engine) -> None:
    linear = engine.linear()
    with engine.cached():
        traced: Any = torch.jit.trace(linear, torch.ones(1, 2))  # type: ignore[no-untyped-call]
        expected = linear(torch.ones(1, 2))
    torch.testing.assert_close(traced(torch.ones(1, 2)), expected)


PROMISES = [
    returns_the_new_weight_after_a_step,
    returns_the_new_weight_after_an_assignment,
    returns_the_new_weight_after_load_state_dict,
    returns_the_new_dtype_after_double,
    gives_functional_call_its_own_weight,
    keeps_the_gradient_after_a_read_without,
    leaves_no_low_precision_outside_of_autocast,
    lets_threads_train_apart,
    gives_a_copy_its_own_weight,
    gives_short_lived_modules_their_own_weight,
    leaves_no_fake_tensor_after_an_export,
    survives_two_backward_passes,
    can_be_traced,
]


@pytest.mark.filterwarnings("ignore:.torch.jit")  # its end is announced, in a class that changes
@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_the_cache_cannot_lie_where_torchs_does(promise: Callable[[Engine], None]) -> None:
    promise(Engine(P))
    with pytest.raises((AssertionError, RuntimeError)):
        promise(Engine(torch_engine))


# lifetime


def test_leaving_a_scope_frees_its_values_at_once() -> None:
    linear, _ = counting()
    gc.disable()
    try:
        with P.cached():
            value = weakref.ref(linear.weight)
            assert value() is not None
            torch.autograd.backward(linear(torch.ones(1, 3)).sum())
        assert value() is None
    finally:
        gc.enable()


def test_an_outdated_value_is_freed_before_the_new_one_is_made() -> None:
    linear, parametrization = counting()
    alive: list[bool] = []
    with P.cached():
        value = weakref.ref(linear.weight)
        parametrization.register_forward_pre_hook(lambda *_: alive.append(value() is not None))
        step(linear)
        assert linear.weight is not None
    assert alive == [False]


# threads and tasks


def test_a_thread_does_not_see_the_scopes_of_another() -> None:
    linear, _ = counting()
    seen: list[bool] = []
    with P.cached():
        kept = linear.weight
        thread = threading.Thread(target=lambda: seen.append(linear.weight is kept))
        thread.start()
        thread.join(timeout=60)
    assert seen == [False]


def train(model: nn.Linear, steps: int, lock: threading.Lock) -> None:
    """Steps whose sum does not depend on their order: the gradient of exp(w) times exp(-w)."""
    original = original_of(model)
    for _ in range(steps):
        with P.cached(model):
            with lock:  # read both at the same weight
                first, second, rate = model.weight, model.weight, (-original.detach()).exp()
            assert first is second
            (gradient,) = torch.autograd.grad((first + second).sum() / 2, original)
            with lock, torch.no_grad():
                original.add_((gradient * rate).round(), alpha=2.0**-12)
                assert model.weight is not first


def test_eight_threads_train_one_model_as_one_thread_does() -> None:
    errors: list[BaseException] = []
    results = []
    for workers in (8, 1):
        torch.manual_seed(0)
        model = P.register_parametrization(nn.Linear(4, 4), "weight", torch.exp)
        with torch.no_grad():
            original_of(model).mul_(2**10).round_().div_(2**10)  # sums of these are exact
        lock = threading.Lock()

        def work(
            model: nn.Linear = model, lock: threading.Lock = lock, n: int = 2400 // workers
        ) -> None:
            try:
                train(model, n, lock)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=300)
        assert not errors
        results.append(original_of(model).detach())
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


def test_tasks_never_see_one_anothers_values() -> None:
    linear, _ = counting()
    owners: dict[int, int] = {}
    kept: list[Tensor] = []  # so that no identity is given twice

    async def use(number: int) -> None:
        for _ in range(3):
            with P.cached(linear):
                first = linear.weight
                kept.append(first)
                assert owners.setdefault(id(first), number) == number
                for pause in range(number % 4):
                    await asyncio.sleep(0)
                    with P.cached():
                        await asyncio.sleep(0)
                        assert linear.weight is first, pause
            assert linear.weight is not first
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(use(number) for number in range(200)))

    asyncio.run(main())
    assert len(owners) == 600


def test_a_task_shares_the_scope_it_is_started_in_while_that_lasts() -> None:
    linear, _ = counting()

    async def read() -> Tensor:
        return linear.weight

    async def read_later(event: asyncio.Event) -> bool:
        await event.wait()
        return linear.weight is linear.weight

    async def main() -> None:
        event = asyncio.Event()
        with P.cached() as scope:
            kept = linear.weight
            assert await asyncio.create_task(read()) is kept
            late = asyncio.create_task(read_later(event))
            await asyncio.sleep(0)
        event.set()
        assert not await late
        assert len(scope) == 0

    asyncio.run(main())


def test_a_decorated_coroutine_keeps_its_scope_while_it_waits() -> None:
    linear, _ = counting()

    @P.cached()
    async def use() -> Tensor:
        first = linear.weight
        await asyncio.sleep(0)
        assert linear.weight is first
        return first

    async def main() -> None:
        first, second = await asyncio.gather(use(), use())
        assert first is not second

    asyncio.run(main())


def test_a_new_attribute_of_a_map_that_hides_one_of_its_class_is_noticed() -> None:
    class Scaled(nn.Module):
        factor = 1.0

        def forward(self, X: Tensor) -> Tensor:
            return self.factor * X

    scaled = Scaled()
    layer = P.register_parametrization(nn.Linear(2, 2), "weight", scaled)
    with P.cached():
        before = layer.weight
        assert layer.weight is before
        scaled.factor = 2.0
        torch.testing.assert_close(layer.weight, 2 * before)
        del scaled.factor
        torch.testing.assert_close(layer.weight, before)
