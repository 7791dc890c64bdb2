"""What paramdesc knows of Dynamo, the tracer of torch.compile: the one door to its private parts.

A value that a scope of eager code keeps enters compiled code as an input of the graph. The
code holds no tensor and trusts none: at each call its guards ask the chain for the value,
which checks it as every read does, and the call fetches it from there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.nn import Module, Parameter

from paramdesc.torch_internals.mode import autocast_state, is_grad_enabled, is_inference
from paramdesc.torch_internals.tensors import address

__all__ = [
    "answered_by_tracer",
    "fetch_kept",
    "is_dynamo_compiling",
    "is_led_by_guards",
    "mark_of",
    "mode_in_trace",
    "plain_attributes",
    "run_eagerly",
    "uncompiled",
]

_P = ParamSpec("_P")
_T = TypeVar("_T")

MOST_TRACES = 4
"""How often a function may be compiled for what is kept of one chain: torch gives up at eight."""

_traces: WeakKeyDictionary[Module, dict[Any, set[Any]]] = WeakKeyDictionary()


def parts() -> Any:
    """Dynamo itself. Torch imports it when something is first compiled: that takes a second."""
    return torch._dynamo


def uncompiled(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """In compiled code: `function`, left to Python with all that it calls."""
    torch._dynamo.graph_break(msg="paramdesc leaves changes of a module to Python")
    result: Callable[_P, _T] = parts().disable(function)
    return result


def run_eagerly(hook: Callable[_P, _T]) -> Callable[_P, _T]:
    """`hook`, with all that it calls, compiled in no frame of its own; it may still be inlined.

    torch runs the hooks of a module that it compiles outside of the compiled code, and would
    compile each of them alone: what one of them opens there, the model never sees.
    """
    frames: Any = torch._C._dynamo.eval_frame
    function: Any = hook
    with suppress(AttributeError):  # parts that change: without them a read is evaluated
        skip = frames._FrameAction.SKIP
        strategy = frames._FrameExecStrategy(skip, skip)
        frames.set_code_exec_strategy(function.__code__, strategy)
    return hook


def answered_by_tracer(question: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """`question`, which compiled code asks about a chain once, while it is traced.

    The answer is a constant there, and false where Dynamo has no way to give it. To trace the
    question itself would make a guard of each thing that it looks at.
    """

    def bind_answer(context: Any) -> None:
        try:
            tracer = context._i_will_not_complain_if_bc_breaks_InstructionTranslator()
            answer(tracer, question(tracer.symbolic_locals["chain"].realize().value))
        except parts().exc.RestartAnalysis:
            raise
        except Exception:
            return

    def ask(chain: Any) -> bool:
        answer = False
        torch._dynamo.comptime.comptime(bind_answer)  # may give `answer` another value
        return answer

    return ask


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
        tracer = context._i_will_not_complain_if_bc_breaks_InstructionTranslator()
        variable = build_kept(tracer, tracer.symbolic_locals["chain"].realize())
    except parts().exc.RestartAnalysis:
        raise
    except Exception:
        return
    if variable is not None:
        tracer.symbolic_locals["value"] = variable


def is_led_by_guards(chain: Any) -> bool:
    """In compiled code: whether its guards see to it, at each call, that the states of the maps
    in `chain` move on after a training step. Not where nothing is guarded, as in an export.
    """
    answer = False
    torch._dynamo.comptime.comptime(bind_steps)  # may give `answer` another value
    return answer


def bind_steps(context: Any) -> None:
    try:
        tracer = context._i_will_not_complain_if_bc_breaks_InstructionTranslator()
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


class Trace:
    """What one trace has taken from scopes so far."""

    def __init__(self) -> None:
        self.chains: dict[Module, None] = {}
        self.variables: dict[Any, Any] = {}

    def moves_state_of(self, chain: Module) -> bool:
        """Whether evaluating another of its chains may write to a map of `chain`.

        They are all evaluated before the call, in another order than the code reads them.
        """
        maps = {part for part in chain.modules() if part._buffers}
        others = (other for other in self.chains if other is not chain)
        return any(maps.intersection(other.modules()) for other in others)

    def leads_apart(self, chain: Module) -> bool:
        """The same, but for chains that are below one another: these are led in any order."""
        parts = set(chain.modules())
        maps = {part for part in parts if part._buffers}
        return any(
            other not in parts
            and chain not in (others := set(other.modules()))
            and maps.intersection(others)
            for other in self.chains
        )


def trace_of(output: Any) -> Trace:
    found: Trace = vars(output).setdefault("_paramdesc", Trace())
    return found


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


def may_ask(output: Any) -> bool:
    """Whether what is traced has guards that ask, and asks in the mode that it was called in."""
    mode = parts().convert_frame.initial_global_state
    if mode is None or output.export:
        return False  # compiled ahead of time: guards are dropped, or checked just once
    return bool(mode.check()) and not torch._C._are_functorch_transforms_active()


def is_touched(output: Any, chain: Module) -> bool:
    """Whether the traced code may have changed something that `chain` depends on, up to here."""
    effects = output.side_effects
    for thing in state_of(chain):
        variable = effects.id_to_variable.get(id(thing))
        if variable is not None and effects.is_modified(variable):
            return True
    # not every write raises the version of a tensor while it is traced: any use counts as one
    places = {place_of(thing) for thing in state_of(chain) if isinstance(thing, Tensor)}
    inputs = {
        id(fake)
        for node, fake in inputs_of(output.root_tracer)
        if place_of(node.meta["grapharg"].example) in places
    }
    return any(
        id(fake) in inputs and node.users
        for tracer in output.tracers
        for node, fake in inputs_of(tracer)
    )


def state_of(chain: Module) -> Iterator[Any]:
    """The modules of `chain`, their attributes and what these contain, one level deep."""
    for module in chain.modules():
        state = vars(module)
        yield from (module, state)
        for value in state.values():
            yield value
            if isinstance(value, dict):
                yield from value.values()
            elif isinstance(value, (list, tuple)):
                yield from value


def inputs_of(tracer: Any) -> Iterator[tuple[Any, Tensor]]:
    """The tensors that a graph takes: the node of each, and what stands for it in the trace."""
    for node in tracer.graph.find_nodes(op="placeholder"):
        fake = node.meta.get("example_value")
        if isinstance(fake, Tensor):
            yield node, fake


def place_of(tensor: Tensor) -> int:
    """Equal for tensors that share memory."""
    return tensor.untyped_storage().data_ptr() if address(tensor) else id(tensor)


def may_compile(output: Any, chain: Module) -> bool:
    """Whether the traced function may be compiled once more for what is kept of `chain`.

    It is for scopes that cover other parts of a model each time: some day, the graph must
    serve them all.
    """
    traces = _traces.setdefault(chain, {}).setdefault(output.root_tx.f_code, set())
    traces.add(output.compile_id)
    return len(traces) <= MOST_TRACES


def result_of(place: Any, method: str) -> Any:
    """The source of what `method` of the object at `place` returns."""
    sources = parts().source
    return sources.CallFunctionNoArgsSource(sources.AttrSource(place, method))


def without_module_marks(place: Any) -> Any:
    """The same source, not marked as an attribute of a module.

    What is marked counts as static: CUDA graphs take its address for fixed.
    """
    sources = parts().source
    while isinstance(place, sources.NNModuleSource):
        place = place.base
    if isinstance(place, sources.ChainedSource):
        return dataclasses.replace(place, base=without_module_marks(place.base))
    return place


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


# Constants of the trace. Each function below sets its local `answer`, which the tracer then
# takes for a constant: it has no other way to tell versions, addresses and modes. Before
# torch 2.13 it compares no addresses at all. Code that is not traced keeps the first answer.


def mark_of(tensor: Tensor) -> Any:
    """Equal to an earlier one if it is the same tensor and nothing wrote to it in between."""
    answer = tensor.data_ptr()
    torch._dynamo.comptime.comptime(answer_mark)
    return answer


def answer_mark(context: Any) -> None:
    tracer = context._i_will_not_complain_if_bc_breaks_InstructionTranslator()
    fake = context.get_local("tensor").as_fake()
    storage = storage_in_trace(fake)
    writes = count_uncounted_writes(tracer.output, storage)
    # the graph keeps alive whatever it knows: no number here is given out twice
    answer(tracer, f"{id(fake)} {fake._version} {storage} {writes}")


def storage_in_trace(fake: Any) -> int | None:
    """What tells the memory of `fake`, if it has any of its own."""
    try:
        return int(fake.untyped_storage()._cdata)
    except (AttributeError, NotImplementedError):  # no tensor, or wrapped by a transform
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
    tracer = context._i_will_not_complain_if_bc_breaks_InstructionTranslator()
    answer(tracer, f"{is_grad_enabled()} {is_inference()} {autocast_state()}")


def plain_attributes(module: Module) -> list[Any]:
    """The numbers, strings and flags that `module` holds, `training` among them."""
    answer = "training"
    torch._dynamo.comptime.comptime(answer_names)
    return [getattr(module, name, None) for name in answer.split()]


def answer_names(context: Any) -> None:
    tracer = context._i_will_not_complain_if_bc_breaks_InstructionTranslator()
    variable = context.get_local("module")._i_will_not_complain_if_bc_breaks_VariableTracker()
    state = vars(variable.realize().value)
    names = [name for name in state if isinstance(state[name], (bool, int, float, str))]
    answer(tracer, " ".join(names))


def answer(tracer: Any, fact: str | bool) -> None:
    tracer.symbolic_locals["answer"] = parts().variables.ConstantVariable.create(fact)
