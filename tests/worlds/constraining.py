"""Orthogonal, norm-bounded and weight-normalized layers"""

from __future__ import annotations

import copy
import importlib
import io
import pickle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from tests.worlds.checks import check_close
from tests.worlds.engines import Engine
from tests.worlds.onnx_maps import run_onnx

__all__ = [
    "aot_inductor",
    "checkpointed",
    "compiled",
    "exported",
    "functional",
    "onnx",
    "pickled",
    "saved_program",
    "scripted",
    "traced",
    "transformed",
]


class Layers(nn.Module):
    """A layer for each of the functions that both engines have, after a step of training."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        functions = engine.functions
        self.square = functions.orthogonal(nn.Linear(4, 4))
        self.tall = functions.orthogonal(nn.Linear(4, 6), orthogonal_map="householder")
        self.bounded = functions.spectral_norm(nn.Linear(6, 3))
        self.normed = functions.weight_norm(nn.Linear(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.tall(torch.tanh(self.square(x))))
        return self.normed(torch.tanh(self.bounded(y)))  # type: ignore[no-any-return]


def made(engine: Engine) -> tuple[Any, Tensor, Tensor]:
    """The model in evaluation mode, an input, and the output."""
    model, x = Layers(engine), torch.rand(2, 4)
    model(x).square().sum().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    model.eval()
    return model, x, model(x).detach()


def check(found: Any, expected: Tensor) -> None:
    check_close(found.detach(), expected, "wrong outputs", 1e-5)


def compiled(engine: Engine) -> None:
    """`torch.compile(fullgraph=True)`"""
    model, x, expected = made(engine)
    compile_: Any = torch.compile
    check(compile_(model, fullgraph=True, backend="aot_eager")(x), expected)


def exported(engine: Engine) -> None:
    """`torch.export`, strict and not"""
    model, x, expected = made(engine)
    for strict in (False, True):
        check(torch.export.export(model, (x,), strict=strict).module()(x), expected)


def saved_program(engine: Engine) -> None:
    """a saved and loaded program of `torch.export`"""
    model, x, expected = made(engine)
    file = io.BytesIO()
    torch.export.save(torch.export.export(model, (x,)), file)
    file.seek(0)
    check(torch.export.load(file).module()(x), expected)


def aot_inductor(engine: Engine) -> None:
    """an AOTInductor package"""
    inductor: Any = importlib.import_module("torch._inductor")
    model, x, expected = made(engine)
    with TemporaryDirectory() as folder, torch.no_grad():
        package = str(Path(folder) / "model.pt2")
        inductor.aoti_compile_and_package(torch.export.export(model, (x,)), package_path=package)
        check(inductor.aoti_load_package(package)(x), expected)


def onnx(engine: Engine) -> None:
    """`torch.onnx.export(dynamo=True)`, run with onnxruntime, where ONNX has the operations"""
    importlib.import_module("onnxscript")
    model, x, expected = made(engine)
    check(run_onnx(model, x), expected)


def traced(engine: Engine) -> None:
    """`torch.jit.trace`"""
    model, x, expected = made(engine)
    check(torch.jit.trace(model, (x,))(x), expected)  # type: ignore[no-untyped-call]


def scripted(engine: Engine) -> None:
    """`torch.jit.script`"""
    model, x, expected = made(engine)
    check(engine.script(model)(x), expected)


def pickled(engine: Engine) -> None:
    """`copy.deepcopy` and `pickle`"""
    model, x, expected = made(engine)
    check(copy.deepcopy(model)(x), expected)
    check(pickle.loads(pickle.dumps(model))(x), expected)


def functional(engine: Engine) -> None:
    """`torch.func.functional_call`"""
    model, x, expected = made(engine)
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    check(functional_call(model, state, (x,)), expected)


def transformed(engine: Engine) -> None:
    """`torch.func.vmap` over an ensemble"""
    model, x, expected = made(engine)
    states = torch.func.stack_module_state([model, copy.deepcopy(model)])

    def run(parameters: Any, buffers: Any) -> Any:
        return functional_call(model, (parameters, buffers), (x,))

    for output in torch.func.vmap(run)(*states):
        check(output, expected)


def checkpointed(engine: Engine) -> None:
    """`torch.utils.checkpoint`"""
    model, x, expected = made(engine)
    gradients = []
    for run in (model, lambda x: checkpoint(model, x, use_reentrant=False)):
        found = run(x)
        check(found, expected)
        gradients.append(torch.autograd.grad(found.square().sum(), list(model.parameters())))
    for one, other in zip(*gradients, strict=True):
        check_close(one, other, "wrong gradients", 1e-5)
