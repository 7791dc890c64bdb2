"""Classes of users, and traces, that scripting leaves alone.

Without postponed annotations: TorchScript takes those of a class as they are.
"""

import copy
import linecache
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc import cached
from tests.helpers import chain_of, linear
from tests.jit.models import (
    DEPRECATED,
    Counted,
    CoversSelf,
    Loop,
    X,
    calls,
    evaluations,
    saved_and_loaded,
    train,
)

pytestmark = DEPRECATED


# torch.jit.trace


def test_a_trace_evaluates_once_in_a_scope_and_keeps_nothing() -> None:
    layer = linear(Counted())
    model = nn.Sequential(layer, layer)
    with P.cached(model):
        before = layer.weight
        with torch.no_grad():  # torch.jit.trace runs the model again to check
            traced = torch.jit.trace(model, X, check_trace=True)  # type: ignore[no-untyped-call]
            module = torch.jit.trace_module(model, {"forward": X})  # type: ignore[no-untyped-call]
        for program in (traced, module):
            assert str(program.inlined_graph).count("aten::mul") == 1
        assert type(layer.weight) is Tensor
        torch.testing.assert_close(layer.weight, before)
    with torch.no_grad():
        chain_of(layer).original.add_(1)
    for program in (traced, module):
        torch.testing.assert_close(program(X), model(X))
        program(X).sum().backward()
    assert chain_of(layer).original.grad is not None


class Noisy(nn.Module):
    """Draws random numbers, and writes to a buffer."""

    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, X: Tensor) -> Tensor:
        self.count += 1
        return X + torch.rand_like(X)


def test_scripting_evaluates_nothing_in_python(script: Any) -> None:
    parametrization = Noisy()
    layer = linear(parametrization)
    P.register_parametrization(chain_of(layer), "original", Noisy())
    before, state = parametrization.count.clone(), torch.random.get_rng_state()
    script(layer)
    assert parametrization.count == before
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_is_saved_or_copied_in_a_scope_is_in_none(program: Any) -> None:
    with P.cached(program):
        with torch.no_grad():
            program(X)
        copies = [saved_and_loaded(program), copy.deepcopy(program)]
        for other in copies:
            assert evaluations(other, lambda other=other: other(X)) == 3  # type: ignore[misc]
            for _ in range(2):
                other(X).sum().backward()
        assert evaluations(program, lambda: program(X)) == 2  # with gradients
    for other in copies:
        with P.cached(other):
            other(X)
            assert evaluations(other, lambda other=other: other(X)) == 0  # type: ignore[misc]
        assert evaluations(other, lambda other=other: other(X)) == 3  # type: ignore[misc]


class Registered(nn.Module):
    """Knows its subclasses, and wants a word from each."""

    known: ClassVar[dict[str, type]] = {}

    def __init_subclass__(cls, word: str, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Registered.known[word] = cls


class Once(Registered, word="once"):
    def __init__(self) -> None:
        super().__init__()
        self.layer = linear()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y


def test_a_class_that_knows_its_subclasses_hears_of_no_twin(script: Any) -> None:
    model = Once()
    torch.testing.assert_close(script(model)(X), model(X))
    assert Registered.known == {"once": Once}


class NotCompiled(Loop):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(x)
        return y

    def fit(self, x: Tensor) -> None:
        for layer in (self.out, self.cell):
            with cached(layer):
                layer(x)


def test_a_method_that_is_not_compiled_may_open_any_scope(script: Any) -> None:
    model = NotCompiled()
    torch.testing.assert_close(script(model)(X), model(X))


class DecoratedAndMore(Loop):
    @torch.jit.export
    @cached()
    def twice(self, x: Tensor) -> Tensor:
        with (
            cached(self.cell),
            (  # a comment: with a colon
                P.cached(self.out)
            ),
        ):  # and: another
            x = self.out(self.out(x))
        with cached([]):
            return x

    def forward(self, x: Tensor) -> Tensor:
        return self.twice(x)


def test_a_decorated_method_is_exported_and_may_open_scopes_too() -> None:
    model = DecoratedAndMore()
    program: Any = P.jit.script(model)
    expected = model(X)
    before = calls(program)  # a buffer that the two share
    torch.testing.assert_close(program.twice(X), expected)
    assert calls(program) - before == 1


class Summed(P.Parametrization):
    """A warm start, and parameters in a list."""

    warm_start = ("last",)
    last: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.terms = nn.ParameterList([torch.ones(3, 3), torch.zeros(3, 3)])

    def guess(self, X: Tensor) -> tuple[Tensor]:
        return (X.clone(),)

    def refine(self, X: Tensor, last: Tensor) -> tuple[Tensor]:
        return (last + 1,)

    def forward(self, X: Tensor) -> Tensor:
        self.follow(X)
        for term in self.terms:
            X = X + term
        return X + self.last.clone()


def test_parameters_in_a_list_are_scripted_and_watched() -> None:
    layer = linear(Summed())
    program: Any = P.jit.script(copy.deepcopy(layer))
    for _ in range(3):
        torch.testing.assert_close(program(X), layer(X))
        train(program, layer)
    with P.cached(program):
        before = program(X)
        with torch.no_grad():
            next(p for name, p in program.named_parameters() if "terms" in name).add_(1)
        assert not torch.allclose(program(X), before)


def test_the_children_of_a_program_are_what_torch_gives(script: Any) -> None:
    plain = nn.Sequential(nn.Linear(3, 3))
    assert torch.jit.script(plain)[0] is plain[0]
    model = nn.Sequential(linear())
    assert script(model)[0] is model[0]


def test_a_text_is_found_after_all_texts_were_forgotten() -> None:
    for _ in range(2):
        P.jit.script(CoversSelf())
        linecache.clearcache()


def test_asking_by_hand_is_refused() -> None:
    with pytest.raises(TypeError, match=r"paramdesc\.jit\.script"):
        linear().__prepare_scriptable__()  # type: ignore[operator]
