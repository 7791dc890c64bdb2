"""Checks of a map in batches, function transforms, other precisions, and repeated calls."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.func import vmap

from paramdesc.testing.closeness import check_close, check_finite, check_gradients
from paramdesc.testing.report import Failure, NotApplicable
from paramdesc.testing.subject import Subject, as_function, convert, gradients, random_like

__all__ = ["CHECKS"]


HALF = (torch.float16, torch.bfloat16)


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
            dtype = dtype.to_complex()
        module = subject.trained(subject.example.to(dtype), wide=False)
        value = module.weight
        if value.dtype != dtype and not subject.is_unsafe:
            raise Failure(f"in {dtype}, the value is of {value.dtype}")
        for name, gradient in gradients(module, value).items():
            check_finite(gradient, f"in {dtype}, the gradient of {name}")
        convert(module, value.new_empty(0, dtype=torch.float64))
        exact = module.weight.to(dtype)
        eps = torch.finfo(dtype).eps
        details.append(check_close(value, exact, f"{dtype}", allowed=8 * eps))
    return "; ".join(details)


def check_autocast(subject: Subject) -> str:
    if subject.example.is_complex():
        raise NotApplicable("autocast does not change complex tensors")
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
        raise Failure("registration or evaluation uses torch's global random number generator")
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
    return "the same value each time, and no state changed"


CHECKS: dict[str, tuple[Callable[[Subject], str], str]] = {
    "batch": (
        check_batch,
        "use operations that accept leading batch dimensions, .mT instead of .T, and dim=(-2, "
        "-1) instead of all dimensions. Or pass batch=False.",
    ),
    "empty batch": (
        check_empty_batch,
        "avoid .max() and reshape with -1 on empty tensors; use torch.linalg.vector_norm or "
        "amax with a dimension.",
    ),
    "vmap": (
        check_vmap,
        "avoid .item(), branches on tensor values, and in-place writes of a mapped tensor into "
        "another; a custom autograd.Function needs setup_context and generate_vmap_rule = True.",
    ),
    "precision": (
        check_precision,
        "compute in float32 if X is in half precision, and cast the result back: X.float(), "
        "..., .to(X.dtype).",
    ),
    "autocast": (
        check_autocast,
        "compute matrix products inside torch.autocast(X.device.type, enabled=False).",
    ),
    "determinism": (
        check_determinism,
        "draw random numbers from a torch.Generator that the map owns, and do not modify "
        "anything in forward. Declare state that follows training in warm_start.",
    ),
}
