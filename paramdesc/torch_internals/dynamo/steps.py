"""Letting the guards of compiled code move the states of maps after a training step."""

from __future__ import annotations

from typing import Any

import torch

from paramdesc.torch_internals.dynamo.trace import (
    may_ask,
    result_of,
    trace_of,
    without_module_marks,
)
from paramdesc.torch_internals.dynamo.tracer import answer, parts, tracer_of

__all__ = ["is_led_by_guards"]


def is_led_by_guards(chain: Any) -> bool:
    """Whether the guards of compiled code update the states of the maps in `chain`.

    Not in an export, which has no guards.
    """
    answer = False
    torch._dynamo.comptime.comptime(bind_steps)  # may give `answer` another value
    return answer


def bind_steps(context: Any) -> None:
    try:
        tracer = tracer_of(context)
        variable = tracer.symbolic_locals["chain"].realize()
        trace = trace_of(tracer.output)
        if (
            variable.source is not None
            and may_ask(tracer.output)
            and not trace.leads_apart(variable.value)
        ):
            trace.chains[variable.value] = None
            place = result_of(without_module_marks(variable.source), "_led")
            parts().variables.builder.VariableBuilder(tracer, place)(variable.value._led())
            answer(tracer, True)
    except parts().exc.RestartAnalysis:
        raise
    except Exception:
        return
