"""The cache of scripted programs.

Without postponed annotations: TorchScript takes those of a class as they are.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import paramdesc as P
from paramdesc import get_parametrizations
from tests.helpers import Double, linear
from tests.jit.models import DEPRECATED, Counted, X, calls, evaluations, gradients

pytestmark = DEPRECATED


def test_a_program_evaluates_at_each_read_without_a_scope(program: Any) -> None:
    assert evaluations(program, lambda: program(X)) == 3


def test_a_scope_evaluates_each_tensor_once(program: Any) -> None:
    def run() -> None:
        with P.cached(program):
            for _ in range(3):
                program(X)

    expected = program(X)
    assert evaluations(program, run) == 2
    assert evaluations(program, run) == 2  # nothing is left of the first scope
    with P.cached(program):
        torch.testing.assert_close(program(X), expected)


def test_a_set_is_a_target_and_so_is_a_part_of_it(program: Any) -> None:
    found = get_parametrizations(program)
    assert found.names() == ["0.weight", "1.weight"]

    def run(targets: Any) -> Callable[[], None]:
        def calls_twice() -> None:
            with P.cached(targets):
                program(X), program(X)

        return calls_twice

    assert evaluations(program, run(found)) == 2
    assert evaluations(program, run(found.filter(path="0"))) == 1 + 2
    assert evaluations(program, run(found - found.filter(path="0"))) == 4 + 1
    assert evaluations(program, run(next(iter(found)))) == 1 + 2
    assert evaluations(program, run([])) == 6
    assert len(found.filter(map_type=Counted)) == 2
    assert len(found.filter(map_type=Double)) == 0


def test_a_value_belongs_to_the_outermost_scope(program: Any) -> None:
    found = get_parametrizations(program)

    def run() -> None:
        with P.cached(found.filter(path="0")):
            with P.cached(program):
                program(X)
            program(X)  # the second layer was covered by the inner scope only

    assert evaluations(program, run) == 1 + 2


def test_an_exception_ends_the_scope(program: Any) -> None:
    def fails() -> None:
        with P.cached(program):
            program(X)
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert evaluations(program, lambda: program(X)) == 3
    assert all(not chain.is_kept for chain in get_parametrizations(program))


def test_a_kept_value_is_never_stale(program: Any) -> None:
    original = next(p for name, p in program.named_parameters() if name.endswith("original"))

    def changed(change: Callable[[], object]) -> int:
        with P.cached(program):
            program(X)
            change()
            count = evaluations(program, lambda: program(X))
            torch.testing.assert_close(
                getattr(program, "0").parametrizations.weight(), 3 * original
            )
        return count

    def step() -> None:
        with torch.no_grad():
            original.add_(1)

    def swap() -> None:
        original.data = original.detach() + 1

    assert changed(lambda: None) == 0
    assert changed(step) == 1
    assert changed(swap) == 1
    assert changed(lambda: original.requires_grad_(False)) == 1
    original.requires_grad_(True)
    assert changed(lambda: program.load_state_dict(program.state_dict())) == 2
    assert changed(lambda: program.train(not program.training)) == 2
    assert changed(lambda: program(X).sum().backward()) == 2


def test_a_kept_value_knows_its_mode(program: Any) -> None:
    def count(mode: Any) -> int:
        with mode:
            return evaluations(program, lambda: program(X))

    for _ in range(3):  # TorchScript optimizes from the second call on
        with P.cached(program):
            with torch.no_grad():
                program(X)
                assert count(torch.no_grad()) == 0
            assert count(torch.enable_grad()) == 2
            program(X).sum().backward()
            assert count(torch.enable_grad()) == 2
            assert count(torch.inference_mode()) == 2
            assert count(torch.inference_mode()) == 0
            assert count(torch.no_grad()) == 2


def test_a_value_of_low_precision_stays_under_its_autocast() -> None:
    class Product(Counted):
        def forward(self, X: Tensor) -> Tensor:
            self.calls += 1
            return X @ X

    program: Any = P.jit.script(linear(Product()))
    chain: Any = next(iter(get_parametrizations(program)))

    def dtype_and_count(mode: Any) -> tuple[torch.dtype, int]:
        before = calls(program)
        with mode:
            dtype = chain().dtype
        return dtype, calls(program) - before

    for _ in range(3):
        with P.cached(program):
            assert dtype_and_count(torch.autocast("cpu", torch.bfloat16)) == (torch.bfloat16, 1)
            assert dtype_and_count(torch.autocast("cpu", torch.bfloat16)) == (torch.bfloat16, 0)
            assert dtype_and_count(torch.autocast("cpu", torch.float16)) == (torch.float16, 1)
            assert dtype_and_count(torch.enable_grad()) == (torch.float32, 1)
            assert dtype_and_count(torch.enable_grad()) == (torch.float32, 0)


def test_gradients_through_a_kept_value_are_right(program: Any) -> None:
    expected = copy.deepcopy(gradients(program))
    program.zero_grad()
    with P.cached(program):
        (program(X).square().sum() / 2 + program(X).square().sum() / 2).backward()
    torch.testing.assert_close({n: p.grad for n, p in program.named_parameters()}, expected)
    program.zero_grad()
    with P.cached(program):
        for _ in range(2):  # a second backward pass does not go through the graph of the first
            (program(X).square().sum() / 2).backward()
    torch.testing.assert_close({n: p.grad for n, p in program.named_parameters()}, expected)


def test_a_scope_frees_its_values_and_its_hooks(program: Any) -> None:
    with P.cached(program):
        program(X)
        chain: Any = next(iter(get_parametrizations(program)))
        assert chain.is_kept
    assert not chain.is_kept
    assert chain.kept.numel() == 0
    assert chain.scopes == 0
    assert not any(parameter._backward_hooks for parameter in program.parameters())
