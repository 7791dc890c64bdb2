"""Whether a graph is being exported to ONNX, which has no inverses, solvers or exponentials."""

from __future__ import annotations

import sys
from typing import Any

from torch.compiler import is_compiling, is_dynamo_compiling

from paramdesc.torch_internals.mode import is_tracing

__all__ = ["is_exporting_to_onnx"]


def is_exporting_to_onnx() -> bool:
    """Whether `torch.onnx.export` is recording what is evaluated.

    False inside Dynamo: the exporter uses it only if recording without it has failed.
    """
    if is_dynamo_compiling() or not (is_compiling() or is_tracing()):
        return False
    exporter: Any = sys.modules.get("torch.onnx")  # `import torch` leaves it out: it takes long
    return exporter is not None and bool(exporter.is_in_onnx_export())
