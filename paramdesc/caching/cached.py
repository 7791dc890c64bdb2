"""`cached`, the context manager and decorator that opens a scope."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from html import escape
from typing import Any, ParamSpec, TypeVar

from paramdesc.caching.active import end_scope, end_traced, innermost_of, open_scope
from paramdesc.caching.contents import look_again
from paramdesc.caching.coverage import Search
from paramdesc.caching.deferral import Deferral
from paramdesc.caching.left_open import remember_opener
from paramdesc.caching.programs import open_programs
from paramdesc.caching.scopes import Scope
from paramdesc.caching.targets import Target, get_covered
from paramdesc.errors import CacheTargetError
from paramdesc.torch_internals.dynamo import is_dynamo_compiling
from paramdesc.torch_internals.locks import ProcessLock

__all__ = ["cached"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_FIRST_ENTRY = ProcessLock()


class cached:
    """Evaluate each parametrized tensor at most once inside the block, and free it at the end.

    A value is used again only while a fresh evaluation would give the same one: while the
    originals and whatever the maps use are unchanged, and grad mode, inference mode, autocast,
    training flags, tracing and transforms are the same; and only until a backward pass has gone
    through it. Otherwise it is evaluated again. So optimizer steps, further backward passes,
    assignments and conversions are fine inside the block.

    A scope is visible to the thread or asyncio task that opens it, and to tasks started
    inside. Scopes nest: a value belongs to the outermost scope that covers it, and outlives
    the inner ones. An iterable is read when `cached` is called, and the targets are searched when
    the block is entered: parametrizations that are registered inside it are covered only by a
    scope without targets. An object that is entered again searches again if a parametrization
    was made meanwhile; otherwise entering it takes the same time for all models.

    Args:
        targets: modules (all parametrizations below them), `ParametrizationList`s, and sets
            or iterables of them. Without targets, every parametrization is covered; an empty
            set covers none.
        persistent: whether values that need no gradient, of maps in evaluation mode, outlive
            the block. They are kept in this object until something that they depend on changes,
            and are shared by all threads and tasks that enter it: one evaluates, the others
            wait. Needs targets, which are searched once.
        check_contents: whether values that outlive the block are compared with their tensors
            at each entry, by a sample of about 64 entries of each tensor. This finds writes that
            torch does not count: through `.data`, or by a collective. By default, tensors on a
            CPU are compared (some microseconds each); with True also those on other devices,
            which waits for the device.
        deferred: whether values that need a gradient are handed out as leaves. Backward
            passes end there and add up; the end of the block, or `scope.backward()`, runs the
            backward pass of the maps once. If an exception ends the block, the sums are dropped,
            and the `.grad` of the originals is as before. Backward passes must reach the values
            inside the block. Call `scope.backward()` before anything that reads or clears
            `.grad` of originals: `zero_grad`, clipping, `GradScaler.unscale_`,
            `Optimizer.step`.
        batched: whether tensors that are parametrized alike are evaluated together: the same maps
            with the same settings, and the same shapes, dtypes and devices. The first read of one
            evaluates all of them that are covered, by `torch.func.vmap` or in the batch dimension
            of the maps; on a CPU, only those small enough for it to pay. What cannot be evaluated
            together is evaluated one by one. The values share one graph: a backward pass through
            one of them frees the graph of all. Needs targets.
        process_group: processes that have the same model, as under DistributedDataParallel, and
            run the same code. With `batched`, each of them evaluates a part of the tensors that
            are alike, and gets the values of the others. The gradients are those without this
            option once they are averaged over the processes. Values that outlive the block, maps
            with a warm start, and maps that you wrote are evaluated by each process.

    Raises:
        TypeError: if a target is anything else.
        RuntimeError: with `deferred`, where gradients would be wrong or lost: a backward pass
            after the scope, or with `create_graph=True`; a step, `zero_grad`, unscaling or
            clipping before `scope.backward()`; DistributedDataParallel that looks for unused
            parameters; a gradient that enters or leaves the capture of a CUDA graph.

    >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", Symmetric())
    >>> with cached(linear) as scope:
    ...     first, second = linear.weight, linear.weight
    >>> first is second, scope.misses, scope.hits, len(scope)
    (True, 1, 1, 0)

    As a decorator, each call of the function has a scope of its own:

    >>> @cached()
    ... def loss(linear, inputs):
    ...     return linear(linear(inputs)).sum()
    """

    def __init__(
        self,
        *targets: Target,
        persistent: bool = False,
        deferred: bool = False,
        check_contents: bool | None = None,
        batched: bool = False,
        process_group: Any = None,
    ) -> None:
        if process_group is not None and not batched:
            raise TypeError(
                "process_group= divides batches between processes. Write cached(model, "
                "batched=True, process_group=group)."
            )
        if persistent and not targets:
            raise CacheTargetError.persistent()
        if batched and not targets:
            raise CacheTargetError.batched()
        if check_contents is not None and not persistent:
            raise TypeError(
                "check_contents= is about values that outlive the block, and these are kept with "
                "persistent=True only. Write cached(..., persistent=True, check_contents="
                f"{check_contents})."
            )
        self._targets = Search.of(targets) if targets else None
        self._persistent = persistent
        self._deferred = deferred
        self._check_contents = check_contents
        self._batched = batched
        self._process_group = process_group
        self._lasting: Scope | None = None
        self._scopes: list[Scope] = []

    def __enter__(self) -> Scope:
        lasting = None
        if self._persistent and not is_dynamo_compiling():
            with _FIRST_ENTRY():
                if self._lasting is None:
                    self._lasting = Scope(
                        self._covered(),
                        lasts=True,
                        entries={},
                        records={},
                        check_contents=self._check_contents,
                        batched=self._batched,
                    )
            lasting = self._lasting.view()
            look_again()
        covered = self._covered() if lasting is None else lasting.covered
        deferral = Deferral() if self._deferred and not is_dynamo_compiling() else None
        records = None if lasting is None else lasting.records
        scope = Scope(
            covered,
            lasting=lasting,
            deferral=deferral,
            records=records,
            batched=self._batched,
            process_group=self._process_group,
        )
        if is_dynamo_compiling():
            self._scopes.append(scope)
            open_scope(scope)
            return scope
        remember_opener(scope, sys._getframe(1))
        try:
            if covered is not None:
                open_programs(covered.programs(), scope.programs)
            self._scopes.append(scope)
            open_scope(scope)
            return scope  # inside the try: an interrupt right after open_scope must be handled
        except BaseException as error:
            end_scope(scope, self._scopes, error)
            raise

    def __getstate__(self) -> dict[str, Any]:
        """The settings. A copy shares neither values nor open scopes."""
        return {**self.__dict__, "_lasting": None, "_scopes": []}

    def __repr__(self) -> str:
        covered = self._covered()
        names = (
            None
            if covered is None
            else [name or f"{chain.host}.{chain.tensor_name}" for chain, name in covered.items()]
        )
        settings = [
            name for name in ("persistent", "deferred", "batched") if getattr(self, f"_{name}")
        ]
        shown = "everything" if names is None else shorten(names)
        return f"<cached: {', '.join([shown, *settings])}>"

    def _repr_html_(self) -> str:
        shown = f"<div>{escape(repr(self))}</div>"
        if self._lasting is None:
            return shown
        return f"{shown}{self._lasting.report()._repr_html_()}"

    def _covered(self) -> Any:
        if self._targets is None:
            return None
        if is_dynamo_compiling():
            return get_covered(self._targets.modules)
        return self._targets.covered()

    def __exit__(self, *exception: object) -> None:
        scope = None
        try:
            if is_dynamo_compiling():
                end_traced(self._scopes)
                return
            scope = innermost_of(self._scopes)
            error = next((x for x in exception if isinstance(x, BaseException)), None)
            end_scope(scope, self._scopes, error)
        except BaseException as error:
            if not is_dynamo_compiling():  # an interrupt may have stopped end_scope halfway
                found = innermost_of(self._scopes) if scope is None else scope
                end_scope(found, self._scopes, error)
            raise

    def __call__(self, function: Callable[_P, _T]) -> Callable[_P, _T]:
        """Run each call of `function` in a scope of its own. Also works for coroutine functions.

        A persistent scope keeps its values from one call to the next.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"cannot decorate the generator {function.__qualname__}: between its steps the "
                "scope would be its caller's too. Write `with cached(...):` inside of it."
            )

        targets = () if self._targets is None else (self._targets,)
        kept = self if self._persistent else None
        options: Any = {
            "deferred": self._deferred,
            "batched": self._batched,
            "process_group": self._process_group,
        }
        run: Any
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_coroutine(*args: Any, **kwargs: Any) -> Any:
                with kept or cached(*targets, **options):
                    return await function(*args, **kwargs)

            run = run_coroutine
        else:

            @functools.wraps(function)
            def run_function(*args: Any, **kwargs: Any) -> Any:
                # a new one: torch.compile cannot enter a context manager made earlier
                older = None if is_dynamo_compiling() else kept
                with older or cached(*targets, **options):
                    return function(*args, **kwargs)

            run = run_function
        return run  # type: ignore[no-any-return]


def shorten(names: Sequence[str]) -> str:
    """The first names, and how many there are."""
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown or "nothing"
