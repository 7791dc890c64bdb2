"""What is not a training step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from tests.chain.step_table.cases import MOVES, STAYS, isolated
from tests.chain.step_table.subjects import SUBJECTS, Subject

__all__ = ["QUIET", "Quiet"]


@dataclass(frozen=True)
class Situation:
    """A model after a training step and a forward pass."""

    model: Any
    optimizer: Any
    inputs: Tensor

    def output(self) -> Any:
        return self.model(self.inputs).square().sum()


def reads(it: Situation) -> None:
    """reading the weight"""
    for _ in range(5):
        _ = it.model[0].weight


def no_grad(it: Situation) -> None:
    """a forward pass under `no_grad`"""
    with torch.no_grad():
        it.output()


def inference_mode(it: Situation) -> None:
    """a forward pass in inference mode"""
    with torch.inference_mode():
        it.output()


def micro_batches(it: Situation) -> None:
    """micro-batches without a step"""
    for _ in range(4):
        it.output().backward()


def recomputation(it: Situation) -> None:
    """recomputation for an activation checkpoint"""
    for use_reentrant in (True, False):
        inputs = it.inputs.clone().requires_grad_()
        output: Any = checkpoint(it.model, inputs, use_reentrant=use_reentrant)
        output.sum().backward()


def evaluation(it: Situation) -> None:
    """evaluation mode, also after a step"""
    it.model.eval()
    it.output().backward()
    it.optimizer.step()
    it.output()


def others(it: Situation) -> None:
    """a step of an optimizer of other parameters"""
    other = nn.Parameter(torch.ones(3))
    other.grad = torch.ones(3)
    torch.optim.SGD([other], lr=0.1).step()
    it.output()


def without_gradient(it: Situation) -> None:
    """a step of parameters without a gradient"""
    it.optimizer.zero_grad()
    it.optimizer.step()
    it.output()


def skipped(it: Situation) -> None:
    """a step that `GradScaler` skips"""
    scaler = torch.amp.GradScaler("cpu")
    scaled: Any = scaler.scale(it.output() * torch.inf)
    scaled.backward()
    scaler.step(it.optimizer)
    scaler.update()
    it.output()


def clipping(it: Situation) -> None:
    """clipping gradients"""
    it.output().backward()
    nn.utils.clip_grad_norm_(it.model.parameters(), 0.1)
    it.output()


def averaging(it: Situation) -> None:
    """an `AveragedModel` next to it"""
    averaged = AveragedModel(it.model, use_buffers=True)
    averaged.update_parameters(it.model)
    it.output()


def saving(it: Situation) -> None:
    """saving, and loading what was saved"""
    it.model.load_state_dict(copy.deepcopy(it.model.state_dict()))
    it.output()


def lending(it: Situation) -> None:
    """`functional_call` with other weights"""
    lent = {name: torch.randn_like(value) for name, value in it.model.named_parameters()}
    torch.func.functional_call(it.model, lent, (it.inputs,))


@dataclass(frozen=True)
class Quiet:
    """One row: what happens, by its docstring."""

    happen: Callable[[Situation], None]

    @property
    def title(self) -> str:
        return str(self.happen.__doc__)

    def verdict(self, subject: Subject) -> str:
        with isolated():
            model, state = subject.build()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            subject.loss(model)().backward()
            optimizer.step()
            inputs, _ = subject.batch()
            model(inputs)
            before = state.clone()
            self.happen(Situation(model, optimizer, inputs))
            return STAYS if torch.equal(before, state) else MOVES

    def row(self) -> list[str]:
        return [*map(self.verdict, SUBJECTS), self.verdict(SUBJECTS[2])]


QUIET = [
    Quiet(happen)
    for happen in (
        reads,
        no_grad,
        inference_mode,
        micro_batches,
        recomputation,
        evaluation,
        others,
        without_gradient,
        skipped,
        clipping,
        averaging,
        saving,
        lending,
    )
]
