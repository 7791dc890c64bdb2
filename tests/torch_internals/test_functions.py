"""Standing in for a function keeps the object, and everything that can be seen of it."""

from __future__ import annotations

import inspect
import pickle
import textwrap
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import init

from paramdesc.torch_internals import functions
from paramdesc.torch_internals.functions import innermost, own, stand_in_for


def positional(a: int, /, b: int = 2, *, c: int = 3) -> Any:
    """All kinds of parameters that have a name."""
    return a, b, c


def collecting(a: int, *others: int, c: int = 3, **named: int) -> tuple[Any, ...]:
    return a, others, c, named


def enclosing(extra: int) -> Callable[..., Any]:
    def enclosed(a: int, b: int = 2) -> tuple[int, ...]:
        return a, b, extra

    return enclosed


@torch.no_grad()
def decorated(a: int) -> tuple[int, bool]:
    return a, torch.is_grad_enabled()


class Host:
    def method(self, a: int, b: int = 2) -> tuple[int, int]:
        return a, b


FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
    "positional": (positional, (1,), {"c": 4}),
    "collecting": (collecting, (1, 5, 6), {"d": 7}),
    "enclosed": (enclosing(9), (1,), {}),
    "decorated": (decorated, (1,), {}),
    "method": (Host.method, (Host(), 1), {}),
    "of the standard library": (textwrap.indent, ("a", " "), {}),
}


@pytest.fixture(params=["from source", "around"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both ways to ask; what these tests stand in for is as before afterwards."""
    before = dict(functions._STAND_INS)
    codes = {key: found.function.__code__ for key, found in before.items()}
    if request.param == "around":
        monkeypatch.setattr(functions, "from_source", lambda *_: None)
    yield
    for key in functions._STAND_INS.keys() - before.keys():
        function, _, torchs = functions._STAND_INS.pop(key)
        function.__code__ = torchs.__code__
    for key, (function, ours, torchs) in before.items():
        functions._STAND_INS[key] = functions.StandIn(function, ours, torchs)
        function.__code__ = codes[key]


def shown(function: Any) -> list[Any]:
    code = inspect.unwrap(function).__code__
    place = (code.co_filename, code.co_firstlineno, code.co_name)
    return [inspect.signature(function), inspect.getsource(function), place, vars(function)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_seen_of_a_function_stays(name: str) -> None:
    function, args, kwargs = FUNCTIONS[name]
    before, expected, asked = shown(function), function(*args, **kwargs), []

    def ours(own: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append((args, kwargs))
        assert own(*args, **kwargs) in (expected, (1, True))  # below its decorators
        return NotImplemented

    assert stand_in_for(function, ours)
    assert function(*args, **kwargs) == expected
    assert len(asked) == 1
    assert shown(function) == before
    assert own(function) is not function


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_stand_in_may_answer(name: str) -> None:
    function, args, kwargs = FUNCTIONS[name]
    stand_in_for(function, lambda own, *args, **kwargs: "ours")
    assert function(*args, **kwargs) == "ours"


def test_the_first_stand_in_stays_and_all_are_asked_once() -> None:
    code = positional.__code__
    for answer in ("first", "second"):
        stand_in_for(positional, lambda *_, answer=answer, **__: answer)
    assert positional(1) == "first"
    functions.give_back()
    assert positional.__code__ is code
    stand_in_for(positional, lambda own, *args, **kwargs: own(*args, **kwargs))
    assert positional(1) == (1, 2, 3)


def test_functions_that_are_not_written_in_python_are_left_alone() -> None:
    for function in (len, torch.add, None, Tensor.add_):
        assert not stand_in_for(function, lambda *_: None)


def test_it_is_asked_only_where_it_matters() -> None:
    stand_in_for(positional, lambda own, a, b, c: "ours", "a > 1")
    assert positional(1) == (1, 2, 3)
    assert positional(2) == "ours"


def test_an_import_of_this_file_anew_finds_the_functions_own_code() -> None:
    code = positional.__code__
    stand_in_for(positional, lambda own, *args, **kwargs: "ours")
    held = functions._STAND_INS.copy()
    functions._STAND_INS.clear()  # as in a new module
    try:
        assert positional(1) == (1, 2, 3)
        stand_in_for(positional, lambda own, *args, **kwargs: ("new", own(*args, **kwargs)))
        assert positional(1) == ("new", (1, 2, 3))
        assert own(positional).__code__ is code
    finally:
        functions._STAND_INS.update(held)


def test_threads_that_stand_in_at_once_leave_one() -> None:
    barrier = threading.Barrier(8)

    def stand_in(number: int) -> None:
        barrier.wait()
        stand_in_for(collecting, lambda *_, **__: number)

    threads = [threading.Thread(target=stand_in, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({collecting(1) for _ in range(8)}) == 1


TORCHS = [name for name in vars(init) if name.endswith("_") and not name.startswith("_")]


@pytest.mark.parametrize("name", TORCHS)
def test_all_functions_of_torch_can_be_compiled_from_their_source(name: str) -> None:
    function: Any = own(vars(init)[name])
    assert isinstance(function, FunctionType)
    code = function.__code__
    if functions.from_source.__name__ == "from_source":
        assert functions.from_source(function, code, "\n  pass\n") is not None


def test_warnings_and_tracebacks_do_not_show_the_question() -> None:
    stand_in_for(init.kaiming_normal_, lambda *_: NotImplemented)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        init.kaiming_normal_(torch.empty(0, 2))
    with pytest.raises(ValueError, match="Fan in and fan out") as info:
        init.kaiming_normal_(torch.empty(2))
    names = [frame.name for frame in traceback.extract_tb(info.value.__traceback__)]
    if functions.from_source.__name__ == "from_source":
        assert caught[0].filename == __file__
        assert names[1:] == [
            "kaiming_normal_",
            "_calculate_correct_fan",
            "_calculate_fan_in_and_fan_out",
        ]


def test_pickles_and_tables_find_the_function() -> None:
    table = {init.dirac_: 1}
    pickled = pickle.dumps(init.dirac_)
    stand_in_for(init.dirac_, lambda *_: NotImplemented)
    assert table[init.dirac_] == 1
    assert pickle.loads(pickled) is init.dirac_
    assert pickle.dumps(init.dirac_) == pickled


def filled(x: Tensor) -> Tensor:
    return init.ones_(torch.empty_like(x))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_and_dynamo_take_torchs_own() -> None:
    stand_in_for(init.ones_, lambda *_: NotImplemented)
    x = torch.zeros(2)
    torch._dynamo.reset()
    assert torch.compile(filled, backend="eager", fullgraph=True)(x).tolist() == [1, 1]
    assert torch.jit.script(filled)(x).tolist() == [1, 1]


def test_a_decorator_is_looked_through() -> None:
    assert innermost(decorated) is decorated.__wrapped__  # type: ignore[attr-defined]
