"""Random programs do the same in batched scopes as in others, which evaluate one by one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import paramdesc as P
from paramdesc.parametrizations import Orthogonal, SpectralNorm


class Weighted(nn.Module):
    """`factor X² + shift`: an attribute that may be set, and a parameter of its own."""

    factor: float

    def __init__(self) -> None:
        super().__init__()
        self.factor = 1.0
        self.shift = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, X: Tensor) -> Tensor:
        return self.factor * X.square() + self.shift

    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y.abs().sqrt()


def layers() -> Any:
    torch.manual_seed(0)
    made = nn.ModuleList(nn.Linear(2, 2, bias=False, dtype=torch.float64) for _ in range(7))
    makes: list[Callable[[], nn.Module]] = [
        *[Weighted] * 3,
        *[SpectralNorm] * 2,
        *[lambda: Orthogonal(rebase=2)] * 2,
    ]
    for layer, make in zip(made, makes, strict=True):
        P.register_parametrization(layer, "weight", make())
    return made


MODEL = layers()
WARM = (3, 4)
TENSORS = st.integers(0, len(MODEL) - 1)
NAMES = ["read", "read", "backward", "backward", "write", "assign", "set", "train", "evaluate"]
ACTIONS = st.tuples(st.sampled_from([*NAMES, "freeze", "thaw"]), TENSORS)
STEPS = st.tuples(st.just("step"), st.booleans())
SEVERAL = st.tuples(st.just("backward_of"), st.lists(TENSORS, min_size=1, max_size=4))
FLUSH = st.tuples(st.just("flush"))
TARGETS = st.lists(TENSORS, min_size=1, unique=True) | st.just(list(range(len(MODEL))))
KINDS = st.sampled_from(["plain", "deferred", "persistent"])


def blocks(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    program = st.lists(inner, max_size=6)
    return st.one_of(
        st.tuples(st.just("scope"), TARGETS, KINDS, st.booleans(), program),
        st.tuples(st.just("grad"), st.booleans(), program),
        st.tuples(st.just("inference"), program),
    )


LEAVES = ACTIONS | STEPS | SEVERAL | FLUSH
PROGRAMS = st.lists(st.recursive(LEAVES, blocks, max_leaves=25), max_size=10)


class Run:
    """Runs a program, and notes all that can be seen of it."""

    def __init__(self, batched: bool) -> None:
        self.batched = batched
        self.model: Any = copy.deepcopy(MODEL)
        self.optimizers = [
            torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.5, foreach=False),
            torch.optim.SGD(self.model.parameters(), lr=0.1, weight_decay=0.1, fused=True),
        ]
        self.scopes: list[Any] = []
        self.seen: list[Any] = []

    def program(self, program: list[Any]) -> None:
        for name, *arguments in program:
            getattr(self, name)(*arguments)
            self.seen += [None if p.grad is None else p.grad.clone() for p in self.parameters()]
            self.seen += [x.clone() for x in self.model.buffers()]

    def parameters(self) -> list[nn.Parameter]:
        return list(self.model.parameters())

    def chain(self, tensor: int) -> Any:
        return self.model[tensor].parametrizations.weight

    def read(self, tensor: int) -> Any:
        if tensor in WARM:  # states of a batch move together, also those of weights not read
            for other in WARM:
                _ = self.model[other].weight
        value = self.model[tensor].weight
        self.seen += [value.detach().clone(), torch.tensor(value.requires_grad)]
        return value

    def backward(self, tensor: int) -> None:
        self.backward_of([tensor])

    def backward_of(self, tensors: list[int]) -> None:
        loss = sum((i + 1) * self.read(tensor).sin().sum() for i, tensor in enumerate(tensors))
        if torch.is_tensor(loss) and loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]

    def write(self, tensor: int) -> None:
        if any(scope.deferral is not None for scope in self.scopes):
            return  # a deferred graph may need the original; that of a batch needs a copy of it
        with torch.no_grad():
            self.chain(tensor).original.mul_(1.5).add_(0.1)

    def assign(self, tensor: int) -> None:
        is_deferred = any(scope.deferral is not None for scope in self.scopes)
        if not torch.is_inference_mode_enabled() and not is_deferred:
            self.read(tensor)  # nn.Module asks whether the name exists, and that is a read
            self.model[tensor].weight = torch.eye(2, dtype=torch.float64)

    def set(self, tensor: int) -> None:
        if tensor < 3:
            self.chain(tensor)[0].factor += 1.0

    def train(self, tensor: int) -> None:
        self.model[tensor].train()

    def evaluate(self, tensor: int) -> None:
        self.model[tensor].eval()

    def freeze(self, tensor: int) -> None:
        self.chain(tensor).original.requires_grad_(False)

    def thaw(self, tensor: int) -> None:
        self.chain(tensor).original.requires_grad_(True)

    def step(self, fused: bool) -> None:
        if torch.is_inference_mode_enabled():
            return
        try:
            self.optimizers[fused].step()
        except RuntimeError as error:  # while deferred gradients wait
            self.seen.append(str(error)[:20])

    def flush(self) -> None:
        for scope in self.scopes:
            with suppress(RuntimeError):  # not deferred
                scope.backward()

    def scope(self, tensors: list[int], kind: str, batched: bool, program: list[Any]) -> None:
        targets = [self.model[tensor] for tensor in tensors]
        options = {} if kind == "plain" else {kind: True}
        with P.cached(targets, batched=batched and self.batched, **options) as scope:
            self.scopes.append(scope)
            self.program(program)
            self.scopes.pop()

    def grad(self, enabled: bool, program: list[Any]) -> None:
        with torch.set_grad_enabled(enabled):
            self.program(program)

    def inference(self, program: list[Any]) -> None:
        with torch.inference_mode():
            self.program(program)


def outcome(program: list[Any], batched: bool) -> tuple[list[Any], str]:
    run = Run(batched)
    try:
        run.program(program)
    except Exception as error:
        return run.seen, f"{type(error).__name__}: {error}"[:60]
    return run.seen, ""


@settings(max_examples=settings().max_examples // 20)
@given(PROGRAMS)
def test_random_programs_do_the_same_in_batched_scopes(program: list[Any]) -> None:
    expected, error = outcome(program, batched=False)
    found, other_error = outcome(program, batched=True)
    assert other_error == error
    for x, y in zip(found, expected, strict=True):
        if isinstance(x, Tensor):
            torch.testing.assert_close(x, y, rtol=1e-7, atol=1e-8)
        else:
            assert x == y
