"""Checks of a map in compiled models: scripted, compiled and exported."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.jit._trace import TracerWarning

from paramdesc.testing.closeness import check_close, check_gradients
from paramdesc.testing.subject import Subject, gradients

__all__ = ["CHECKS"]


def check_script(subject: Subject) -> str:
    module = subject.trained()
    one = module.weight.detach().new_ones(())
    program: Any = torch.jit.script(module)
    file = io.BytesIO()
    torch.jit.save(program, file)
    file.seek(0)
    loaded: Any = torch.jit.load(file)  # type: ignore[no-untyped-call]
    expected = module(one)
    detail = check_close(program(one), expected, "scripted")
    check_close(loaded(one), expected, "saved and loaded")
    # TorchScript's own derivative of a complex product lacks a conjugate (torch 2.13)
    if not expected.is_complex():
        slopes = gradients(module, expected)
        check_gradients(gradients(program, program(one)), slopes, "scripted")
    return detail


def check_compile(subject: Subject) -> str:
    module = subject.trained()
    twin = copy.deepcopy(module)
    one = module.weight.detach().new_ones(())
    compiled: Any = torch.compile(as_fresh_code(call), backend="aot_eager", fullgraph=True)
    expected, slopes = module(one), gradients(module, module(one))
    check_gradients(gradients(twin, compiled(twin, one)), slopes, "compiled")
    return check_close(compiled(twin, one), expected, "compiled")


def call(module: Any, x: Tensor) -> Any:
    return module(x)


def as_fresh_code(function: Any) -> Any:
    """The same function as if it had been written once more: torch.compile counts by code."""
    return FunctionType(function.__code__.replace(), function.__globals__)


def check_export(subject: Subject) -> str:
    module = subject.trained().eval()
    one = module.weight.detach().new_ones(())
    program = torch.export.export(module, (one,))
    return check_close(program.module()(one), module(one), "exported")


def check_trace(subject: Subject) -> str:
    module = subject.trained().eval()
    one = module.weight.detach().new_ones(())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TracerWarning)  # shapes are constants, by intent
        program: Any = torch.jit.trace(module, (one,))  # type: ignore[no-untyped-call]
    return check_close(program(one), module(one), "traced")


CHECKS: dict[str, tuple[Callable[[Subject], str], str]] = {
    "script": (
        check_script,
        "write forward in the subset of Python that TorchScript supports: annotate functions, "
        "and avoid *args, torch.finfo and tuple(shape). The message names the line.",
    ),
    "trace": (
        check_trace,
        "avoid branches on tensor values and conversions of tensors to numbers in forward.",
    ),
    "compile": (
        check_compile,
        "avoid .item(), branches on tensor values, and calls that torch.compile cannot trace in "
        "forward. The message names the line.",
    ),
    "export": (
        check_export,
        "code that compiles can usually be exported; avoid writes to buffers and operators from "
        "outside torch.",
    ),
}
