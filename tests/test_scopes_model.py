"""Random programs agree with a model of the cache's semantics that fits on a page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import paramdesc as P

# the model


@dataclass
class ModelEntry:
    """A kept value: made from this state of the original, in this grad mode."""

    state: int
    grad: bool
    number: int  # the how-manieth evaluation gave it
    consumed: bool = False


@dataclass
class ModelScope:
    covered: frozenset[int]
    entries: dict[int, ModelEntry] = field(default_factory=dict)
    hits: int = 0
    misses: int = 0


@dataclass
class Model:
    """What must happen, for tensors that are numbered and whose originals count their changes."""

    states: list[int] = field(default_factory=lambda: [0, 0])
    scopes: list[ModelScope] = field(default_factory=list)
    grad: bool = True
    evaluations: int = 0

    def read(self, tensor: int) -> ModelEntry:
        scope = next((scope for scope in self.scopes if tensor in scope.covered), None)
        entry = scope.entries.get(tensor) if scope else None
        current = (self.states[tensor], self.grad)
        if scope and entry and (entry.state, entry.grad) == current and not entry.consumed:
            scope.hits += 1
            return entry
        self.evaluations += 1
        entry = ModelEntry(*current, number=self.evaluations)
        if scope:
            scope.misses += 1
            scope.entries[tensor] = entry
        return entry

    def change(self, *tensors: int) -> None:
        for tensor in tensors:
            self.states[tensor] += 1

    def assign(self, tensor: int) -> None:
        self.read(tensor)  # nn.Module asks whether the name exists, and that is a read
        self.change(tensor)
        for scope in self.scopes:
            scope.entries.pop(tensor, None)

    def backward(self, entry: ModelEntry) -> None:
        entry.consumed = True


# the programs

TENSORS = st.integers(0, 1)
ACTIONS = st.tuples(st.sampled_from(["read", "read", "write", "assign", "backward"]), TENSORS)
STEPS = st.just(("step", 0))
TARGETS = st.sampled_from([None, (), (0,), (1,), (0, 1)])


def blocks(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    program = st.lists(inner, max_size=6)
    return st.one_of(
        st.tuples(st.just("scope"), TARGETS, program, st.booleans()),
        st.tuples(st.just("grad"), st.booleans(), program, st.booleans()),
    )


PROGRAMS = st.lists(st.recursive(ACTIONS | STEPS, blocks, max_leaves=25), max_size=12)


class PlannedError(Exception):
    """Leaves the blocks of a program."""


class Run:
    """Runs a program on real modules and on the model, side by side."""

    def __init__(self) -> None:
        self.model = Model()
        self.evaluations = 0
        self.seen: dict[int, Tensor] = {}  # by number of evaluation
        self.layers = [
            P.register_parametrization(
                nn.Linear(1, 1), "weight", self.evaluate, right_inverse=lambda X: X / 2
            )
            for _ in range(2)
        ]
        self.optimizer = torch.optim.SGD(
            [original(layer) for layer in self.layers], lr=1.0, fused=True
        )
        self.evaluations = 0

    def evaluate(self, X: Tensor) -> Tensor:
        self.evaluations += 1
        return X * 2

    def program(self, program: list[Any]) -> None:
        for name, *arguments in program:
            getattr(self, name)(*arguments)

    def read(self, tensor: int) -> tuple[ModelEntry, Tensor]:
        value = self.layers[tensor].weight
        entry = self.model.read(tensor)
        assert self.evaluations == self.model.evaluations
        assert self.seen.setdefault(entry.number, value) is value
        assert torch.equal(value, original(self.layers[tensor]) * 2)
        assert value.requires_grad == self.model.grad
        return entry, value

    def write(self, tensor: int) -> None:
        with torch.no_grad():
            original(self.layers[tensor]).add_(1)
        self.model.change(tensor)

    def assign(self, tensor: int) -> None:
        self.layers[tensor].weight = torch.full((1, 1), 7.0)
        self.model.assign(tensor)

    def step(self, _: int) -> None:
        for layer in self.layers:
            original(layer).grad = torch.ones(1, 1)
        self.optimizer.step()
        self.model.change(0, 1)

    def backward(self, tensor: int) -> None:
        entry, value = self.read(tensor)
        if value.requires_grad:
            torch.autograd.backward(value.sum())
            self.model.backward(entry)

    def scope(self, targets: tuple[int, ...] | None, program: list[Any], fails: bool) -> None:
        covered = frozenset((0, 1) if targets is None else targets)
        given = () if targets is None else ([self.layers[i] for i in targets],)
        model_scope = ModelScope(covered)
        try:
            with P.cached(*given) as scope:
                self.model.scopes.append(model_scope)
                self.program(program)
                assert len(scope) == len(model_scope.entries)
                if fails:
                    raise PlannedError
        except PlannedError:
            assert fails
        finally:
            self.model.scopes.pop()
        assert (scope.hits, scope.misses, len(scope)) == (model_scope.hits, model_scope.misses, 0)

    def grad(self, enabled: bool, program: list[Any], fails: bool) -> None:
        before, self.model.grad = self.model.grad, enabled
        try:
            with torch.set_grad_enabled(enabled):
                self.program(program)
                if fails:
                    raise PlannedError
        except PlannedError:
            assert fails
        finally:
            self.model.grad = before


def original(layer: nn.Module) -> nn.Parameter:
    return layer.get_parameter("parametrizations.weight.original")


@given(PROGRAMS)
def test_random_programs_do_what_the_model_says(program: list[Any]) -> None:
    Run().program(program)
