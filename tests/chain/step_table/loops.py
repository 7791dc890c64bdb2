"""Ways to run an optimizer that trainers have, optimizers of third parties, and steps by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim import SGD, Adam, Optimizer

from paramdesc import invalidate
from tests.chain.step_table.cases import Case, Loss, Step
from tests.chain.step_table.optimizers import by

__all__ = ["CASES", "Flat", "SignSGD"]


class SignSGD(Optimizer):
    """In the old style: it writes to `p.data`, and clears the gradients when it has."""

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.data.add_(parameter.grad.data.sign(), alpha=-group["lr"])
                    parameter.grad = None


class Flat(Optimizer):
    """It has all parameters in one buffer, of which they become views, and writes to that."""

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        listed = list(parameters)
        super().__init__(listed, {"lr": lr})
        self.flat = parameters_to_vector(listed).detach()
        vector_to_parameters(self.flat, listed)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        parameters = self.param_groups[0]["params"]
        gradients = torch.cat([parameter.grad.flatten() for parameter in parameters])
        self.flat.sub_(gradients, alpha=self.param_groups[0]["lr"])


def by_flat_parameter(model: nn.Module) -> Step:
    """An optimizer of one buffer, which knows nothing of the parameters that are views of it."""
    parameters = list(model.parameters())
    flat = nn.Parameter(parameters_to_vector(parameters).detach())
    vector_to_parameters(flat.detach(), parameters)
    optimizer = SGD([flat], lr=0.5, fused=True)

    def step(loss: Loss) -> None:
        loss().backward()
        flat.grad = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        optimizer.step()
        model.zero_grad()

    return step


def by_scaler(model: nn.Module) -> Step:
    optimizer = Adam(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu")

    def step(loss: Loss) -> None:
        optimizer.zero_grad()
        scaled: Any = scaler.scale(loss())
        scaled.backward()
        scaler.step(optimizer)
        scaler.update()

    return step


def by_scheduler(model: nn.Module) -> Step:
    optimizer = Adam(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.5, 150)

    def step(loss: Loss) -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        scheduler.step()

    return step


def by_micro_batches(model: nn.Module) -> Step:
    optimizer = Adam(model.parameters(), lr=0.01)

    def step(loss: Loss) -> None:
        optimizer.zero_grad()
        for _ in range(4):
            (loss() / 4).backward()
        optimizer.step()

    return step


def in_backward(model: nn.Module) -> Step:
    """An optimizer for each parameter, which a hook of the backward pass runs."""
    for parameter in model.parameters():
        optimizer = Adam([parameter], lr=0.01, fused=True)

        def write(parameter: Tensor, optimizer: Optimizer = optimizer) -> None:
            optimizer.step()
            optimizer.zero_grad()

        untyped: Any = parameter
        untyped.register_post_accumulate_grad_hook(write)

    def step(loss: Loss) -> None:
        loss().backward()

    return step


def by_hand(write: Callable[[list[Any]], None]) -> Callable[[nn.Module], Step]:
    """Steps that no optimizer makes."""

    def stepper(model: nn.Module) -> Step:
        parameters = list(model.parameters())

        def step(loss: Loss) -> None:
            model.zero_grad()
            loss().backward()
            write(parameters)

        return step

    return stepper


@torch.no_grad()
def subtract(parameters: list[Any]) -> None:
    for parameter in parameters:
        parameter -= 0.5 * parameter.grad


@torch.no_grad()
def subtract_foreach(parameters: list[Any]) -> None:
    torch._foreach_add_(parameters, [parameter.grad for parameter in parameters], alpha=-0.5)


def subtract_from_data(parameters: list[Any]) -> None:
    for parameter in parameters:
        parameter.data -= 0.5 * parameter.grad


def exchange_data(parameters: list[Any]) -> None:
    for parameter in parameters:
        parameter.data = parameter.data - 0.5 * parameter.grad


def subtract_and_say(model: nn.Module) -> Step:
    step_by_hand = by_hand(subtract_from_data)(model)

    def step(loss: Loss) -> None:
        step_by_hand(loss)
        invalidate(model)

    return step


LOOP, OTHER, HAND = "A training loop", "An optimizer that is not torch's", "By hand"
CASES = [
    Case(LOOP, "Adam, with a scheduler of the learning rate", by_scheduler),
    Case(LOOP, "Adam, by `torch.amp.GradScaler`", by_scaler),
    Case(LOOP, "Adam, each step for four micro-batches", by_micro_batches),
    Case(LOOP, "Adam, run by a hook in the backward pass", in_backward),
    Case(OTHER, "writes to `p.data`, then clears the gradients", by(lambda p: SignSGD(p, 0.005))),
    Case(OTHER, "writes to a flat buffer of its own", by(lambda p: Flat(p, 0.5))),
    Case(OTHER, "trains a flat buffer that the parameters are views of", by_flat_parameter),
    Case(HAND, "`p -= lr * p.grad`, under `no_grad`", by_hand(subtract)),
    Case(HAND, "`torch._foreach_add_`, under `no_grad`", by_hand(subtract_foreach)),
    Case(HAND, "`p.data -= lr * p.grad`", by_hand(subtract_from_data)),
    Case(HAND, "`p.data = p.data - lr * p.grad`", by_hand(exchange_data)),
    Case(HAND, "`p.data -= lr * p.grad`, then `paramdesc.invalidate(model)`", subtract_and_say),
]
