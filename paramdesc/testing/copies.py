"""Checks of a parametrized module as an object: copies, files, devices and engines."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.utils import parametrize as torch_engine

from paramdesc.testing.closeness import check_close, check_finite
from paramdesc.testing.report import Failure, NotApplicable
from paramdesc.testing.subject import Holder, Subject, convert, gradients, random_like, train

__all__ = ["CHECKS"]


def check_copies(subject: Subject) -> str:
    module = subject.trained()
    before = module.weight.detach().clone()
    for how, twin in {
        "deepcopy": copy.deepcopy(module),
        "pickle": pickle.loads(pickle.dumps(module)),
    }.items():
        check_close(twin.weight, before, f"after {how}", allowed=0.0)
        train(twin, torch.optim.SGD, 2, 0.1)
        check_close(module.weight, before, f"the source of a {how} that was trained", allowed=0.0)
    return "deepcopy, pickle"


def check_checkpoint(subject: Subject) -> str:
    module = subject.trained()
    other = subject.holder(random_like(subject.example, seed=6))
    value = module.weight  # first: it may move what is saved
    other.load_state_dict(module.state_dict())
    return check_close(other.weight, value, "the value from a state_dict", allowed=0.0)


def check_meta(subject: Subject) -> str:
    module = subject.holder(subject.example.to("meta"), wide=False)
    value = module.weight
    if not value.is_meta:
        raise Failure(f"the value of a weight on meta is on {value.device}")
    if value.shape != subject.example.shape and not subject.is_unsafe:
        raise Failure(f"the value of a weight on meta is {list(value.shape)}")
    gradients(module, value)
    return "registered, evaluated and differentiated"


def check_torch_engine(subject: Subject) -> str:
    module = subject.holder()
    parametrization = subject.map()
    if not isinstance(parametrization, torch.nn.Module):
        raise NotApplicable("torch.nn.utils.parametrize takes only modules")
    weight = subject.example.to(module.weight.dtype)
    convert(parametrization, weight)
    theirs: Any = torch_engine.register_parametrization(
        Holder(weight), "weight", parametrization, unsafe=subject.is_unsafe
    )
    detail = check_close(theirs.weight, module.weight, "under torch.nn.utils.parametrize")
    for name, gradient in gradients(theirs, theirs.weight).items():
        check_finite(gradient, f"under torch.nn.utils.parametrize, the gradient of {name}")
    return detail


CHECKS: dict[str, tuple[Callable[[Subject], str], str]] = {
    "copies": (
        check_copies,
        "do not store lambdas, local functions, generators, weak references, or tensors with a "
        "graph in the map; store tensors as parameters or buffers.",
    ),
    "checkpoint": (
        check_checkpoint,
        "state that forward depends on and that training or right_inverse changes must be a "
        "parameter or buffer, with the same shape in each map registered on such a weight.",
    ),
    "meta": (
        check_meta,
        "avoid .item(), bool() and float() of a tensor in forward and right_inverse: select "
        "with torch.where, and branch on Y.is_meta where a value is needed.",
    ),
    "torch engine": (
        check_torch_engine,
        "torch.nn.utils.parametrize calls forward at registration, before and after "
        "right_inverse: the map must work from the first call on.",
    ),
}
