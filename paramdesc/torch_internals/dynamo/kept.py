"""A value that a scope of eager code keeps, as an input of a compiled graph.

The code holds no tensor and trusts none: at each call its guards ask the chain for the value,
which checks it as every read does, and the call fetches it from there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from paramdesc.torch_internals.dynamo.touched import is_touched
from paramdesc.torch_internals.dynamo.trace import (
    may_ask,
    result_of,
    trace_of,
    without_module_marks,
)
from paramdesc.torch_internals.dynamo.tracer import parts, tracer_of

__all__ = ["fetch_kept"]

MOST_TRACES = 4
"""How often a function may be compiled for what is kept of one chain: torch gives up at eight."""

_traces: WeakKeyDictionary[Module, dict[Any, set[Any]]] = WeakKeyDictionary()


def fetch_kept(chain: Any) -> Any:
    """In compiled code: what an eager scope keeps of `chain`, as an input of the graph, or None.

    None also where Dynamo cannot tell that it is what an evaluation in the graph would give.
    """
    value = None
    torch._dynamo.comptime.comptime(bind_kept)  # may give `value` another one
    return value


def bind_kept(context: Any) -> None:
    """While `fetch_kept` is traced: let its local `value` be what is kept of its `chain`.

    The parts used here change from one torch to the next. Where one is missing, the local
    stays what it is, and the chain is evaluated in the graph.
    """
    try:
        tracer = tracer_of(context)
        variable = build_kept(tracer, tracer.symbolic_locals["chain"].realize())
    except parts().exc.RestartAnalysis:
        raise
    except Exception:
        return
    if variable is not None:
        tracer.symbolic_locals["value"] = variable


def build_kept(tracer: Any, chain_variable: Any) -> Any:
    """The variable that stands for the kept value, guarded; None where there is none to use."""
    output = tracer.output
    chain, place = chain_variable.value, chain_variable.source
    trace = trace_of(output)
    if (
        place is None  # made by the compiled code
        or not may_ask(output)
        or is_touched(output, chain)
        or trace.moves_state_of(chain)
        or not may_compile(output, chain)
    ):
        return None
    place = without_module_marks(place)
    build = parts().variables.builder.VariableBuilder(tracer, result_of(place, "_kept"))
    value = chain._kept()
    with static_shape(value):
        variable = build(value)
    if value is None:
        return None
    node = variable.as_proxy().node
    if node.meta["example_value"]._version > 0:  # the traced code has written to it
        return None
    trace.chains[chain] = None
    if node not in trace.variables:
        argument = node.meta["grapharg"]
        if argument.source == build.source:
            leave_uncompiled(type(chain), "_fetched")
            argument.source = result_of(place, "_fetched")
        trace.variables[node] = as_result(output, variable)
    return trace.variables[node]


def may_compile(output: Any, chain: Module) -> bool:
    """Whether the traced function may be compiled once more for what is kept of `chain`.

    It is for scopes that cover other parts of a model each time: some day, the graph must
    serve them all.
    """
    traces = _traces.setdefault(chain, {}).setdefault(output.root_tx.f_code, set())
    traces.add(output.compile_id)
    return len(traces) <= MOST_TRACES


@contextmanager
def static_shape(value: Any) -> Iterator[None]:
    """Inside, Dynamo takes the shape of `value` for fixed, as it does with every Parameter."""
    if not isinstance(value, Tensor) or isinstance(value, Parameter):
        yield
        return
    name = "_dynamo_static_indices"
    vars(value)[name] = set(range(value.ndim))
    try:
        yield
    finally:
        del vars(value)[name]


def as_result(output: Any, variable: Any) -> Any:
    """The same variable as if the graph had computed it.

    What has a source is fetched from there once more when the code returns it, and may have
    changed by then.
    """
    result = variable.clone(source=None, mutation_type=None)
    kind = parts().variables.base.AttributeMutationNew
    output.side_effects._track_obj(object(), result, kind)
    return result


def leave_uncompiled(owner: type, method: str) -> None:
    """Let Dynamo compile nothing of what `method` calls, when compiled code calls it."""
    function = getattr(owner, method)
    if not hasattr(function, "_torchdynamo_disable"):
        setattr(owner, method, parts().disable(function))
