"""A KeyboardInterrupt anywhere in the opening and closing of a scope leaves none open for good."""

from __future__ import annotations

import contextvars
import dis
import importlib
import os
import sys
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.caching.active import _SCOPES, active_scopes
from paramdesc.caching.traced_scopes import TRACED
from paramdesc.torch_internals.locks import ProcessLock
from tests.helpers import linear

# the attribute of that name of its folder is the class, for old pickles
cached_file: Any = importlib.import_module("paramdesc.caching.cached")

PACKAGE = os.path.join(os.path.dirname(P.__file__), "caching")
WALK = ("bound.py", "functions.py", "holders.py", "watch.py", "dependencies.py", "observer.py")
"""What looks at the maps during an evaluation: thousands of instructions, and no scope in them."""


class Place(NamedTuple):
    """An instruction of a function."""

    function: str
    opcode: str


class Interrupt:
    """Raises a KeyboardInterrupt before the instruction of the package with this number."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.place: Place | None = None

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        path = frame.f_code.co_filename
        if not path.startswith(PACKAGE) or path.endswith(WALK):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.left -= 1
            if self.left == 0:
                opcode = dis.opname[frame.f_code.co_code[frame.f_lasti]]
                self.place = Place(frame.f_code.co_name, opcode)
                sys.settrace(None)
                raise KeyboardInterrupt
        return self.trace

    def __enter__(self) -> None:
        sys.settrace(self.trace)

    def __exit__(self, *exception: object) -> None:
        sys.settrace(None)


def interrupted(run: Callable[[], Any], count: int) -> Place | None:
    """Run it with an interrupt; where that came, or None if the end was reached before."""
    interrupt = Interrupt(count)
    before = sys.gettrace()
    try:
        with interrupt:
            run()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return interrupt.place


def layer() -> nn.Linear:
    return linear().eval()


def scope_of(**options: Any) -> Callable[[], Callable[[], None]]:
    """A new scope at each run."""

    def make() -> Callable[[], None]:
        model = layer()

        def run() -> None:
            with P.cached(model, **options):
                pass

        run()
        return run

    return make


def kept() -> Callable[[], None]:
    """One object of `cached`, entered again and again."""
    model = layer()
    scope = P.cached(model, persistent=True)

    def run() -> None:
        with scope, torch.no_grad():
            model.weight  # noqa: B018

    return run


def deferred_backward() -> Callable[[], None]:
    model = layer()
    scope = P.cached(model, deferred=True)

    def run() -> None:
        with scope:
            model.weight.sum().backward()  # type: ignore[no-untyped-call]

    return run


def nested() -> Callable[[], None]:
    model = layer()

    def run() -> None:
        with P.cached(model), P.cached(), P.cached(model, persistent=True):
            pass

    return run


def decorated() -> Callable[[], None]:
    model = layer()

    @P.cached(model, persistent=True)
    def run() -> None:
        pass

    return run


def loop() -> Callable[[], None]:
    """The next entry comes in the same call of the same function."""
    model = layer()
    scope = P.cached(model, deferred=True)

    def run() -> None:
        error: BaseException | None = None
        for _ in range(2):
            try:
                with scope:
                    pass
            except KeyboardInterrupt as interrupt:  # noqa: PERF203
                error = interrupt
            else:
                assert active_scopes() == ()
        if error is not None:
            raise error

    return run


def automatic(*, training: bool = True) -> Callable[[], None]:
    model = nn.Sequential(layer()).train(training)
    P.auto_cache(model)
    inputs = torch.ones(1, 3)
    return lambda: model(inputs)


KINDS: dict[str, Callable[[], Callable[[], Any]]] = {
    "ordinary": scope_of(),
    "deferred": scope_of(deferred=True),
    "persistent": scope_of(persistent=True),
    "both": scope_of(persistent=True, deferred=True),
    "kept": kept,
    "deferred backward": deferred_backward,
    "nested": nested,
    "decorated": decorated,
    "loop": loop,
    "auto_cache": automatic,
}

UNAVOIDABLE = {
    # Python runs no signal handler here: only a trace function can raise
    Place("__enter__", "RETURN_VALUE"),
    # before the first line of the function, where Python does run one, and before its `try`
    *(Place("run_function", opcode) for opcode in ("SWAP", "LOAD_CONST", "PRECALL", "CALL")),
    *(Place("__exit__", opcode) for opcode in ("RESUME", "LOAD_CONST", "STORE_FAST", "NOP")),
}
"""What no Python code can guard. The next entry or exit ends what is left open there."""


@pytest.fixture(autouse=True)
def no_scope_is_left() -> Iterator[None]:
    yield
    left = active_scopes()
    _SCOPES.set(())
    assert left == ()


@pytest.fixture(autouse=True)
def lock_of_first_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each test. A trace function may raise between a block and the release of its lock,
    where Python runs no signal handler.
    """
    monkeypatch.setattr(cached_file, "_FIRST_ENTRY", ProcessLock())


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_anywhere_leaves_no_scope_open(kind: str) -> None:
    run = KINDS[kind]()
    run()
    run_again = KINDS["kept"]()
    run_again()
    left: set[Place] = set()
    for count in range(1, 20_000):
        place = interrupted(run, count)
        if active_scopes():
            assert place is not None
            left.add(place)
            (run if count % 2 else run_again)()  # the next entry on this thread
        assert active_scopes() == (), place
        assert not TRACED.opened.any, place
        if place is None:
            break
    else:
        pytest.fail("no end")
    assert count > 100
    # torch runs no hook after a KeyboardInterrupt in a call: the next one ends its scope
    assert kind == "auto_cache" or left <= UNAVOIDABLE


@pytest.mark.filterwarnings("ignore:.torch.jit")  # its end is announced, in a class that changes
@pytest.mark.parametrize("kind", ["ordinary", "persistent", "decorated"])
def test_an_interrupt_anywhere_leaves_no_scope_of_a_program_open(kind: str) -> None:
    program: Any = torch.jit.script(nn.Sequential(linear()))
    (chain,) = (part for part in program.modules() if hasattr(part, "open_scope"))
    scope = P.cached(program, persistent=kind == "persistent")

    def block() -> None:
        with scope:
            pass

    run = scope(lambda: None) if kind == "decorated" else block
    run()
    for count in range(1, 20_000):
        place = interrupted(run, count)
        if active_scopes():
            assert place in UNAVOIDABLE
            run()
        assert chain.scopes == 0, place
        if place is None:
            break
    assert count > 100


def raise_at_exit(frame: FrameType, event: str, _: Any) -> Any:
    """A trace function: an interrupt at the start of the next `__exit__` of the package."""
    if frame.f_code.co_name == "__exit__" and frame.f_code.co_filename.startswith(PACKAGE):
        sys.settrace(None)
        raise KeyboardInterrupt
    return None


@contextmanager
def tracing_is_restored() -> Iterator[None]:
    before = sys.gettrace()
    try:
        yield
    finally:
        sys.settrace(before)


def test_the_exit_of_an_outer_block_of_the_same_call_ends_what_was_left_open() -> None:
    model = layer()
    with tracing_is_restored(), P.cached(model):
        with suppress(KeyboardInterrupt), P.cached(deferred=True):
            sys.settrace(raise_at_exit)
        assert len(active_scopes()) == 2
    assert active_scopes() == ()


def test_gradients_that_waited_in_it_are_dropped() -> None:
    model = layer()
    original: Any = model.parametrizations.weight.original  # type: ignore[union-attr]
    values: list[Tensor] = []

    def block() -> None:
        with P.cached(model, deferred=True):
            values.append(model.weight)
            values[0].sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
            sys.settrace(raise_at_exit)

    with tracing_is_restored(), suppress(KeyboardInterrupt):
        block()
    (left,) = active_scopes()
    with P.cached() as scope:
        assert active_scopes() == (scope,)
    assert left.is_closed
    assert original.grad is None
    with pytest.raises(RuntimeError, match="would be lost"):
        values[0].sum().backward()  # type: ignore[no-untyped-call]


def test_the_next_block_of_the_same_function_ends_what_was_left_open() -> None:
    model = layer()

    def open_another() -> int:
        with P.cached(model):
            return len(active_scopes())

    for go_on in (open_another, lambda: None):
        with tracing_is_restored():
            with suppress(KeyboardInterrupt), P.cached(deferred=True):
                sys.settrace(raise_at_exit)
            sys.settrace(None)
            assert len(active_scopes()) == 1
            go_on()
            with P.cached(model) as scope, P.cached(model) as inner:
                assert active_scopes() == (scope, inner)
                try:
                    raise ValueError
                except ValueError:
                    for _ in range(2):
                        assert open_another() == 3
                assert active_scopes() == (scope, inner)
        assert active_scopes() == ()


# what is not over is not ended


def test_scopes_that_functions_open_by_hand_stay() -> None:
    model = layer()

    def open_by_hand() -> Any:
        scope = P.cached(model)
        return scope, scope.__enter__()

    scope, opened = open_by_hand()
    with ExitStack() as stack:
        inner = [stack.enter_context(P.cached(model)) for _ in range(2)]
        with P.cached():
            assert active_scopes()[:-1] == (opened, *inner)
    scope.__exit__(None, None, None)


def test_scopes_of_generators_stay() -> None:
    model = layer()

    def steps() -> Generator[None, None, None]:
        for _ in range(2):
            with P.cached(model):
                yield

    @contextmanager
    def region() -> Iterator[None]:
        with P.cached(model):
            yield

    generator = steps()
    next(generator)
    with region():
        with P.cached(model):
            assert len(active_scopes()) == 3
        assert len(active_scopes()) == 2
    next(generator)
    assert len(active_scopes()) == 1
    generator.close()


def test_recursive_calls_of_one_block_nest() -> None:
    model = layer()
    scope = P.cached(model, persistent=True)

    def nest(depth: int) -> int:
        with scope:
            return nest(depth - 1) if depth else len(active_scopes())

    assert nest(3) == 8
    assert active_scopes() == ()


def test_scopes_of_other_threads_stay() -> None:
    """A thread that runs in a copy of the context sees the scope of a block that is not over."""
    model = layer()

    def work() -> int:
        with P.cached():
            return len(active_scopes())

    with ThreadPoolExecutor(1) as pool, P.cached(model) as scope:
        context = contextvars.copy_context()
        assert pool.submit(context.run, work).result() == 2
        assert not scope.is_closed
