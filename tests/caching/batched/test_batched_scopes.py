"""What is alike is evaluated together, and gives what single evaluations give."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.caching import deferral, together
from paramdesc.errors import BatchedGraphError, CacheTargetError
from paramdesc.parametrizations import (
    LoRA,
    LowRank,
    Orthogonal,
    PositiveDefinite,
    SpectralNorm,
    Symmetric,
    WeightNorm,
)
from tests.helpers import Evaluations

MAPS: dict[str, Callable[[], nn.Module]] = {
    "Symmetric": Symmetric,
    "SpectralNorm": SpectralNorm,
    "Orthogonal": Orthogonal,
    "householder": lambda: Orthogonal("householder"),
    "polar": lambda: Orthogonal("polar"),
    "WeightNorm": WeightNorm,
    "LowRank": lambda: LowRank(2),
    "LoRA": lambda: LoRA(2),
    "PositiveDefinite": PositiveDefinite,
}


class Power(nn.Module, metaclass=Evaluations):
    """`|X|^exponent`, by a user; refuses numbers above `largest` if it can look at them."""

    def __init__(self, exponent: float = 3.0) -> None:
        super().__init__()
        self.exponent = exponent

    def forward(self, X: Tensor) -> Tensor:
        type(self).evaluations += 1
        return X.abs() ** self.exponent


class Noisy(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X + torch.randn_like(X)


class Picky(nn.Module):
    """Looks at a number, which a batch cannot."""

    def forward(self, X: Tensor) -> Tensor:
        if X.sum().item() > 1e6:
            raise ValueError("too large")
        return 2 * X


class Remembering(nn.Module):
    """Keeps the last result as an attribute."""

    def forward(self, X: Tensor) -> Tensor:
        self.last = X.sum()
        return 2 * X


def layers(make: Callable[[], nn.Module], count: int = 4, n: int = 4) -> Any:
    torch.manual_seed(0)
    made = nn.ModuleList(nn.Linear(n, n, bias=False, dtype=torch.float64) for _ in range(count))
    for layer in made:
        P.register_parametrization(layer, "weight", make())
    return made


def weights(model: Any) -> list[Any]:
    return [layer.weight for layer in model]


def train(model: Any, steps: int, **options: Any) -> list[Any]:
    """Values, gradients and states over some steps in which one layer is not used in the loss."""
    seen: list[Any] = []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        with P.cached(model, **options):
            values = weights(model)
            torch.manual_seed(step)
            loss = sum((value * torch.randn(4, 4)).sum() for value in values[:-1])
            seen += [value.detach().clone() for value in values]
            torch.as_tensor(loss).backward()  # type: ignore[no-untyped-call]
        seen += [None if p.grad is None else p.grad.clone() for p in model.parameters()]
        optimizer.step()
    return seen + [x.clone() for x in model.state_dict().values()]


@pytest.mark.parametrize("options", [{}, {"deferred": True}], ids=["plain", "deferred"])
@pytest.mark.parametrize("name", MAPS)
def test_training_is_that_of_single_evaluations(name: str, options: dict[str, bool]) -> None:
    one = layers(MAPS[name])
    other = copy.deepcopy(one)
    found = train(other, 55, batched=True, **options)  # base points move after 50 steps
    expected = train(one, 55, **options)
    for x, y in zip(found, expected, strict=True):
        assert (x is None) == (y is None), "a tensor outside of the loss got a gradient"
        if x is not None:
            torch.testing.assert_close(x, y, rtol=1e-7, atol=1e-9)


def test_one_evaluation_serves_all_that_are_alike() -> None:
    model = layers(Power, 6)
    Power.evaluations = 0
    with P.cached(model, batched=True) as scope:
        weights(model)
    assert Power.evaluations == 1
    assert (scope.misses, scope.hits) == (6, 5)
    assert [row.together for row in scope.report()] == [6] * 6
    assert "together" in str(scope.report())


def test_only_what_is_alike_is_evaluated_together() -> None:
    model = layers(Power, 8)
    chains: list[Any] = list(P.get_parametrizations(model))
    chains[1][0].exponent = 2.0
    chains[2].original.requires_grad_(False)
    chains[3].float()
    chains[4].eval()
    chains[5][0].register_forward_hook(lambda *_: None)
    with P.cached(model, batched=True) as scope:
        values = weights(model)
    report = scope.report()
    together = [report[f"{number}.weight"].together for number in range(8)]
    assert together == [3, 1, 1, 1, 1, 1, 3, 3]
    for layer, value in zip(model, values, strict=True):
        torch.testing.assert_close(value, layer.weight)


def test_what_is_not_covered_is_left_alone() -> None:
    model = layers(Power, 4)
    with P.cached(model[:2], batched=True) as scope:
        weights(model)
    assert [row.together for row in scope.report()] == [2, 2]


def test_targets_are_needed() -> None:
    with pytest.raises(CacheTargetError, match=r"cached\(model, batched=True\)"):
        P.cached(batched=True)


@pytest.mark.parametrize("make", [Noisy, Picky, Remembering])
def test_what_is_more_than_a_function_of_tensors_is_evaluated_alone(
    make: Callable[[], nn.Module],
) -> None:
    model, alone = layers(make), layers(make)
    torch.manual_seed(1)
    with P.cached(model, batched=True) as scope:
        values = weights(model)
    torch.manual_seed(1)
    torch.testing.assert_close(values, weights(alone))
    assert all(row.together == 1 for row in scope.report())
    if make is Remembering:
        assert len({layer.parametrizations.weight[0].last.item() for layer in model}) == 4


def test_functions_made_in_a_loop_are_alike_if_their_closures_are() -> None:
    model = layers(Symmetric, 4)
    for number, layer in enumerate(model):
        factor = 2.0 if number else 3.0
        P.register_parametrization(layer, "weight", lambda X, factor=factor: factor * X)
    with P.cached(model, batched=True) as scope:
        values = weights(model)
    assert [row.together for row in scope.report()] == [1, 3, 3, 3]
    torch.testing.assert_close(values, weights(model))


def test_an_exception_names_the_tensor_that_raised() -> None:
    model = layers(PositiveDefinite, 3)

    def refuse(X: Tensor) -> Tensor:
        factor: Tensor = torch.linalg.cholesky(X)
        return factor

    for layer in model:
        P.register_parametrization(layer, "weight", refuse, unsafe=True)
    P.register_parametrization(model[1], "weight", refuse, unsafe=True)
    with P.cached(model, batched=True):
        assert model[0].weight.shape == (4, 4)
    broken = layers(Symmetric, 3)
    for layer in broken:
        P.register_parametrization(layer, "weight", Picky())
    with torch.no_grad():
        broken[1].parametrizations.weight.original.fill_(1e9)
    with P.cached(broken, batched=True):
        assert broken[0].weight.shape == (4, 4)
        with pytest.raises(ValueError, match="too large") as caught:
            _ = broken[1].weight
        assert any("weight" in note for note in caught.value.__notes__)


def test_a_backward_pass_expires_all_values_of_the_batch() -> None:
    model = layers(Power, 3)
    with P.cached(model, batched=True) as scope:
        first, second, _ = weights(model)
        first.sum().backward()
        assert model[1].weight is not second
        model[1].weight.sum().backward()
    assert {str(row.dropped) for row in scope.report()[:2]} == {"a backward pass went through it"}
    assert model[2].parametrizations.weight.original.grad is None
    expected = layers(Power, 3)
    torch.stack(weights(expected)[:2]).sum().backward()  # type: ignore[no-untyped-call]
    for one, other in zip(model[:2], expected[:2], strict=True):
        torch.testing.assert_close(
            one.parametrizations.weight.original.grad,
            other.parametrizations.weight.original.grad,
        )


def test_a_second_backward_pass_through_earlier_values_says_what_to_do() -> None:
    model = layers(Power, 3)
    with P.cached(model, batched=True):
        first, second, third = weights(model)
        first.sum().backward()
        with pytest.raises(BatchedGraphError, match=r"3 tensors were evaluated together \('0.wei"):
            second.sum().backward()
    with P.cached(model, batched=True):
        first, second, third = weights(model)
        first.sum().backward(retain_graph=True)
        (second + third).sum().backward()


def test_second_derivatives() -> None:
    model = layers(Power, 3)
    originals = [layer.parametrizations.weight.original for layer in model]
    found = []
    for options in ({"batched": True}, {}):
        with P.cached(model, **options):
            loss = torch.stack(weights(model)[:2]).sum()
            gradients = torch.autograd.grad(loss, originals[:2], create_graph=True)
            found.append(torch.autograd.grad(torch.stack(gradients).sum(), originals[:2]))
    torch.testing.assert_close(*found)


def test_a_change_makes_only_its_own_value_stale() -> None:
    model = layers(Power, 3)
    with P.cached(model, batched=True):
        first, second, third = weights(model)
        with torch.no_grad():
            model[1].parametrizations.weight.original.mul_(2)
        assert model[0].weight is first
        assert model[2].weight is third
        torch.testing.assert_close(model[1].weight, 8 * second)


def test_a_value_can_be_written_to() -> None:
    model = layers(Power, 3)
    with P.cached(model, batched=True), torch.no_grad():
        first, second, _ = weights(model)
        before = second.clone()
        first.zero_()
        assert torch.equal(model[1].weight, before)
        assert model[0].weight.count_nonzero() == 16
        assert all(x.untyped_storage().nbytes() == x.nbytes for x in (first, second))


def test_an_outer_scope_keeps_what_it_covers() -> None:
    model = layers(Power, 4)
    with P.cached(model[:2]) as outer:
        with P.cached(model, batched=True) as inner:
            first, *_, last = weights(model)
        assert [row.together for row in outer.report()] == [4, 4]
        assert inner.misses == 2
        assert model[0].weight is first
        assert model[3].weight is not last


def test_tied_originals_get_the_sum_of_the_gradients() -> None:
    model = layers(Symmetric, 3)
    shared = model[0].parametrizations.weight.original
    model[1].parametrizations.weight.original = shared
    with P.cached(model, batched=True) as scope:
        torch.stack(weights(model)).sum().backward()  # type: ignore[no-untyped-call]
    assert scope.report()[0].together == 3
    upper = torch.ones(4, 4, dtype=torch.float64).triu()
    torch.testing.assert_close(shared.grad, 2 * (upper + upper.triu(1)))


def test_values_are_freed_with_the_scope(no_collector: None) -> None:
    model = layers(Power, 3)
    with P.cached(model, batched=True):
        values = weights(model)
    freed: list[bool] = []

    class Watch:
        def __del__(self) -> None:
            freed.append(True)

    for value in values:
        value.watch = Watch()
    del values, value
    assert len(freed) == 3


def test_one_forward_pass_of_a_model_with_auto_cache_evaluates_once() -> None:
    model = nn.Sequential(*layers(Power, 3))
    scope = P.auto_cache(model, batched=True)
    Power.evaluations = 0
    inputs = torch.ones(1, 4, dtype=torch.float64)
    model(inputs).sum().backward()
    assert Power.evaluations == 1
    assert [row.together for row in scope.report()] == [3, 3, 3]
    twin = copy.deepcopy(model).eval()
    with torch.no_grad():
        for _ in range(2):
            twin(inputs)
        assert Power.evaluations == 2
        assert all(value.grad_fn is None for value in weights(twin))
    P.auto_cache(model, False)
    assert not model._forward_pre_hooks


def test_a_persistent_scope_evaluates_once_for_all_threads() -> None:
    model = layers(Power, 5).eval().requires_grad_(False)
    cache = P.cached(model, persistent=True, batched=True)
    Power.evaluations = 0
    seen: list[Any] = []

    def serve(start: int) -> None:
        with cache:
            found = [model[(start + i) % 5].weight for i in range(5)]
        seen.append({id(value) for value in found})

    threads = [threading.Thread(target=serve, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(ids == seen[0] for ids in seen)
    serve(0)
    assert seen[-1] == seen[0]
    with cache as scope:
        assert scope.report()[0].together >= 1
        with torch.no_grad():
            model[1].parametrizations.weight.original.mul_(2)
        before = Power.evaluations
        weights(model)
        assert Power.evaluations == before + 1


def test_a_decorated_function_evaluates_together() -> None:
    model = layers(Power, 3)

    @P.cached(model, batched=True)
    def run() -> list[Tensor]:
        return weights(model)

    Power.evaluations = 0
    run()
    assert Power.evaluations == 1


def test_functional_call_uses_the_tensors_that_it_lends() -> None:
    model = nn.Sequential(*layers(Symmetric, 3))
    lent = {name: 2 * x.detach() for name, x in model.named_parameters()}
    inputs = torch.ones(1, 4, dtype=torch.float64)
    with P.cached(model, batched=True):
        plain = model(inputs)
        doubled = torch.func.functional_call(model, lent, (inputs,))
        torch.testing.assert_close(doubled, 8 * plain)
        torch.testing.assert_close(model(inputs), plain)


@pytest.mark.usefixtures("compiler")
def test_compiled_code_gets_the_values() -> None:
    model = nn.Sequential(*layers(Power, 3))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    inputs = torch.ones(1, 4, dtype=torch.float64)
    expected = model(inputs)
    Power.evaluations = 0
    with P.cached(model, batched=True) as scope:
        torch.testing.assert_close(compiled(inputs), expected)
    assert [row.together for row in scope.report()] == [3, 3, 3]


def test_a_function_that_is_compiled_may_open_the_scope() -> None:
    model = layers(Symmetric, 3)

    def total() -> Tensor:
        with P.cached(model, batched=True):
            return torch.stack(weights(model)).sum()

    compiled = torch.compile(total, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(), total())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.complex64])
def test_other_dtypes(dtype: torch.dtype) -> None:
    model = layers(Symmetric, 3)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    with P.cached(model, batched=True) as scope:
        values = weights(model)
    assert scope.report()[0].together == 3
    torch.testing.assert_close(values, weights(model))


def test_ill_conditioned_weights_have_the_values_of_single_evaluations() -> None:
    model = layers(lambda: Orthogonal("polar"), 3)
    for layer in model:
        P.register_parametrization(layer, "weight", Symmetric(), unsafe=True)
    with torch.no_grad():
        model[0].parametrizations.weight.original.copy_(torch.diag(torch.tensor([1, 1, 1, 1e-14])))
    with P.cached(model, batched=True):
        values = weights(model)
    assert all(value.isfinite().all() for value in values)
    torch.testing.assert_close(values, weights(model))


def test_large_weights_on_a_cpu_are_evaluated_one_by_one() -> None:
    model = nn.ModuleList(nn.Linear(200, 200) for _ in range(2))
    for layer in model:
        P.register_parametrization(layer, "weight", Symmetric())
    with P.cached(model, batched=True) as scope:
        weights(model)
    assert [row.together for row in scope.report()] == [1, 1]


def test_the_end_of_a_deferred_scope_visits_the_graph_of_a_batch_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = layers(Symmetric, 6)
    visits: list[Tensor] = []
    visit = deferral.leaves_below

    def leaves_below(value: Tensor) -> list[Tensor]:
        visits.append(value)
        return visit(value)

    monkeypatch.setattr(deferral, "leaves_below", leaves_below)
    with P.cached(model, batched=True, deferred=True):
        torch.stack(weights(model)).sum().backward()  # type: ignore[no-untyped-call]
    assert len(visits) <= 3
    assert all(layer.parametrizations.weight.original.grad is not None for layer in model)


class Listing(nn.Module):
    """Has a list that it changes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, X: Tensor) -> Tensor:
        self.seen.append(1)
        return 2 * X


class Factor(nn.Module, metaclass=Evaluations):
    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, X: Tensor) -> Tensor:
        type(self).evaluations += 1
        return (self.factor * X).exp()


class Rows(nn.Module):
    """Declares that leading dimensions are a batch."""

    batching = "leading"

    def forward(self, X: Tensor) -> Tensor:
        return X @ X.mT


@pytest.mark.parametrize("n", [3, 4])
def test_one_original_under_all_maps(n: int) -> None:
    model = layers(Rows, 4, n)
    for layer in model[1:]:
        layer.parametrizations.weight.original = model[0].parametrizations.weight.original
    with P.cached(model, batched=True):
        values = weights(model)
    torch.testing.assert_close(values, weights(model))


def test_a_list_of_a_map_is_its_own() -> None:
    model = layers(Listing, 3)
    before = [len(layer.parametrizations.weight[0].seen) for layer in model]
    with P.cached(model, batched=True):
        weights(model)
    after = [len(layer.parametrizations.weight[0].seen) for layer in model]
    assert after == [count + 1 for count in before]


@pytest.mark.parametrize("is_mixed", [True, False])
def test_gradients_of_gradients_reach_every_original(is_mixed: bool) -> None:
    found = []
    for options in ({"batched": True}, {}):
        model = layers(Factor, 4)
        first, second = (layer.parametrizations.weight.original for layer in model[:2])
        with P.cached(model, **options):
            one, two, *_ = weights(model)
            (gradient,) = torch.autograd.grad(two.sum(), second, create_graph=True)
            if is_mixed:
                (gradient.pow(2).sum() + one.sum()).backward()
            else:
                torch.autograd.grad(one.sum(), first, create_graph=True)
                gradient.pow(2).sum().backward()
            gradient.detach().mul_(2)
        found.append(second.grad)
    torch.testing.assert_close(*found)


def test_threads_may_run_backward_passes_of_one_batch() -> None:
    model = layers(Factor, 4)
    originals = [layer.parametrizations.weight.original for layer in model]
    with P.cached(model, batched=True):
        values = weights(model)

        def run(number: int) -> None:
            for _ in range(10):
                values[number].sum().backward(retain_graph=True)

        for _ in range(5):
            for original in originals:
                original.grad = None
            threads = [threading.Thread(target=run, args=(i,)) for i in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert originals[3].grad is None
            for value, original in zip(values[:3], originals, strict=False):
                torch.testing.assert_close(original.grad, 10 * value.detach())


def test_the_chains_of_a_group_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = layers(Factor, 12)
    for number, layer in enumerate(model):
        layer.parametrizations.weight[0].factor = float(number)
    looks = 0
    of = together.Member.of

    def count(chain: Any) -> Any:
        nonlocal looks
        looks += 1
        return of(chain)

    monkeypatch.setattr(together.Member, "of", count)
    with P.cached(model, batched=True):
        weights(model)
    assert looks <= 2 * 12


def test_a_value_that_is_not_finite_costs_one_batch() -> None:
    model = layers(Factor, 12)
    with torch.no_grad():
        model[5].parametrizations.weight.original.fill_(torch.nan)
    Factor.evaluations = 0
    with P.cached(model, batched=True):
        weights(model)
    assert Factor.evaluations == 1 + 12


def test_sums_in_half_precision_may_overflow() -> None:
    model = nn.ModuleList(nn.Linear(90, 90, bias=False).half() for _ in range(3))
    for layer in model:
        nn.init.constant_(layer.weight, 3.0)  # type: ignore[arg-type]
        P.register_parametrization(layer, "weight", Factor())
    Factor.evaluations = 0
    with P.cached(model, batched=True):
        weights(model)
    assert Factor.evaluations == 1
