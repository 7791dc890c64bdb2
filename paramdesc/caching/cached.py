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
from paramdesc.caching.meeting import Meeting
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

    A value is reused only while a new evaluation would give the same result. This requires that the
    originals and everything else that the parametrizations use are unchanged, that grad mode,
    inference mode, autocast, training flags, tracing and transforms are the same, and that no
    backward pass has gone through the value. Otherwise it is evaluated again. So optimizer steps,
    several backward passes, assignments and conversions all work inside the block.

    A block applies to the thread or asyncio task that enters it, and to tasks started inside.
    Blocks can be nested: a value belongs to the outermost block that covers it, and outlives the
    inner ones. Iterables are read when `cached` is called, and targets are searched when the block
    is entered, so parametrizations that are registered inside are covered only by a block without
    targets. Entering the same object again repeats the search only if a parametrization was
    registered in the meantime; otherwise the time to enter does not depend on the size of the
    model.

    Args:
        targets: modules (with all parametrizations in them and their submodules),
            `ParametrizationList`s, and sets or iterables of these. Without targets, every
            parametrization is covered; an empty set covers none.
        persistent: whether values outlive the block if they need no gradient and their maps are in
            evaluation mode. They are kept in this object until something that they depend on
            changes, and are shared by all threads and tasks that enter it: one evaluates, and the
            others wait. Requires targets, which are searched once.
        check_contents: whether each entry checks that the tensors behind the values that outlive
            the block have not changed, by comparing a sample of about 64 entries of each tensor.
            This detects writes that do not increase the tensor's version, such as writes through
            `.data` or by a collective. By default, only tensors on a CPU are compared (a few
            microseconds each); with True, those on other devices are too, which synchronizes with
            the device.
        deferred: whether reads return leaf tensors for values that need a gradient. Backward passes
            stop there and their gradients are summed; at the end of the block, or in
            `scope.backward()`, the backward pass of the maps runs once. If an exception ends the
            block, the sums are discarded, and the `.grad` of the originals is unchanged. Backward
            passes must reach the values inside the block. Call `scope.backward()` before anything
            that reads or clears the `.grad` of originals: `zero_grad`, clipping,
            `GradScaler.unscale_`, `Optimizer.step`.
        batched: whether to evaluate tensors together if they have the same maps with the same
            settings, and the same shapes, dtypes and devices. The first read of one evaluates all
            covered tensors of its group, with `torch.func.vmap` or in the batch dimension of the
            maps; on a CPU, this is done only for tensors small enough to benefit. All others are
            evaluated one by one. The values share one graph, so a backward pass through one of them
            frees the graph of all. Requires targets.
        process_group: processes that hold the same model, as under DistributedDataParallel, and run
            the same code. With `batched`, each of them evaluates a part of the tensors of a group
            and receives the values of the others. After averaging over the processes, the gradients
            are the same as without this option. Values that outlive the block, maps with a warm
            start, and your own maps are evaluated by each process, and so is everything in
            DistributedDataParallel with `find_unused_parameters=True` or inside `join()`. Processes
            that do not read the same tensors, or do not run the same backward passes, raise an
            error. One that does not come at all is waited for until the timeout of the group.

    Raises:
        TypeError: if a target is of another type.
        DividedBatchError: a RuntimeError, with `process_group`, in all processes, if they do not do
            the same.
        RuntimeError: with `deferred`, where gradients would be wrong or lost: for a backward pass
            after the block or with `create_graph=True`; for a step, `zero_grad`, unscaling or
            clipping before `scope.backward()`; in DistributedDataParallel with a search for unused
            parameters; and for a gradient that enters or leaves the capture of a CUDA graph.

    >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", Symmetric())
    >>> with cached(linear) as scope:
    ...     first, second = linear.weight, linear.weight
    >>> first is second, scope.misses, scope.hits, len(scope)
    (True, 1, 1, 0)

    As a decorator, it opens a new scope for each call of the function:

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
                "check_contents= applies to values that outlive the block, which requires "
                "persistent=True. Write cached(..., persistent=True, "
                f"check_contents={check_contents})."
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
            meeting=None if self._process_group is None else Meeting(self._process_group),
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
                f"cannot decorate the generator {function.__qualname__}: between its steps, the "
                "block would also apply to its caller. Write `with cached(...):` inside it."
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
    """The first names, followed by the number of all of them."""
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown or "nothing"
