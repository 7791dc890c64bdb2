"""Checks of whether a weight with the map can be trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from paramdesc.chain.bases import movable_map
from paramdesc.testing.closeness import check_close, check_finite
from paramdesc.testing.report import Failure, NotApplicable
from paramdesc.testing.subject import Subject, gradients, loss_of, random_like, train

__all__ = ["CHECKS", "gradient_ratio"]

STEPS = 10
SIZES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Lengths of a step, in units in which a normal random original has length one."""
LEAST_RATIO = 1e-6


def gradient_ratio(module: Any) -> float:
    """The norm of the gradient of a random linear loss, over that for a weight without a map."""
    value = module.weight
    (plain,) = torch.autograd.grad(loss_of(value), value, retain_graph=True)
    return norm_of(list(gradients(module, value).values())) / norm_of([plain])


def norm_of(tensors: list[Tensor]) -> float:
    return math.hypot(*(torch.linalg.vector_norm(x).item() for x in tensors))


def check_trains(subject: Subject) -> str:
    module = subject.holder()
    value = module.weight.detach()
    if not (value.is_floating_point() or value.is_complex()):
        raise NotApplicable(f"a value of {value.dtype} has no gradient")
    if is_constant(subject):
        raise NotApplicable("no trained tensor changes the value")
    ratio = gradient_ratio(module) if module.weight.requires_grad else 0.0
    shown = f"{ratio:.2g} times the gradient of a plain weight"
    if not ratio >= LEAST_RATIO:
        raise Failure(f"the gradient vanishes: {shown} in the Frobenius norm")
    if not any(lowers(subject, size / ratio) for size in SIZES):
        raise Failure(f"no step size lowers a random linear loss in {STEPS} steps of SGD: {shown}")
    return shown


def is_constant(subject: Subject) -> bool:
    """Whether the value stays the same when everything that is trained is moved."""
    module = subject.holder()
    before = module.weight.detach().clone()
    with torch.no_grad():
        for x in module.parameters():
            if x.requires_grad:
                x.add_(random_like(x, seed=7), alpha=0.5)
    return torch.allclose(before, module.weight.detach(), rtol=1e-9, atol=1e-9)


def lowers(subject: Subject, rate: float) -> bool:
    """Whether ten steps at this rate lower the loss by more than rounding."""
    module = subject.holder()
    before = loss_of(module.weight.detach()).item()
    train(module, torch.optim.SGD, STEPS, rate)
    after = loss_of(module.weight.detach()).item()
    return after < before - 1e-12 * abs(before)


def check_base_point(subject: Subject) -> str:
    module = subject.trained()
    chain = module.parametrizations.weight
    parametrization = movable_map(chain)
    if parametrization is None:
        raise NotApplicable("the map defines no recenter()")
    originals = list(chain.parameters(recurse=False))
    tensors = [*originals, *parametrization.buffers()]
    places = [x.data_ptr() for x in tensors]
    value = module.weight.detach()
    chain.move_base()
    shown = check_close(module.weight, value, "after recenter()")
    now = [*chain.parameters(recurse=False), *parametrization.buffers()]
    if list(map(id, now)) != list(map(id, tensors)) or [x.data_ptr() for x in now] != places:
        raise Failure("recenter() replaced a tensor, but must return the new tensors")
    gradients = torch.autograd.grad(loss_of(module.weight), originals)
    for gradient in gradients:
        check_finite(gradient, "the gradient after recenter()")
    return shown


CHECKS: dict[str, tuple[Callable[[Subject], str], str]] = {
    "trains": (
        check_trains,
        "an SGD step must move the value against its gradient. forward must not be flat at the "
        "originals that right_inverse returns: avoid a clamp at its bound, a saturated sigmoid, "
        "or a square of zero. A custom backward must have the correct sign.",
    ),
    "base point": (
        check_base_point,
        "recenter() must return new originals followed by the tensors of base_point, in that "
        "order, such that forward gives the same value. It must not write to self.",
    ),
}
