"""`torch.func`"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, jvp, stack_module_state, vmap

from tests.helpers import Double
from tests.worlds.case import Case, of_linear, of_loop
from tests.worlds.checks import WrongError, check_close
from tests.worlds.engines import Engine, Loop

__all__ = [
    "ensemble",
    "final_name",
    "gradient",
    "in_scope",
    "jacobians",
    "original_names",
    "per_sample",
]


def detached(case: Case) -> dict[str, Tensor]:
    """The parameters of the model by name, for a transform to differentiate by."""
    return {name: x.detach() for name, x in case.model.named_parameters()}


def original_names(engine: Engine) -> None:
    """`functional_call` with the originals by name"""
    case = of_loop(engine)
    other = copy.deepcopy(case.model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    given = dict(other.named_parameters())
    case.check(lambda x: functional_call(case.model, given, (x,)), other)


def final_name(engine: Engine) -> None:
    """`functional_call` with the weight itself, `{"layer.weight": W}`"""
    case = Case(engine, Loop(nn.Linear(3, 3)), ["layer.weight"], maps=(Double,))
    weight = torch.rand(3, 3, requires_grad=True)
    original, before = case.original(), case.original().detach().clone()

    def run(model: nn.Module) -> tuple[Tensor, Tensor | None]:
        given = {"layer.weight": weight, "layer.bias": case.model.layer.bias}
        y: Tensor = functional_call(model, given, tuple(case.inputs))
        return y, torch.autograd.grad(y.sum(), weight, allow_unused=True)[0]

    (outputs, gradient), expected = run(case.model), run(case.plain)
    check_close(outputs, expected[0], "wrong outputs")
    if gradient is None:
        raise WrongError("no gradient reaches the weight")
    check_close(gradient, expected[1], "wrong gradients")
    if case.original() is not original or not original.equal(before):
        raise WrongError("another original afterwards")
    case.check(case.model)


def ensemble(engine: Engine) -> None:
    """`stack_module_state` and `vmap`: an ensemble in one call"""
    cases = [of_linear(engine) for _ in range(3)]
    parameters, buffers = stack_module_state([case.model for case in cases])
    base = copy.deepcopy(cases[0].model).to("meta")
    x = torch.rand(2, 3)

    def call(state: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Any:
        return functional_call(base, (state, buffers), (x,))

    outputs = vmap(call, in_dims=(0, 0, None))(parameters, buffers, x)
    expected = torch.stack([case.expected(case.model, x) for case in cases])
    check_close(outputs, expected, "wrong outputs")
    outputs.square().sum().backward()
    gradients = [
        torch.autograd.grad(case.expected(case.model, x).square().sum(), case.original())[0]
        for case in cases
    ]
    actual = parameters["parametrizations.weight.original"].grad
    check_close(actual, torch.stack(gradients), "wrong gradients")


def losses(case: Case) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """The loss as a function of the parameters, of the model and by hand."""

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        y: Tensor = functional_call(case.model, parameters, (x,))
        return y.square().sum()

    def by_hand(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        weight = parameters["parametrizations.weight.original"].exp()
        return nn.functional.linear(x, weight, parameters["bias"]).square().sum()

    return loss, by_hand


def gradient(engine: Engine) -> None:
    """`grad` and `jvp`"""
    case, x = of_linear(engine), torch.rand(2, 3)
    parameters = detached(case)
    ours, theirs = losses(case)
    check_close(grad(ours)(parameters, x), grad(theirs)(parameters, x), "wrong gradients")
    tangents = {name: torch.rand_like(p) for name, p in parameters.items()}
    actual, expected = (
        jvp(partial(function, x=x), (parameters,), (tangents,)) for function in (ours, theirs)
    )
    check_close(actual, expected, "wrong derivatives")


def jacobians(engine: Engine) -> None:
    """`jacrev`, and twice: a Hessian"""
    case, x = of_linear(engine), torch.rand(2, 3)
    parameters = detached(case)
    ours, theirs = losses(case)
    for transform in (jacrev, lambda function: jacrev(jacrev(function))):
        actual, expected = (transform(function)(parameters, x) for function in (ours, theirs))
        check_close(actual, expected, "wrong derivatives")


def check_per_sample(case: Case, samples: Tensor) -> None:
    parameters = detached(case)
    ours, theirs = losses(case)
    gradients = vmap(grad(ours), in_dims=(None, 0))(parameters, samples)
    for i, sample in enumerate(samples):
        expected = grad(theirs)(parameters, sample)
        check_close({name: x[i] for name, x in gradients.items()}, expected, "wrong gradients")


def per_sample(engine: Engine) -> None:
    """`vmap` of `grad`: gradients per sample"""
    check_per_sample(of_linear(engine), torch.rand(4, 3))


def in_scope(engine: Engine) -> None:
    """`vmap` of `grad` inside `cached`, which keeps no values of it"""
    case = of_linear(engine)
    with engine.cached(case.model):
        case.model(torch.rand(2, 3))
        for _ in range(2):
            check_per_sample(case, torch.rand(4, 3))
            if type(case.model.weight) is not Tensor:
                raise WrongError(f"the weight is a {type(case.model.weight).__name__}")
            check_close(case.model.weight, case.original().exp(), "a wrong weight afterwards")
