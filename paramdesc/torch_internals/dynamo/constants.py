"""Constants of a trace: versions, addresses, modes and attributes.

Each function sets its local `answer`, which the tracer then takes for a constant: it has no other
way to tell these. Before torch 2.13 it compares no addresses at all. Code that is not traced keeps
the first answer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.torch_internals.dynamo.tracer import answer, tracer_of
from paramdesc.torch_internals.mode import autocast_state, is_grad_enabled, is_inference

__all__ = ["mark_of", "mode_in_trace", "plain_attributes"]


def mark_of(tensor: Tensor) -> Any:
    """Equal to an earlier one if it is the same tensor and nothing wrote to it in between."""
    answer = tensor.data_ptr()
    torch._dynamo.comptime.comptime(answer_mark)
    return answer


def answer_mark(context: Any) -> None:
    tracer = tracer_of(context)
    fake = context.get_local("tensor").as_fake()
    storage = storage_in_trace(fake)
    writes = count_uncounted_writes(tracer.output, storage)
    # the graph keeps these objects alive, so identities stay unique
    answer(tracer, f"{id(fake)} {fake._version} {storage} {writes}")


def storage_in_trace(fake: Any) -> int | None:
    """What identifies the memory of `fake`, if it has its own."""
    try:
        return int(fake.untyped_storage()._cdata)
    except (AttributeError, NotImplementedError):  # not a tensor, or wrapped by a transform
        return None


def count_uncounted_writes(output: Any, storage: int | None) -> int:
    """How often the trace writes to `storage` by functions that may leave versions as they are.

    Such are the `_foreach` functions, and in torch 2.10 the assignment to an item.
    """
    return sum(
        storage is not None
        and storage in {storage_in_trace(x.meta.get("example_value")) for x in node.all_input_nodes}
        for tracer in output.tracers
        for node in tracer.graph.nodes
        if node.op == "call_function" and may_write(node.target)
    )


def may_write(function: Any) -> bool:
    name = getattr(function, "__name__", "")
    return name == "setitem" or (name.endswith("_") and not name.endswith("__"))


def mode_in_trace() -> Any:
    """The mode at this point of the trace: the tracer itself enters what the code enters."""
    answer = torch.is_grad_enabled()
    torch._dynamo.comptime.comptime(answer_mode)
    return answer


def answer_mode(context: Any) -> None:
    tracer = tracer_of(context)
    answer(tracer, f"{is_grad_enabled()} {is_inference()} {autocast_state()}")


def plain_attributes(module: Module) -> list[Any]:
    """The numbers, strings and flags that `module` holds, `training` among them."""
    answer = "training"
    torch._dynamo.comptime.comptime(answer_names)
    return [getattr(module, name, None) for name in answer.split()]


def answer_names(context: Any) -> None:
    tracer = tracer_of(context)
    variable = context.get_local("module")._i_will_not_complain_if_bc_breaks_VariableTracker()
    state = vars(variable.realize().value)
    names = [name for name in state if isinstance(state[name], (bool, int, float, str))]
    answer(tracer, " ".join(names))
