"""Random programs agree with a model of the cache's semantics that fits on a page."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import paramdesc as P
from tests.caching.forking import run_alone
from tests.helpers import Calls

# the model


@dataclass
class ModelEntry:
    """A kept value: made from this state and these contents of the original, in this grad mode."""

    state: tuple[int, bool]
    contents: int
    grad: bool
    number: int  # the how-manieth evaluation gave it
    looked: int  # when its contents were last compared
    consumed: bool = False


@dataclass(eq=False)
class ModelScope:
    """Covers tensors, as a set that may grow; what lasts is kept apart from what does not."""

    covered: Any
    lasts: bool = False
    deferred: bool = False
    call: int | None = None  # the tensor whose layer is called, for a scope of that call
    counts: dict[str, int] = field(default_factory=lambda: {"hits": 0, "misses": 0})
    entries: dict[int, ModelEntry] = field(default_factory=dict)
    pending: dict[int, int] = field(default_factory=dict)


@dataclass
class Model:
    """What must happen, for numbered tensors.

    A version counts the changes that torch or paramdesc is told of, in the original or in what
    the map uses. Contents count the others: writes to `.data`. Those are noticed only by what
    lasts, and only if the value is read after a new look at the contents was asked for.
    """

    versions: list[int] = field(default_factory=lambda: [0, 0])
    contents: list[int] = field(default_factory=lambda: [0, 0])
    looks: int = 0
    training: list[bool] = field(default_factory=lambda: [True, True])
    backwards: list[int] = field(default_factory=lambda: [0, 0])  # that reached the original
    auto: set[int] = field(default_factory=set)
    scopes: list[ModelScope] = field(default_factory=list)
    grad: bool = True
    evaluations: int = 0

    def __post_init__(self) -> None:
        self.around = ModelScope(self.auto, lasts=True)

    def read(self, tensor: int) -> ModelEntry:
        state = self.versions[tensor], self.training[tensor]
        scopes = [s for s in (*self.scopes, self.around) if tensor in s.covered]
        for scope in scopes:
            entry = scope.entries.get(tensor)
            if (
                entry
                and entry.state == state
                and not entry.consumed
                and (not scope.lasts or self.has_same_contents(tensor, entry))
            ):
                if entry.grad == self.grad or (scope.deferred and entry.grad):
                    scope.counts["hits"] += 1
                    return entry
                if scope.lasts:
                    continue  # it may serve again
            scope.entries.pop(tensor, None)
        self.evaluations += 1
        entry = ModelEntry(state, self.contents[tensor], self.grad, self.evaluations, self.looks)
        may_last = not self.grad and not self.training[tensor]
        lasting = [s for s in (self.around, *self.scopes) if s in scopes and s.lasts and may_last]
        for owner in (lasting or [s for s in scopes if not s.lasts])[:1]:
            owner.counts["misses"] += 1
            owner.entries[tensor] = entry
        return entry

    def has_same_contents(self, tensor: int, entry: ModelEntry) -> bool:
        is_due, entry.looked = entry.looked != self.looks, self.looks
        return not is_due or entry.contents == self.contents[tensor]

    def owner(self, tensor: int) -> ModelScope | None:
        return next((s for s in self.scopes if not s.lasts and tensor in s.covered), None)

    def change(self, *tensors: int) -> None:
        for tensor in tensors:
            self.versions[tensor] += 1

    def forget(self, tensor: int) -> None:
        for scope in (self.around, *self.scopes):
            scope.entries.pop(tensor, None)

    def assign(self, tensor: int) -> None:
        self.read(tensor)  # nn.Module asks whether the name exists, and that is a read
        self.change(tensor)
        self.forget(tensor)

    def backward(self, tensor: int, entry: ModelEntry) -> None:
        owner = self.owner(tensor)
        if owner and owner.deferred:
            owner.pending[tensor] = owner.pending.get(tensor, 0) + 1
        else:
            entry.consumed = True
            self.backwards[tensor] += 1

    def flush(self, scope: ModelScope, fails: bool = False) -> None:
        for tensor, count in scope.pending.items():
            self.backwards[tensor] += 0 if fails else count
        scope.pending.clear()
        for entry in scope.entries.values():
            entry.consumed = entry.consumed or entry.grad

    def leave_call(self, tensor: int) -> None:
        calls = [s for s in self.scopes if s.call == tensor]
        self.scopes[:] = [s for s in self.scopes if all(s is not x for x in calls[-1:])]

    def switch_off(self, tensor: int) -> None:
        if tensor in self.auto:
            self.auto.discard(tensor)
            self.scopes[:] = [s for s in self.scopes if s.call != tensor]
        self.change(tensor)  # what closed scopes keep ends too
        self.forget(tensor)


# the programs

TENSORS = st.integers(0, 1)
NAMES = [
    *("read", "read", "read", "write", "write_data", "bind_anew", "write_member", "assign"),
    *("backward", "train", "evaluation", "auto", "no_auto", "invalidate"),
]
ACTIONS = st.tuples(st.sampled_from(NAMES), TENSORS)
STEPS = st.tuples(
    st.just("step"),
    st.sampled_from(["plain", "fused", "writes to .data", "skips"]),
    st.sets(TENSORS),  # those with a gradient
)
ALL = STEPS | st.tuples(st.just("flush"))
TARGETS = st.sampled_from([None, (), (0,), (1,), (0, 1)])
KINDS = st.sampled_from(["plain", "plain", "deferred", "persistent", "persistent"])


def blocks(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    program = st.lists(inner, max_size=6)
    return st.one_of(
        st.tuples(st.just("scope"), TARGETS, KINDS, program, st.booleans()),
        st.tuples(st.just("grad"), st.booleans(), program, st.booleans()),
        st.tuples(st.just("call"), TENSORS, program, st.booleans()),
        st.tuples(st.just("requests"), st.booleans(), program),
    )


def blocks_and_forks(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return blocks(inner) | st.tuples(st.just("fork"), st.lists(inner, max_size=6))


PROGRAMS = st.lists(st.recursive(ACTIONS | ALL, blocks, max_leaves=25), max_size=12)
WITH_FORKS = st.lists(st.recursive(ACTIONS | ALL, blocks_and_forks, max_leaves=25), max_size=12)


class PlannedError(Exception):
    """Leaves the blocks of a program."""


class Written(torch.optim.Optimizer):
    """Adds one to `.data` where there is a gradient, or skips the step."""

    def __init__(self, parameters: list[nn.Parameter], skips: bool) -> None:
        super().__init__(parameters, {})
        self.skips = skips

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            if parameter.grad is not None and not self.skips:
                parameter.data.add_(1)


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "plain": lambda p: torch.optim.SGD(p, lr=1.0, foreach=False),
    "fused": lambda p: torch.optim.SGD(p, lr=1.0, fused=True),
    "writes to .data": lambda p: Written(p, skips=False),
    "skips": lambda p: Written(p, skips=True),
}


class Depending:
    """`2 X + number + member`: one in the closure of `function`, the other in a list in a list."""

    def __init__(self) -> None:
        number, members = 0.0, [[torch.zeros(())]]

        def function(X: Tensor) -> Tensor:
            return 2 * X + number + members[0][0]

        def bind_anew() -> None:
            nonlocal number
            number += 1

        self.function, self.bind_anew, self.members = function, bind_anew, members
        self.expected: Callable[[Tensor], Tensor] = lambda X: 2 * X + number + members[0][0]


class Layer(nn.Linear):
    """Does what it is given when it is called."""

    def forward(self, action: Any) -> Any:
        return action()


class Run:
    """Runs a program on real modules and on the model, side by side."""

    def __init__(self) -> None:
        self.model = Model()
        self.calls = Calls()
        self.seen: dict[int, Tensor] = {}  # by number of evaluation
        self.maps = [Depending() for _ in range(2)]
        self.layers = [
            P.register_parametrization(
                Layer(1, 1), "weight", made.function, right_inverse=lambda X: X / 2
            )
            for made in self.maps
        ]
        for layer in self.layers:  # what a hook is closed over is not watched
            layer.get_submodule("parametrizations.weight.0").register_forward_hook(self.count)
        originals = [original(layer) for layer in self.layers]
        self.optimizers = {name: make(originals) for name, make in OPTIMIZERS.items()}
        self.persistent: dict[Any, tuple[P.cached, ModelScope]] = {}
        self.opened: list[tuple[P.Scope, ModelScope]] = []
        self.calls.count = 0

    def count(self, *_: Any) -> None:
        self.calls.count += 1

    def start(self, program: list[Any], serves: bool) -> None:
        """Run `program`; if it `serves`, in evaluation mode and without gradients at first."""
        if serves:
            self.evaluation(0)
            self.evaluation(1)
            self.grad(False, program, False)
        else:
            self.program(program)

    def program(self, program: list[Any], fails: bool = False) -> None:
        for name, *arguments in program:
            getattr(self, name)(*arguments)
            self.compare_gradients()
        if fails:
            raise PlannedError

    def compare_gradients(self) -> None:
        for layer, count in zip(self.layers, self.model.backwards, strict=True):
            gradient = original(layer).grad
            assert (0 if gradient is None else gradient.item()) == 2 * count

    def read(self, tensor: int) -> tuple[ModelEntry, Tensor]:
        value = self.layers[tensor].weight
        entry = self.model.read(tensor)
        assert self.calls.count == self.model.evaluations
        kept = self.seen.setdefault(entry.number, value)
        if entry.grad and not self.model.grad:  # a leaf without its gradient
            value, kept = value.detach(), kept.detach()
            assert value.data_ptr() == kept.data_ptr()
        else:
            assert kept is value
        is_fresh = entry.contents == self.model.contents[tensor]
        expected = self.maps[tensor].expected(original(self.layers[tensor]))
        assert torch.equal(value, expected) == is_fresh
        assert value.requires_grad == self.model.grad
        return entry, value

    def write(self, tensor: int) -> None:
        with torch.no_grad():
            original(self.layers[tensor]).add_(1)
        self.model.change(tensor)

    def write_data(self, tensor: int) -> None:
        original(self.layers[tensor]).data.add_(1)
        self.model.contents[tensor] += 1

    def bind_anew(self, tensor: int) -> None:
        self.maps[tensor].bind_anew()
        self.model.change(tensor)

    def write_member(self, tensor: int) -> None:
        self.maps[tensor].members[0][0].add_(1)
        self.model.change(tensor)

    def invalidate(self, tensor: int) -> None:
        P.invalidate(self.layers[tensor])
        self.model.change(tensor)

    def assign(self, tensor: int) -> None:
        self.layers[tensor].weight = torch.full((1, 1), 7.0)
        self.model.assign(tensor)

    def train(self, tensor: int, mode: bool = True) -> None:
        self.layers[tensor].train(mode)
        self.model.training[tensor] = mode

    def evaluation(self, tensor: int) -> None:
        self.train(tensor, False)

    def auto(self, tensor: int) -> None:
        told = P.auto_cache(self.layers[tensor])
        self.model.auto.add(tensor)
        assert len(told) == (tensor in self.model.around.entries)

    def no_auto(self, tensor: int) -> None:
        P.auto_cache(self.layers[tensor], False)
        self.model.switch_off(tensor)

    def step(self, kind: str, tensors: set[int]) -> None:
        step: Any = self.optimizers[kind].step
        before = [original(layer).grad for layer in self.layers]
        for tensor, layer in enumerate(self.layers):
            original(layer).grad = torch.ones(1, 1) if tensor in tensors else None
        if any(scope.pending for scope in self.model.scopes):
            with pytest.raises(RuntimeError, match="call scope.backward()"):
                step()
        else:
            step()
            self.model.change(*tensors)  # also if the step was skipped
        for layer, gradient in zip(self.layers, before, strict=True):
            original(layer).grad = gradient

    def flush(self) -> None:
        for scope, model_scope in self.opened:
            if model_scope.deferred:
                scope.backward()
                self.model.flush(model_scope)

    def backward(self, tensor: int) -> None:
        entry, value = self.read(tensor)
        if value.requires_grad:
            torch.autograd.backward(value.sum())
            self.model.backward(tensor, entry)

    def scope(
        self, targets: tuple[int, ...] | None, kind: str, program: list[Any], fails: bool
    ) -> None:
        if kind == "persistent" and targets is None:
            targets = (0, 1)  # it must be given some
        covered = frozenset((0, 1) if targets is None else targets)
        given = () if targets is None else ([self.layers[i] for i in targets],)
        model_scope = ModelScope(covered, deferred=kind == "deferred")
        opened = P.cached(*given, deferred=kind == "deferred")
        scopes = [model_scope]
        if kind == "persistent":
            new = P.cached(*given, persistent=True), ModelScope(covered, lasts=True)
            opened, lasting = self.persistent.setdefault(targets, new)
            model_scope.counts = lasting.counts
            self.model.looks += 1
            # the same values, in an opening of its own
            scopes = [replace(lasting), model_scope]
        held: set[int] = set()
        try:
            with opened as scope:
                self.model.scopes += scopes
                self.opened.append((scope, model_scope))
                self.program(program)
                held = {tensor for s in scopes for tensor in s.entries}
                assert len(scope) == len(held)
                self.program([], fails)
        except PlannedError:
            self.model.flush(model_scope, fails=True)
        else:
            self.model.flush(model_scope)
        self.opened.pop()
        self.model.scopes[:] = [s for s in self.model.scopes if all(s is not x for x in scopes)]
        assert {"hits": scope.hits, "misses": scope.misses} == model_scope.counts
        assert len(scope) == sum(len(s.entries) for s in scopes if s.lasts)

    def grad(self, enabled: bool, program: list[Any], fails: bool) -> None:
        before, self.model.grad = self.model.grad, enabled
        with suppress(PlannedError), torch.set_grad_enabled(enabled):
            self.program(program, fails)
        self.model.grad = before

    def call(self, tensor: int, program: list[Any], fails: bool) -> None:
        model = self.model
        model.looks += tensor in model.auto
        if tensor in model.auto and (model.grad or model.training[tensor]):
            model.scopes.append(ModelScope(model.auto, call=tensor))
        with suppress(PlannedError):
            self.layers[tensor](lambda: self.program(program, fails))
        if tensor in model.auto:
            model.leave_call(tensor)

    def requests(self, by_calls: bool, program: list[Any]) -> None:
        """Read everything before each step of `program` and after it, as a server does."""
        reads = [("read", 0), ("read", 1)]
        for steps in ([], *([step] for step in program)):
            self.program(steps)
            if by_calls:
                self.call(0, reads, False)
            else:
                self.scope((0, 1), "persistent", reads, False)

    def fork(self, program: list[Any]) -> None:
        """A child goes on with `program`, from all that is kept and open."""
        child = os.fork()
        if child == 0:
            status = 1
            try:
                self.program(program)
                status = 0
            except PlannedError:
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0


def original(layer: nn.Module) -> nn.Parameter:
    return layer.get_parameter("parametrizations.weight.original")


@given(PROGRAMS, st.booleans())
def test_random_programs_do_what_the_model_says(program: list[Any], serves: bool) -> None:
    Run().start(program, serves)


def programs_with_forks() -> None:
    @settings(max_examples=150, deadline=None, database=None)
    @given(WITH_FORKS, st.booleans())
    def run(program: list[Any], serves: bool) -> None:
        Run().start(program, serves)

    run()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_forked_child_does_what_the_model_says() -> None:
    run_alone(programs_with_forks)
