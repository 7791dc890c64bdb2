"""Disabled chains in compiled code: its guards check how each is read now."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from paramdesc.torch_internals.dynamo.kept import static_shape
from paramdesc.torch_internals.dynamo.trace import result_of, without_module_marks
from paramdesc.torch_internals.dynamo.tracer import answer, parts, tracer_of

__all__ = ["ask_how_read", "fetch_stand_in"]


def ask_how_read(chain: Any) -> str:
    """In compiled code: how `chain` is read if it is switched off, and otherwise an empty string.

    The answer is a constant, and the guards compare it at each call.
    """
    answer = ""
    torch._dynamo.comptime.comptime(bind_how)  # may give `answer` another value
    return answer


def bind_how(context: Any) -> None:
    tracer = tracer_of(context)
    variable = tracer.symbolic_locals["chain"].realize()
    how = variable.value._how_read()
    if variable.source is not None and not tracer.output.export:
        place = result_of(without_module_marks(variable.source), "_how_read")
        parts().variables.builder.VariableBuilder(tracer, place)(how).as_python_constant()
    answer(tracer, how)


def fetch_stand_in(chain: Any) -> Any:
    """In compiled code: the tensor that is given for `chain`, as an input of the graph."""
    value = None
    torch._dynamo.comptime.comptime(bind_stand_in)
    return value


def bind_stand_in(context: Any) -> None:
    tracer = tracer_of(context)
    variable = tracer.symbolic_locals["chain"].realize()
    if tracer.output.export:
        raise RuntimeError(
            "a tensor given by disabled(model, values=...) cannot be exported with strict=True. "
            "Write torch.export.export(..., strict=False)."
        )
    place = result_of(without_module_marks(variable.source), "_stand_in")
    value: Tensor = variable.value._stand_in()
    with static_shape(value):
        given = parts().variables.builder.VariableBuilder(tracer, place)(value)
    tracer.symbolic_locals["value"] = given
