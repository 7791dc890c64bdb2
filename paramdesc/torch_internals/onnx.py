"""Whether a graph is being exported to ONNX, which has no inverses, solvers or exponentials."""

from __future__ import annotations

import sys
import warnings
from typing import Any

from torch.compiler import is_compiling, is_dynamo_compiling

from paramdesc.torch_internals.mode import is_tracing

__all__ = ["is_exporting_to_onnx", "warn_of_onnx"]


def is_exporting_to_onnx() -> bool:
    """Whether `torch.onnx.export` is recording what is evaluated.

    False inside Dynamo: the exporter uses it only if recording without it has failed.
    """
    if is_dynamo_compiling() or not (is_compiling() or is_tracing()):
        return False
    exporter: Any = sys.modules.get("torch.onnx")  # `import torch` leaves it out: it takes long
    return exporter is not None and bool(exporter.is_in_onnx_export())


def warn_of_onnx(map_name: str, operation: str) -> None:
    """Say what to write instead of an export that is about to fail.

    A warning, since the exporter hides exceptions: it tries again in another way, and shows only
    what comes of that.
    """
    warnings.warn(
        f"{map_name} cannot be exported to ONNX, which has no {operation}. Export its value "
        "instead: torch.onnx.export(paramdesc.bake(model, copy=True).model, ...).",
        stacklevel=3,
    )
