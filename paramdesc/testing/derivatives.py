"""Checks of the gradients of a map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from paramdesc.testing.closeness import check_finite
from paramdesc.testing.report import Failure
from paramdesc.testing.subject import Subject, as_function, gradients, random_like

__all__ = ["CHECKS"]


def moved(points: list[Tensor]) -> list[Tensor]:
    """Points nearby: `right_inverse` may have put them where a clamp or a relu has a kink."""
    with torch.no_grad():
        for x in points:
            x.add_(random_like(x, seed=7), alpha=1e-2)
    return points


def check_gradient(subject: Subject) -> str:
    evaluate, points, names = as_function(subject.trained())
    points = moved(points)
    torch.autograd.gradcheck(evaluate, points)
    value = evaluate(*points)
    loss = value.abs().square().sum() + value.real.sum()
    found = torch.autograd.grad(loss, points, allow_unused=True, materialize_grads=True)
    if not any(bool(gradient.any()) for gradient in found):
        raise Failure(f"no gradient reaches {', '.join(names)}")
    return f"of {', '.join(names)}"


def check_second_gradient(subject: Subject) -> str:
    evaluate, points, names = as_function(subject.trained())
    torch.autograd.gradgradcheck(evaluate, moved(points), fast_mode=True)
    return f"of {', '.join(names)}"


def special_tensors(example: Tensor) -> dict[str, Tensor]:
    """Tensors where careless formulas divide by zero."""
    identity = torch.zeros_like(example)
    if example.ndim >= 2:
        identity.diagonal(dim1=-2, dim2=-1).fill_(1)
    return {
        "zeros": torch.zeros_like(example),
        "ones": torch.ones_like(example),
        "the identity": identity,
        "large numbers": 10 * torch.ones_like(example),
        "small numbers": 1e-10 * torch.ones_like(example),
    }


def check_special_points(subject: Subject) -> str:
    names = []
    for name, special in special_tensors(subject.example).items():
        module = subject.holder(wide=False)
        for original in module.parametrizations.weight.originals():
            if original.shape == special.shape:
                with torch.no_grad():
                    original.copy_(special)
                check_all_finite(module, f"an original of {name}")
        if subject.right_inverse != "none":
            module.weight = special
            check_all_finite(module, f"assigned {name}")
            check_all_finite(subject.holder(special, wide=False), f"registered on {name}")
            module.weight = module.weight.detach()
            check_all_finite(module, f"its own value, from {name}")
        names.append(name)
    return ", ".join(names)


def check_all_finite(module: Any, what: str) -> None:
    value = module.weight
    check_finite(value, f"{what}: the value")
    for name, gradient in gradients(module, value).items():
        check_finite(gradient, f"{what}: the gradient of {name}")


CHECKS: dict[str, tuple[Callable[[Subject], str], str]] = {
    "gradient": (
        check_gradient,
        "use only differentiable operations in forward: avoid .data, .detach(), .item() and "
        "NumPy. A custom backward must match the formula.",
    ),
    "second gradient": (
        check_second_gradient,
        "a custom backward must be differentiable itself: use saved inputs and outputs in "
        "differentiable operations. Without a custom backward, look for branches at this point.",
    ),
    "special points": (
        check_special_points,
        "divide by torch.where(x > 0, x, 1) and select afterwards with another torch.where; do "
        "not differentiate norms at zero, or singular vectors and eigenvectors where values "
        "coincide.",
    ),
}
