"""The optimizers of torch, in each form that a CPU has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from tests.chain.step_table.cases import Case, Loss, Step

__all__ = ["CASES", "by"]

MakeOptimizer = Callable[[Any], Optimizer]

# name, class, learning rate and the other arguments
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {"lr": 0.5}),
    "SGD with momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "Adam": ("Adam", {"lr": 0.01}),
    "AdamW": ("AdamW", {"lr": 0.01}),
    "RMSprop": ("RMSprop", {"lr": 0.002}),
    "Adagrad": ("Adagrad", {"lr": 0.05}),
    "Adadelta": ("Adadelta", {"lr": 1.0}),
    "Adamax": ("Adamax", {"lr": 0.01}),
    "NAdam": ("NAdam", {"lr": 0.01}),
    "RAdam": ("RAdam", {"lr": 0.01}),
    "ASGD": ("ASGD", {"lr": 0.5}),
    "Rprop": ("Rprop", {"lr": 0.001}),
    "Adafactor": ("Adafactor", {"lr": 0.05}),
    "Muon": ("Muon", {"lr": 0.02}),
}


def by(make: MakeOptimizer, compiler: str = "") -> Callable[[nn.Module], Step]:
    """Steps of an optimizer, in the usual order."""

    def stepper(model: nn.Module) -> Step:
        optimizer = make(model.parameters())
        write: Any = optimizer.step
        if compiler:
            torch.compiler.reset()
            write = torch.compile(optimizer.step, backend=compiler)

        def step(loss: Loss) -> None:
            optimizer.zero_grad()
            loss().backward()
            write()

        return step

    return stepper


def by_closure(make: MakeOptimizer) -> Callable[[nn.Module], Step]:
    """Steps of an optimizer that evaluates the loss itself."""

    def stepper(model: nn.Module) -> Step:
        optimizer: Any = make(model.parameters())

        def step(loss: Loss) -> None:
            def closure() -> float:
                optimizer.zero_grad()
                value = loss()
                value.backward()
                return float(value)

            optimizer.step(closure)

        return step

    return stepper


def maker(name: str, **form: Any) -> MakeOptimizer:
    kind, arguments = KINDS[name]
    return lambda parameters: getattr(torch.optim, kind)(parameters, **arguments, **form)


def forms(name: str) -> dict[str, dict[str, Any]]:
    if name == "Muon":
        return {"in a loop": {}}
    found: dict[str, dict[str, Any]] = {
        "in a loop": {"foreach": False},
        "`foreach=True`": {"foreach": True},
    }
    if name in {"SGD", "SGD with momentum", "Adam", "AdamW", "Adagrad"}:
        found["`fused=True`"] = {"fused": True}
    return found


CASES = [
    Case(
        "torch.optim",
        f"{name}, {title}",
        by(maker(name, **form)),
        has_matrices_only=name == "Muon",
    )
    for name in KINDS
    if hasattr(torch.optim, KINDS[name][0])
    for title, form in forms(name).items()
]
CASES += [
    Case(
        "torch.optim",
        "LBFGS, with its closure",
        by_closure(lambda parameters: torch.optim.LBFGS(parameters, lr=0.1, max_iter=2)),
        evaluates_often=True,
    ),
    Case("torch.optim", "Adam, `step(closure)`", by_closure(maker("Adam"))),
    *(
        Case(
            "torch.optim",
            f"{name}{title}, `torch.compile(optimizer.step, backend={backend!r})`",
            by(maker(name, **form), backend),
        )
        for name, title, form, backend in (
            ("SGD", "", {}, "eager"),
            ("Adam", "", {}, "aot_eager"),
            ("Adam", ", `capturable=True`", {"capturable": True}, "aot_eager"),
        )
    ),
]
