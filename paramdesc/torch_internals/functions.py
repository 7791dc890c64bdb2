"""Standing in for a function of torch that stays the same object.

Its code is exchanged for torch's own with a question in front: does one of ours answer this
call? So `is`, pickles, tables by function, signatures and source are what they were, whenever
and wherever the function was imported. TorchScript reads torch's source, and Dynamo traces
torch's code. Where no stand-in answers, not even the stack is another one.

The new code is compiled from torch's source, if that gives the present code exactly. Else, as
where no source is shipped, it asks and then calls the present code.
"""

from __future__ import annotations
import __future__

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

__all__ = ["answer", "give_back", "own", "stand_in_for"]


class StandIn(NamedTuple):
    """What answers calls of `function`, and torch's own, which is called by nobody else."""

    function: FunctionType
    ours: Callable[..., Any]
    own: FunctionType


_STAND_INS: dict[str, StandIn] = {}


def stand_in_for(function: Any, ours: Callable[..., Any], when: str = "True") -> bool:
    """From now on, ask `ours` at each call of `function`; False if that cannot be arranged.

    `ours(own, *args, **kwargs)` returns what the caller gets, and may call torch's own. If it
    returns NotImplemented, the call goes on as without it. The first stand-in stays.

    Args:
        function: in Python; a method is asked for with its class.
        ours: what is asked.
        when: an expression of the parameters of `function`, for those that are called often:
            to ask takes a microsecond.
    """
    function = innermost(function)
    if function is None:
        return False
    key = key_of(function)
    if key not in _STAND_INS:
        # without a lock, for a fork: threads that come here at once make the same of it
        code = own_code(function)
        new = asking(function, code, question_of(code, key, when))
        _STAND_INS.setdefault(key, StandIn(function, ours, copy_of(function, code)))
        function.__code__ = new
    return True


def answer(key: str, *args: Any, **kwargs: Any) -> Any:
    """What the stand-in of that key says to a call. The code of torch's functions asks this."""
    found = _STAND_INS.get(key)
    return NotImplemented if found is None else found.ours(found.own, *args, **kwargs)


def own(function: Any) -> Any:
    """Torch's own `function`, without a stand-in."""
    inner = innermost(function)
    found = None if inner is None else _STAND_INS.get(key_of(inner))
    return function if found is None else found.own


def give_back() -> None:
    """Give all functions their own code back, as for a test."""
    while _STAND_INS:
        function, _, own = _STAND_INS.popitem()[1]
        function.__code__ = own.__code__


def innermost(function: Any) -> Any:
    """The function that decorators are wrapped around; None if it is not written in Python."""
    inner = inspect.unwrap(function)
    return inner if isinstance(inner, FunctionType) else None


def key_of(function: FunctionType) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def own_code(function: FunctionType) -> CodeType:
    """The code that `function` came with: ours holds it, should this file be imported twice."""
    code = function.__code__
    if __name__ not in code.co_names:
        return code
    return next(kept for kept in reversed(code.co_consts) if isinstance(kept, CodeType))


def copy_of(function: FunctionType, code: CodeType) -> FunctionType:
    """Another function of that code."""
    names = function.__globals__, function.__name__, function.__defaults__, function.__closure__
    copy = FunctionType(code, *names)
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
    return copy


def asking(function: FunctionType, code: CodeType, question: str) -> CodeType:
    """`code`, which asks before it does anything else."""
    new = from_source(function, code, question) or around(code, question)
    return disguised(new, code).replace(co_consts=(*new.co_consts, code))


def disguised(new: CodeType, code: CodeType) -> CodeType:
    """`new`, under the name and at the place of `code`."""
    names: dict[str, Any] = {"co_filename": code.co_filename, "co_name": code.co_name}
    if hasattr(code, "co_qualname"):  # from Python 3.11 on
        names["co_qualname"] = code.co_qualname
    return new.replace(co_firstlineno=code.co_firstlineno, **names)


def question_of(code: CodeType, key: str, when: str) -> str:
    """What asks. The name is a local one of torch's function: the globals stay as they are."""
    return f"""
  if {when}:
    from {__name__} import answer as paramdesc
    paramdesc = paramdesc({key!r}, {", ".join(arguments(code))})
    if paramdesc is not NotImplemented: return paramdesc
"""


def parameters(code: CodeType) -> Iterator[tuple[str, str]]:
    """Each parameter with its kind: one of "/", "", "*", "k", "**"."""
    count, keywords = code.co_argcount, code.co_kwonlyargcount
    names = iter(code.co_varnames)
    for place in range(count):
        yield next(names), "/" if place < code.co_posonlyargcount else ""
    only = [next(names) for _ in range(keywords)]
    if code.co_flags & inspect.CO_VARARGS:
        yield next(names), "*"
    for name in only:
        yield name, "k"
    if code.co_flags & inspect.CO_VARKEYWORDS:
        yield next(names), "**"


def arguments(code: CodeType) -> list[str]:
    """The parameters as they are passed on."""
    forms = {"/": "{0}", "": "{0}", "*": "*{0}", "k": "{0}={0}", "**": "**{0}"}
    return [forms[kind].format(name) for name, kind in parameters(code)]


def signature(code: CodeType) -> str:
    """The parameters as they are declared. Their defaults are the function's, not the code's."""
    declared: list[str] = []
    kinds = [kind for _, kind in parameters(code)]
    for place, (name, kind) in enumerate(parameters(code)):
        if kind == "k" and "*" not in kinds and "k" not in kinds[:place]:
            declared.append("*")
        declared.append(kind * kind.startswith("*") + name)
        if kind == "/" and "/" not in kinds[place + 1 :]:
            declared.append("/")
    return ", ".join(declared)


def from_source(function: FunctionType, code: CodeType, question: str) -> CodeType | None:
    """Torch's source with the question in front; None if there is none, or not of this code."""
    try:
        source = inspect.getsource(code)
        indented = source[:1].isspace()
        tree = ast.parse("if True:\n" + source if indented else source)
    except (OSError, TypeError, SyntaxError):
        return None
    ast.increment_lineno(tree, code.co_firstlineno - 1 - indented)
    outer: Any = tree.body[0] if indented else tree
    definition = outer.body[0]
    # Python compiles calls of what a file imports in another way
    tree.body[:0] = ast.parse("".join(map("import {}\n".format, modules_in(function)))).body
    if compiled(tree, code) != code:
        return None
    asked = ast.parse(textwrap.dedent(question)).body
    for node in (below for statement in asked for below in ast.walk(statement)):
        ast.copy_location(node, definition)
        node.end_lineno = definition.lineno  # type: ignore[attr-defined]
    has_docstring = ast.get_docstring(definition, clean=False) is not None
    definition.body[has_docstring:has_docstring] = asked
    return compiled(tree, code)


def modules_in(function: FunctionType) -> list[str]:
    """The global names of modules, where `function` is defined."""
    names = function.__globals__.items()
    return [name for name, x in names if isinstance(x, ModuleType) and name.isidentifier()]


def compiled(tree: ast.Module, code: CodeType) -> CodeType | None:
    """The code of the one function in `tree`, as `code` was compiled."""
    flags = future_flags(code)
    module = compile(tree, code.co_filename, "exec", flags=flags, dont_inherit=True)
    found = [x for x in module.co_consts if isinstance(x, CodeType) and x.co_name == code.co_name]
    return disguised(found[0], code) if len(found) == 1 else None


def future_flags(code: CodeType) -> int:
    """The `from __future__ import` that `code` was compiled under."""
    flags = {getattr(__future__, name).compiler_flag for name in __future__.all_feature_names}
    # the first of them have the bits of other properties of code by now
    return sum(x for x in flags if x > inspect.CO_ASYNC_GENERATOR and code.co_flags & x)


def around(code: CodeType, question: str) -> CodeType:
    """A function that asks, and else calls `code`, which is a function inside of it."""
    free = "".join(f"{name}, " for name in code.co_freevars)
    text = f"""
def outer({free}):
 def inner({signature(code)}):{question}
  return (lambda: ({free}))({", ".join(arguments(code))})
"""
    (outer,) = (x for x in compile(text, "", "exec").co_consts if isinstance(x, CodeType))
    (inner,) = (x for x in outer.co_consts if isinstance(x, CodeType))
    constants = tuple(code if isinstance(x, CodeType) else x for x in inner.co_consts)
    return inner.replace(co_consts=constants)
