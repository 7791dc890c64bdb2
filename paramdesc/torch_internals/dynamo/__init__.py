"""What this library knows of Dynamo, the tracer of torch.compile: the one door to its parts."""

from paramdesc.torch_internals.dynamo.constants import mark_of, mode_in_trace, plain_attributes
from paramdesc.torch_internals.dynamo.kept import fetch_kept
from paramdesc.torch_internals.dynamo.stand_ins import ask_how_read, fetch_stand_in
from paramdesc.torch_internals.dynamo.steps import is_led_by_guards
from paramdesc.torch_internals.dynamo.tracer import (
    answered_by_tracer,
    is_compiled,
    is_dynamo_compiling,
    run_eagerly,
    uncompiled,
)

__all__ = [
    "answered_by_tracer",
    "ask_how_read",
    "fetch_kept",
    "fetch_stand_in",
    "is_compiled",
    "is_dynamo_compiling",
    "is_led_by_guards",
    "mark_of",
    "mode_in_trace",
    "plain_attributes",
    "run_eagerly",
    "uncompiled",
]
