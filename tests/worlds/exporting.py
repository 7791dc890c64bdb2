"""`torch.export`, AOTInductor and ONNX"""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from tests.worlds.case import Case, of_linear, of_loop, of_scoped_loop
from tests.worlds.checks import WrongError, check_close, check_evaluated_once
from tests.worlds.engines import Engine

__all__ = [
    "aot_inductor",
    "decompositions",
    "dynamic_shapes",
    "load",
    "not_strict",
    "onnx",
    "scope_around",
    "scope_inside",
    "strict",
]


def exported(case: Case, strict: bool = False, **options: Any) -> ExportedProgram:
    return torch.export.export(case.model, tuple(case.inputs), strict=strict, **options)


def check_program(case: Case, program: ExportedProgram) -> None:
    """It is right and trains on, and has the originals under the names that they have."""
    if program.state_dict.keys() != case.model.state_dict().keys():
        raise WrongError("other names in the state_dict")
    unlifted = program.module()
    case.check(unlifted, unlifted)


def not_strict(engine: Engine) -> None:
    """`strict=False`"""
    case = of_loop(engine)
    check_program(case, exported(case))


def strict(engine: Engine) -> None:
    """`strict=True`"""
    case = of_loop(engine)
    check_program(case, exported(case, strict=True))


def dynamic_shapes(engine: Engine) -> None:
    """dynamic shapes"""
    case = of_loop(engine)
    unlifted = exported(case, dynamic_shapes=({0: Dim("length")},)).module()
    for length in (2, 5):
        case.inputs = [torch.rand(length, 3)]
        case.check(unlifted, unlifted)


def scope_inside(engine: Engine) -> None:
    """`cached` inside the exported `forward`, strict and not: evaluated once"""
    case = of_scoped_loop(engine)
    for strict in (False, True):
        program = exported(case, strict)
        check_program(case, program)
        check_evaluated_once(str(program.run_decompositions().graph))


def scope_around(engine: Engine) -> None:
    """`cached` around the export shares no values with it"""
    for strict in (False, True):
        case = of_loop(engine)
        with engine.cached(case.model):
            before = case.model.layer.weight
            program = exported(case, strict)
            if type(case.model.layer.weight) is not Tensor:
                raise WrongError(f"the weight is a {type(case.model.layer.weight).__name__}")
            check_close(case.model.layer.weight, before, "a wrong weight afterwards")
        check_program(case, program)


def decompositions(engine: Engine) -> None:
    """`run_decompositions`"""
    case = of_loop(engine)
    check_program(case, exported(case).run_decompositions())


def load(engine: Engine) -> None:
    """saved, loaded, and trained on"""
    case, file = of_loop(engine), io.BytesIO()
    torch.export.save(exported(case), file)
    file.seek(0)
    check_program(case, torch.export.load(file))


def aot_inductor(engine: Engine) -> None:
    """an AOTInductor package, compiled, loaded and run"""
    inductor: Any = importlib.import_module("torch._inductor")
    case = of_linear(engine)
    with TemporaryDirectory() as folder, torch.no_grad():
        package = str(Path(folder) / "model.pt2")
        inductor.aoti_compile_and_package(exported(case), package_path=package)
        case.check_outputs(inductor.aoti_load_package(package))


def onnx(engine: Engine) -> None:
    """`torch.onnx.export(dynamo=True)`, run with onnxruntime"""
    importlib.import_module("onnxscript")
    runtime = importlib.import_module("onnxruntime")
    case = of_loop(engine)
    program: Any = torch.onnx.export(case.model, tuple(case.inputs), dynamo=True, verbose=False)
    session = runtime.InferenceSession(program.model_proto.SerializeToString())
    (name,) = (given.name for given in session.get_inputs())
    case.check_outputs(
        lambda x: torch.from_numpy(session.run(None, {name: x.detach().numpy()})[0]), 1e-5
    )
