"""Caches in training loops: micro-batches, and windows of a recurrent cell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as theirs
from torch.nn.utils import parametrize

from paramdesc import cached
from paramdesc import parametrizations as ours
from tests.benchmarks.caches import ways
from tests.benchmarks.caches.models import Scope, Step, automatic, layer, recurrent, with_geotorch
from tests.benchmarks.table import Goal, Table
from tests.benchmarks.timing import Series, clocked, in_turns

REFERENCE = "plain, plus computing the weight once"


def passes(
    model: nn.Module,
    inputs: Iterable[Tensor],
    call: Callable[[Tensor, Tensor | None], Tensor],
    scope: Scope,
    each: Scope,
) -> Step:
    """Forward and backward of all `inputs`, in one scope, or each of them in one.

    The model is called by `call`, with an input and what it gave for the one before.
    """

    def step() -> None:
        model.zero_grad()
        output = None
        with scope():
            for x in inputs:
                with each():
                    output = call(x, output)
                    torch.autograd.backward(output.square().mean())

    return step


def accumulation(
    model: nn.Module,
    batches: Sequence[Tensor],
    scope: Scope = nullcontext,
    each: Scope = nullcontext,
) -> Step:
    """Gradients of some batches."""
    return passes(model, batches, lambda x, _: model(x), scope, each)


def truncated(
    model: nn.Module,
    inputs: Tensor,
    state: Tensor,
    scope: Scope = nullcontext,
    each: Scope = nullcontext,
) -> Step:
    """Gradients of some windows, which end at the beginning of each."""

    def call(window: Tensor, last: Tensor | None) -> Tensor:
        y: Tensor = model(window, state if last is None else last.detach())
        return y

    return passes(model, inputs, call, scope, each)


def with_map(step: Step, module: Any, name: str) -> Step:
    """That, and one evaluation and one backward pass of the map on a tensor."""
    gradient = torch.randn(module.get_parameter(f"parametrizations.{name}.original").shape)

    def both() -> None:
        step()
        module.zero_grad()
        getattr(module, name).backward(gradient)

    return both


def compared(
    make: Callable[[Any], nn.Module], step: Callable[..., Step], path: str, rounds: int
) -> tuple[Series, Series]:
    """A training loop in all ways: those that evaluate once, and those that do so more often."""
    mine, peer = make(ours), make(theirs)
    *submodule, name = path.split(".")
    module = mine.get_submodule(".".join(submodule))
    plain = step(make(None))
    # the plain loop comes first: after a case that has freed much memory, the next one is slow
    reference = {ways.PLAIN: plain, REFERENCE: with_map(plain, module, name)}
    fast = {ways.DEFERRED: step(mine, partial(cached, mine, deferred=True))}
    slow = {
        ways.CACHED: step(mine, partial(cached, mine)),
        ways.AUTO: step(automatic(make(ours))),
        ways.UNCACHED: step(mine),
        ways.TORCH_CACHED: step(peer, each=parametrize.cached),
        ways.TORCH: step(peer),
        **{key: step(model) for key, model in with_geotorch(make).items()},
    }
    clocks = {
        group: {key: clocked(run) for key, run in (reference | cases).items()}
        for group, cases in (("fast", fast), ("slow", slow))
    }
    return in_turns(clocks["fast"], rounds), in_turns(clocks["slow"], max(1, rounds // 7))


def training_table(title: str, text: str, fast: Series, slow: Series, notes: list[str]) -> Table:
    measured = dict.fromkeys(fast.seconds, fast) | dict.fromkeys(slow.seconds, slow)
    measured |= {ways.PLAIN: fast, REFERENCE: fast}
    theirs_to_ours = slow.ratio(ways.TORCH, REFERENCE) / fast.ratio(ways.DEFERRED, REFERENCE)
    return Table(
        title,
        text,
        ("times the reference", "milliseconds"),
        {
            name: (series.ratio(name, REFERENCE), series.median(name) * 1e3)
            for name, series in measured.items()
        },
        [Goal("deferred, in times the reference,", 1.2, fast.ratio(ways.DEFERRED, REFERENCE))],
        [
            f"torch without a cache takes {theirs_to_ours:.3g} times as long as paramdesc with "
            "deferred gradients.",
            *notes,
        ],
    )


def micro_batches(size: int, count: int, quick: bool) -> Table:
    batches = list(torch.randn(count, 2 if quick else 32, size))
    fast, slow = compared(
        partial(layer, size),
        lambda model, *scopes, **each: accumulation(model, batches, *scopes, **each),
        "weight",
        1 if quick else 21,
    )
    return training_table(
        f"Gradient accumulation over {count} micro-batches",
        f"The time of the forward and backward passes of {count} micro-batches of "
        f"{len(batches[0])} through one `nn.Linear` of size {size}. The reference is the same loop "
        "with a plain layer, plus one forward and one backward pass of the parametrization.",
        fast,
        slow,
        [
            "Without `deferred=True`, paramdesc computes the weight again after each backward "
            "pass. torch's cache raises `RuntimeError: Trying to backward through the graph a "
            "second time`, so it has to be entered for each micro-batch."
        ],
    )


def windows(size: int, count: int, length: int, quick: bool) -> Table:
    batch = 2 if quick else 32
    inputs, state = torch.randn(count, length, batch, 1), torch.zeros(batch, size)
    fast, slow = compared(
        partial(recurrent, size),
        lambda model, *scopes, **each: truncated(model, inputs, state, *scopes, **each),
        "cell.kernel",
        1 if quick else 21,
    )
    return training_table(
        f"Truncated backpropagation through {count} windows",
        f"The time of the forward and backward passes of {count} windows of {length} steps with a "
        f"batch of {batch}, through a recurrent cell with an orthogonal {size} x {size} weight. "
        "The state is detached between windows. With `auto_cache`, a call of the model processes "
        "one window. The reference is the same with a plain weight, plus one forward and one "
        "backward pass of the parametrization.",
        fast,
        slow,
        ["torch's cache is entered for each window."],
    )
