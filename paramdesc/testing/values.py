"""Checks of what a map computes: its values, its inverse, its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from paramdesc.chain.parametrization import Parametrization
from paramdesc.errors import ConstraintError
from paramdesc.testing.closeness import check_close, check_finite, check_gradients
from paramdesc.testing.report import Failure, NotApplicable
from paramdesc.testing.subject import Subject, convert, gradients, random_like, train

__all__ = ["CHECKS"]

HALF = (torch.float16, torch.bfloat16)


def check_shape(subject: Subject) -> str:
    module = subject.holder(wide=False)
    value = module.weight
    fits = value.shape == subject.example.shape and value.dtype == subject.example.dtype
    if not (fits or subject.is_unsafe):
        raise Failure(f"the value is {list(value.shape)}, {value.dtype}")
    return f"{list(value.shape)}, {value.dtype}"


def check_right_inverse(subject: Subject) -> str:
    module = subject.trained()
    if subject.right_inverse == "none":
        return check_no_right_inverse(module)
    allowed = subject.given_tolerance
    reached = module.weight.detach().clone()
    module.weight = reached
    detail = check_close(module.weight, reached, "a value, assigned", allowed=allowed)
    check_close(subject.holder(reached).weight, reached, "a value, registered on", allowed=allowed)
    outside = subject.outside()
    module.weight = given = outside.clone()
    if not torch.equal(given, outside):
        raise Failure("right_inverse writes to the tensor that is assigned")
    if subject.right_inverse == "identity":
        return check_close(module.weight, outside, "another tensor, assigned", allowed=allowed)
    nearby = module.weight.detach().clone()
    check_finite(nearby, "a tensor outside, assigned")
    module.weight = nearby
    what = "what a tensor outside became, assigned"
    check_close(module.weight, nearby, what, allowed=allowed)
    return detail


def check_no_right_inverse(module: Any) -> str:
    try:
        module.weight = module.weight.detach()
    except (RuntimeError, NotImplementedError) as error:
        return f"none: {type(error).__name__}"
    raise Failure("assignment works, where right_inverse='none' is declared")


def check_strict(subject: Subject) -> str:
    if not subject.has_constraint() or subject.right_inverse != "projection":
        raise NotApplicable("no constraint, or no projection, is declared")
    module = subject.trained()
    parametrization = module.parametrizations.weight[0]
    before, outside = module.weight.detach().clone(), subject.outside()
    parametrization.strict = True
    module.weight = before
    check_close(module.weight, before, "a value, assigned to a strict map")
    if parametrization.deviation(outside).item() <= parametrization.tolerance(outside):
        raise Failure("the deviation of a random tensor counts as rounding")
    try:
        module.weight = outside
    except ConstraintError as error:
        check_close(module.weight, before, "the value after a refusal")
        return f"a deviation of {error.deviation:.2g} is refused"
    raise Failure("a value outside is assigned to a strict map without an error")


def check_constraint(subject: Subject) -> str:
    if not subject.has_constraint():
        raise NotApplicable("the map declares no deviation: any value will do")
    largest = 0.0
    for wide in (True, False):
        module = subject.holder(wide=wide)
        largest = max(largest, check_deviation(subject, module, "at the start"))
        train(module, torch.optim.Adam, 10, 0.05)
        largest = max(largest, check_deviation(subject, module, "after ten training steps"))
        module.weight = random_like(module.weight.detach(), seed=3)
        largest = max(largest, check_deviation(subject, module, "after an assignment"))
    return f"a deviation of {largest:.1g} at most"


def check_deviation(subject: Subject, module: Any, when: str) -> float:
    """The deviation of the value, in float32 in units that it is allowed there."""
    parametrization, value = module.parametrizations.weight[-1], module.weight.detach()
    deviation = float(parametrization.deviation(value).item())
    allowed = subject.tolerance(parametrization, value)
    if not deviation <= allowed:
        raise Failure(
            f"{when}, in {value.dtype}, the value deviates by {deviation:.3g}, "
            f"where {allowed:.3g} is allowed"
        )
    return deviation


def as_function(module: Any) -> tuple[Callable[..., Tensor], list[Tensor], list[str]]:
    """The value as a function of the trained tensors, with these, and their names."""
    chain = module.parametrizations.weight
    trained = {name: x for name, x in chain.named_parameters() if x.requires_grad}

    def evaluate(*tensors: Tensor) -> Tensor:
        lent = dict(zip(trained, tensors, strict=True))
        value: Tensor = functional_call(chain, lent, ())
        return value

    points = [x.detach().clone().requires_grad_() for x in trained.values()]
    return evaluate, points, list(trained)


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


def check_batch(subject: Subject) -> str:
    if not subject.is_batched:
        raise NotApplicable("batch=False is declared")
    wide = subject.holder().weight.dtype
    weights = [subject.example.to(wide), random_like(subject.example, seed=4).to(wide)]
    modules = [subject.holder(weight) for weight in weights]
    stacked = subject.holder(torch.stack(weights))
    expected = torch.stack([module.weight for module in modules])
    detail = check_close(stacked.weight, expected, "a stack of two")
    rate = 0.1
    together = gradients(stacked, stacked.weight)
    with torch.no_grad():
        for name, parameter in stacked.named_parameters():
            if name in together and name.rpartition(".")[2].startswith("original"):
                parameter.sub_(together[name], alpha=rate)
                parts = [dict(module.named_parameters())[name] for module in modules]
                torch._foreach_copy_(parts, list(parameter.unbind(0)))
    expected = torch.stack([module.weight for module in modules])
    check_close(stacked.weight, expected, "a stack of two, after a step")
    return detail


def check_empty_batch(subject: Subject) -> str:
    if not subject.is_batched:
        raise NotApplicable("batch=False is declared")
    module = subject.holder(subject.example.new_empty((0, *subject.example.shape)), wide=False)
    gradients(module, module.weight)
    return str(list(module.weight.shape))


def check_vmap(subject: Subject) -> str:
    module = subject.trained()
    evaluate, points, _ = as_function(module)
    members = [[x + 0.1 * i * random_like(x, seed=5) for x in points] for i in range(2)]
    stacked = [torch.stack(pair).detach() for pair in zip(*members, strict=True)]
    expected = torch.stack([evaluate(*member) for member in members])
    return check_close(vmap(evaluate)(*stacked), expected, "an ensemble of two")


def check_precision(subject: Subject) -> str:
    details = []
    for dtype in subject.dtypes:
        if subject.example.is_complex() and dtype in HALF:
            continue
        if subject.example.is_complex():
            dtype = torch.empty(0, dtype=dtype).to(dtype.to_complex()).dtype
        module = subject.trained(subject.example.to(dtype), wide=False)
        value = module.weight
        if value.dtype != dtype and not subject.is_unsafe:
            raise Failure(f"in {dtype}, the value is of {value.dtype}")
        for name, gradient in gradients(module, value).items():
            check_finite(gradient, f"in {dtype}, the gradient of {name}")
        convert(module, torch.empty(0, dtype=torch.float64))
        exact = module.weight.to(dtype)
        eps = torch.finfo(dtype).eps
        details.append(check_close(value, exact, f"{dtype}", allowed=8 * eps))
    return "; ".join(details)


def check_autocast(subject: Subject) -> str:
    if subject.example.is_complex():
        raise NotApplicable("autocast leaves complex numbers alone")
    module = subject.trained(wide=False)
    expected, slopes = module.weight, gradients(module)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = module.weight
    found = gradients(module, value)  # outside, as torch asks for it
    check_gradients(found, slopes, "under autocast")
    return check_close(value, expected, "under autocast", allowed=1e-6)


def check_determinism(subject: Subject) -> str:
    before = torch.get_rng_state()
    module = subject.trained(wide=False)
    if not torch.equal(before, torch.get_rng_state()):
        raise Failure("registering or evaluating it draws from torch's random numbers")
    for mode in (True, False):
        module.train(mode)
        first = module.weight
        state = {name: x.clone() for name, x in module.state_dict().items()}
        for _ in range(3):
            if not torch.equal(module.weight, first):
                raise Failure(f"two evaluations differ, with training={mode}")
        for name, x in module.state_dict().items():
            if not torch.equal(x, state[name]):
                raise Failure(f"an evaluation changes {name}, with training={mode}")
    return "the same value each time, and nothing changed"


def check_schema(subject: Subject) -> str:
    parametrization = subject.parametrization
    if not isinstance(parametrization, Parametrization):
        raise NotApplicable("it is not derived from Parametrization")
    if subject.has_constraint() and not parametrization.constraint:
        raise Failure("it defines deviation, and no word for its constraint")
    return parametrization.constraint or "no constraint"


CHECKS: dict[str, tuple[Callable[[Subject], str], str]] = {
    "shape": (
        check_shape,
        "let forward return the shape and dtype of the tensor it stands for, or declare "
        "unsafe=True. Compute in float32 and end with .to(X.dtype).",
    ),
    "schema": (
        check_schema,
        "set the class attribute `constraint` to a word that completes 'the value is not ...'.",
    ),
    "right inverse": (
        check_right_inverse,
        "forward(right_inverse(Y)) must be Y for each Y that forward reaches. For others, "
        "right_inverse must go to one that it reaches, for 'identity' there are no others. "
        "Where there is no way back, define no right_inverse and declare right_inverse='none'.",
    ),
    "strict": (
        check_strict,
        "begin right_inverse with self.admit(Y), accept `strict` in __init__ and pass it on, and "
        "let deviation be large for what forward does not reach.",
    ),
    "constraint": (
        check_constraint,
        "the formula of forward must give the constraint whatever the original is. If it does, "
        "and rounding is larger than allowed, define tolerance.",
    ),
    "gradient": (
        check_gradient,
        "keep forward in differentiable operations: no .data, .detach(), .item() or NumPy. A "
        "custom backward must be that of the formula.",
    ),
    "second gradient": (
        check_second_gradient,
        "a custom backward must be differentiable itself: let it use saved inputs and outputs in "
        "differentiable operations. Without one, look for branches at the point.",
    ),
    "special points": (
        check_special_points,
        "divide by torch.where(x > 0, x, 1) and select afterwards with another torch.where; do "
        "not differentiate norms at zero, nor singular vectors and eigenvectors where values "
        "coincide.",
    ),
    "batch": (
        check_batch,
        "use operations that take leading batch dimensions, .mT instead of .T, dim=(-2, -1) "
        "instead of all dimensions. Or declare batch=False.",
    ),
    "empty batch": (
        check_empty_batch,
        "no .max() of an empty tensor, no reshape with -1 of one; use torch.linalg.vector_norm "
        "or amax with a dimension.",
    ),
    "vmap": (
        check_vmap,
        "no .item(), no branch on values, no in-place write of a mapped tensor into another; a "
        "custom autograd.Function needs setup_context and generate_vmap_rule = True.",
    ),
    "precision": (
        check_precision,
        "compute in float32 where X is in half precision, and cast the result back: X.float(), "
        "..., .to(X.dtype).",
    ),
    "autocast": (
        check_autocast,
        "compute matrix products within torch.autocast(X.device.type, enabled=False).",
    ),
    "determinism": (
        check_determinism,
        "draw random numbers from a torch.Generator of the map's own, and let forward write to "
        "nothing. State that follows training belongs into warm_start.",
    ),
}
