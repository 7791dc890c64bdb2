"""Stand-ins for functions of torch, which keep the function object.

The code of the function is replaced by the same code with a question in front: does a stand-in
answer this call? Since the object stays the same, identity, pickles, tables keyed by the function,
its signature and its source are unchanged, no matter when and where the function was imported.
TorchScript reads torch's source, and Dynamo traces torch's code. If no stand-in answers, even the
stack is the same.

The new code is compiled from torch's source, if compiling the unchanged source reproduces the
present code. Otherwise, as when torch is installed without sources, it asks and then calls the
present code.
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
    """What answers calls of `function`, and a function with torch's own code."""

    function: FunctionType
    ours: Callable[..., Any]
    own: FunctionType


_STAND_INS: dict[str, StandIn] = {}


def stand_in_for(function: Any, ours: Callable[..., Any], when: str = "True") -> bool:
    """From now on, ask `ours` at each call of `function`. False if `function` is not in Python.

    `ours(own, *args, **kwargs)` returns the result of the call, and may call torch's own code by
    `own`. If it returns NotImplemented, the call continues as usual. A later stand-in for the same
    function is ignored.

    Args:
        function: a function or method of torch.
        ours: the stand-in.
        when: an expression in the parameters of `function`; if it is False, `ours` is not asked.
            For functions that are called often, since asking takes a microsecond.
    """
    function = innermost(function)
    if function is None:
        return False
    key = key_of(function)
    if key not in _STAND_INS:
        # no lock, which a fork might leave locked: concurrent threads compile the same code
        code = own_code(function)
        new = asking(function, code, question_of(code, key, when))
        _STAND_INS.setdefault(key, StandIn(function, ours, copy_of(function, code)))
        function.__code__ = new
    return True


def answer(key: str, *args: Any, **kwargs: Any) -> Any:
    """The answer of the stand-in with that key to a call from a function of torch."""
    found = _STAND_INS.get(key)
    return NotImplemented if found is None else found.ours(found.own, *args, **kwargs)


def own(function: Any) -> Any:
    """`function` with torch's own code, without a stand-in."""
    inner = innermost(function)
    found = None if inner is None else _STAND_INS.get(key_of(inner))
    return function if found is None else found.own


def give_back() -> None:
    """Restore the code of all functions, for tests."""
    while _STAND_INS:
        function, _, own = _STAND_INS.popitem()[1]
        function.__code__ = own.__code__


def innermost(function: Any) -> Any:
    """The function below all decorators; None if it is not written in Python."""
    inner = inspect.unwrap(function)
    return inner if isinstance(inner, FunctionType) else None


def key_of(function: FunctionType) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def own_code(function: FunctionType) -> CodeType:
    """torch's own code of `function`, even if an earlier import of this file has replaced it."""
    code = function.__code__
    if __name__ not in code.co_names:
        return code
    return next(kept for kept in reversed(code.co_consts) if isinstance(kept, CodeType))


def copy_of(function: FunctionType, code: CodeType) -> FunctionType:
    """A copy of `function` with `code`."""
    names = function.__globals__, function.__name__, function.__defaults__, function.__closure__
    copy = FunctionType(code, *names)
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
    return copy


def asking(function: FunctionType, code: CodeType, question: str) -> CodeType:
    """`code` with the question in front."""
    new = from_source(function, code, question) or around(code, question)
    return disguised(new, code).replace(co_consts=(*new.co_consts, code))


def disguised(new: CodeType, code: CodeType) -> CodeType:
    """`new`, with the name, file and line of `code`."""
    names: dict[str, Any] = {"co_filename": code.co_filename, "co_name": code.co_name}
    if hasattr(code, "co_qualname"):  # from Python 3.11 on
        names["co_qualname"] = code.co_qualname
    return new.replace(co_firstlineno=code.co_firstlineno, **names)


def question_of(code: CodeType, key: str, when: str) -> str:
    """The source of the question. It uses a local name, so that the globals stay unchanged."""
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
    """The parameters as arguments of a call."""
    forms = {"/": "{0}", "": "{0}", "*": "*{0}", "k": "{0}={0}", "**": "**{0}"}
    return [forms[kind].format(name) for name, kind in parameters(code)]


def signature(code: CodeType) -> str:
    """The parameters as in a `def`. The defaults belong to the function, not to its code."""
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
    """torch's source with the question, compiled. None if the source is missing or differs."""
    try:
        source = inspect.getsource(code)
        indented = source[:1].isspace()
        tree = ast.parse("if True:\n" + source if indented else source)
    except (OSError, TypeError, SyntaxError):
        return None
    ast.increment_lineno(tree, code.co_firstlineno - 1 - indented)
    outer: Any = tree.body[0] if indented else tree
    definition = outer.body[0]
    # Python compiles calls of imported modules differently
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
    """The global names of modules in the file of `function`."""
    names = function.__globals__.items()
    return [name for name, x in names if isinstance(x, ModuleType) and name.isidentifier()]


def compiled(tree: ast.Module, code: CodeType) -> CodeType | None:
    """The code of the only function in `tree`, compiled with the flags of `code`."""
    flags = future_flags(code)
    module = compile(tree, code.co_filename, "exec", flags=flags, dont_inherit=True)
    found = [x for x in module.co_consts if isinstance(x, CodeType) and x.co_name == code.co_name]
    return disguised(found[0], code) if len(found) == 1 else None


def future_flags(code: CodeType) -> int:
    """The flags of the `from __future__ import` under which `code` was compiled."""
    flags = {getattr(__future__, name).compiler_flag for name in __future__.all_feature_names}
    # the oldest flags share their bits with other properties of code objects
    return sum(x for x in flags if x > inspect.CO_ASYNC_GENERATOR and code.co_flags & x)


def around(code: CodeType, question: str) -> CodeType:
    """Code that asks the stand-in, and otherwise calls `code` as an inner function."""
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
