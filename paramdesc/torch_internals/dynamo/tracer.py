"""Queries to Dynamo, and code that it must not trace: the basis of the other files here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

import torch
from torch.compiler import is_dynamo_compiling

__all__ = [
    "answer",
    "answered_by_tracer",
    "is_compiled",
    "is_dynamo_compiling",
    "parts",
    "run_eagerly",
    "tracer_of",
    "uncompiled",
]

_P = ParamSpec("_P")
_T = TypeVar("_T")


def parts() -> Any:
    """Dynamo itself. Torch imports it when something is first compiled: that takes a second."""
    return torch._dynamo


def uncompiled(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """In compiled code: `function`, left to Python with all that it calls."""
    torch._dynamo.graph_break(msg="paramdesc leaves changes of a module to Python")
    result: Callable[_P, _T] = parts().disable(function)
    return result


def is_compiled(module: Any) -> bool:
    """Whether calls of `module` run code that Dynamo has compiled."""
    state = vars(module)
    return state.get("_compiled_call_impl") is not None or "_orig_mod" in state.get("_modules", ())


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
            tracer = tracer_of(context)
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


def tracer_of(context: Any) -> Any:
    """What translates the code that asks by `comptime`."""
    return context._i_will_not_complain_if_bc_breaks_InstructionTranslator()


def answer(tracer: Any, fact: str | bool) -> None:
    tracer.symbolic_locals["answer"] = parts().variables.ConstantVariable.create(fact)
