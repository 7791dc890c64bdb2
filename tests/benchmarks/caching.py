"""Caches in the loops of serving and training. Writes docs/cost.svg and its part of a page.

That page is docs/guide/loops.md. Every weight is orthogonal by a matrix exponential, as
`paramdesc.parametrizations.orthogonal` and torch's function of that name make it by default.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from threading import Barrier, Thread
from time import perf_counter
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as theirs
from torch.nn.utils import parametrize
from torch.profiler import ProfilerActivity, profile

from paramdesc import auto_cache, cached
from paramdesc import parametrizations as ours
from tests.benchmarks.table import Goal, Table, main
from tests.benchmarks.timing import Clock, Series, clocked, environment, in_turns, statement
from tests.benchmarks.training import Cell

__all__ = ["tables"]

DOCS = Path(__file__).parents[2] / "docs"
PAGE, PICTURE = DOCS / "guide" / "loops.md", DOCS / "cost.svg"
BEGIN, END = "<!-- written by python -m tests.benchmarks.caching -->\n", "<!-- up to here -->\n"

PLAIN, BY_HAND = "plain, not orthogonal", "by hand, evaluated once"
UNCACHED, CACHED, DEFERRED, AUTO = (
    f"paramdesc, {how}" for how in ("uncached", "cached", "cached, deferred", "auto_cache")
)
ONCE, PER_REQUEST = (
    f"paramdesc, persistent, entered {when}" for when in ("once", "for each request")
)
TORCH, TORCH_CACHED, GEOTORCH = "torch, uncached", "torch, cached", "geotorch, uncached"
SAME_MAP = "torch's engine with paramdesc's map, cached"
AGAIN = "paramdesc, persistent, entered again"
REFERENCE = "plain, and one evaluation and backward of the map"

THREADS = 8
ROUNDS = {1: 15, 4: 7, 16: 3, 64: 2, 256: 1}
"""How often the slow loops of the picture run, by the number of calls."""

# in the middle between white and black, so that they are read on light and on dark pages
GRAY, RED, BLUE, GREEN, VIOLET, ORANGE, GRID = (
    "#767a80",
    "#d2483c",
    "#2f7fc4",
    "#2e8a57",
    "#9a62c6",
    "#b06f14",
    "#80808055",
)
LINES = {
    PLAIN: (GRAY, ":"),
    TORCH: (RED, "-"),
    TORCH_CACHED: (RED, "--"),
    UNCACHED: (BLUE, "-"),
    CACHED: (ORANGE, "--"),
    DEFERRED: (GREEN, "-"),
    AGAIN: (VIOLET, "-"),
}
STYLE: Any = {
    "axes.edgecolor": GRAY,
    "axes.labelcolor": GRAY,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "paramdesc",
    "text.color": GRAY,
    "xtick.color": GRAY,
    "ytick.color": GRAY,
}

M = TypeVar("M", bound=nn.Module)
Scope = Callable[[], AbstractContextManager[Any]]
Step = Callable[[], None]


def tables(quick: bool) -> Iterator[Table]:
    found = []
    for table in measured(quick):
        found.append(table)
        yield table
    if not quick:
        *loops, forward, training = found
        write_part(loops)
        draw(forward, training)


def measured(quick: bool) -> Iterator[Table]:
    size = 16 if quick else 256
    yield serving(size, (1, 2) if quick else (1, 8, 32, 128), quick)
    yield micro_batches(size, 2 if quick else 16, quick)
    yield windows(*((8, 2, 2) if quick else (128, 8, 25)), quick)
    yield peaks(*((8, 3) if quick else (256, 200)))
    yield threads(size, (2,) if quick else (32, 128), quick)
    yield forward_cost(size, quick)
    yield training_cost(size, quick)


# models


def orthogonal(library: Any, model: M, path: str = "weight") -> M:
    """The model with an orthogonal tensor, some way from where it was registered.

    There, torch's exponential is that of zero, which takes it less time than any other.
    """
    *submodule, name = path.split(".")
    module: Any = model.get_submodule(".".join(submodule))
    library.orthogonal(module, name)
    with torch.no_grad():
        for original in module.parametrizations[name].parameters():
            original.add_(torch.randn(original.shape).tril(-1) / original.shape[-1] ** 0.5)
    return model


def layer(size: int, library: Any = None) -> nn.Linear:
    """Without a library, a plain one."""
    torch.manual_seed(0)
    linear = nn.Linear(size, size)
    return linear if library is None else orthogonal(library, linear)


def automatic(model: M) -> M:
    auto_cache(model)
    return model


def with_geotorch(make: Callable[[Any], nn.Module]) -> dict[str, nn.Module]:
    """The model of geotorch, where that is installed."""
    with contextlib.suppress(ModuleNotFoundError):
        return {GEOTORCH: make(importlib.import_module("geotorch"))}
    return {}


class Recurrent(nn.Module):
    """Reads a window, which begins in some state, and gives the last state."""

    def __init__(self, size: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = Cell(size)

    def forward(self, window: Tensor, state: Tensor, kernel: Tensor | None = None) -> Tensor:
        for x in window:
            state = self.cell(x, state, kernel)
        return state


def recurrent(size: int, library: Any = None) -> Recurrent:
    model = Recurrent(size)
    return model if library is None else orthogonal(library, model, "cell.kernel")


# serving


def served(
    model: nn.Module,
    x: Tensor,
    times: int,
    scope: Scope = nullcontext,
    request: Scope | None = None,
) -> Clock:
    """A clock for one of that many calls, in one scope, or each in a `request` of its own."""
    source = "model(x)" if request is None else "with request(): model(x)"
    calls = statement(source, times, model=model.eval(), x=x, request=request)

    def clock() -> float:
        with torch.inference_mode(), scope():
            model(x)
            return calls() / times

    return clock


def serving(size: int, batches: Sequence[int], quick: bool) -> Table:
    """One layer that answers requests."""
    found = {batch: serve(size, batch, quick) for batch in batches}
    names = list(next(iter(found.values())))
    goals = [
        Goal(f"{name}, batch {batches[-1]}, in plain calls,", 1.15, found[batches[-1]][name][0])
        for name in (ONCE, PER_REQUEST, AUTO)
    ]
    plain = ", ".join(f"{found[batch][PLAIN][1]:.3g}" for batch in batches)
    return Table(
        "Serving",
        f"A call of one `nn.Linear` of size {size} in `torch.inference_mode()`, in calls of a "
        f"plain one, for several sizes of the batch. A plain call takes {plain} microseconds.",
        tuple(f"batch {batch}" for batch in batches),
        {name: tuple(found[batch][name][0] for batch in batches) for name in names},
        goals,
        [
            f"The goal is stated for the batch at which torch's engine takes some 26 times a "
            f"plain call, here {batches[-1]}. The checks take the same time at any batch, so "
            "they weigh more beside a smaller one.",
            "torch's scope that is entered once checks nothing: it goes on answering with the old "
            "weight after an assignment, `load_state_dict` or a conversion, and all threads "
            "share it. paramdesc's values are checked at each read.",
        ],
    )


def serve(size: int, batch: int, quick: bool) -> dict[str, tuple[float, float]]:
    """By case, the time of a call in plain ones, and in microseconds."""
    x, (few, many) = torch.randn(batch, size), (1, 2) if quick else (4, 200)
    plain, mine, peer = layer(size), layer(size, ours), layer(size, theirs)
    kept, per_request = (cached(mine, persistent=True) for _ in range(2))
    slow = {
        TORCH: served(peer, x, few),
        f"{TORCH_CACHED} for each request": served(peer, x, few, request=parametrize.cached),
        **{
            name: served(model, x, few)
            for name, model in with_geotorch(partial(layer, size)).items()
        },
        UNCACHED: served(mine, x, few),
        f"{CACHED} for each request": served(mine, x, few, request=partial(cached, mine)),
    }
    fast = {
        f"{TORCH_CACHED}, entered once": served(peer, x, many, parametrize.cached),
        ONCE: served(mine, x, many, lambda: kept),
        PER_REQUEST: served(mine, x, many, request=lambda: per_request),
        AUTO: served(automatic(layer(size, ours)), x, many),
    }
    reference = {PLAIN: served(plain, x, many)}
    found: dict[str, tuple[float, float]] = {}
    for cases, rounds in ((slow, 5), (fast, 31)):
        series = in_turns(reference | cases, 1 if quick else rounds)
        for name in reference | cases:
            found[name] = series.ratio(name, PLAIN), series.median(name) * 1e6
    return found


# training


def accumulation(
    model: nn.Module,
    batches: Sequence[Tensor],
    scope: Scope = nullcontext,
    each: Scope = nullcontext,
) -> Step:
    """Gradients of some batches, in one scope, or each of them in one."""

    def step() -> None:
        model.zero_grad()
        with scope():
            for x in batches:
                with each():
                    model(x).square().mean().backward()

    return step


def truncated(
    model: nn.Module,
    inputs: Tensor,
    state: Tensor,
    scope: Scope = nullcontext,
    each: Scope = nullcontext,
) -> Step:
    """Gradients of some windows, which end at the beginning of each."""

    def step() -> None:
        model.zero_grad()
        with scope():
            last = state
            for window in inputs:
                with each():
                    last = model(window, last.detach())
                    last.square().mean().backward()

    return step


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
    reference = {PLAIN: plain, REFERENCE: with_map(plain, module, name)}
    fast = {DEFERRED: step(mine, partial(cached, mine, deferred=True))}
    slow = {
        CACHED: step(mine, partial(cached, mine)),
        AUTO: step(automatic(make(ours))),
        UNCACHED: step(mine),
        TORCH_CACHED: step(peer, each=parametrize.cached),
        TORCH: step(peer),
        **{key: step(model) for key, model in with_geotorch(make).items()},
    }
    clocks = {
        group: {key: clocked(run) for key, run in (reference | cases).items()}
        for group, cases in (("fast", fast), ("slow", slow))
    }
    return in_turns(clocks["fast"], rounds), in_turns(clocks["slow"], max(1, rounds // 7))


def training_table(title: str, text: str, fast: Series, slow: Series, notes: list[str]) -> Table:
    measured = dict.fromkeys(fast.seconds, fast) | dict.fromkeys(slow.seconds, slow)
    measured |= {PLAIN: fast, REFERENCE: fast}
    theirs_to_ours = slow.ratio(TORCH, REFERENCE) / fast.ratio(DEFERRED, REFERENCE)
    return Table(
        title,
        text,
        ("times the reference", "milliseconds"),
        {
            name: (series.ratio(name, REFERENCE), series.median(name) * 1e3)
            for name, series in measured.items()
        },
        [Goal("deferred, in times the reference,", 1.2, fast.ratio(DEFERRED, REFERENCE))],
        [
            f"torch's, uncached, takes {theirs_to_ours:.3g} times as long as the deferred one.",
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
        f"Forward and backward of {count} micro-batches of {len(batches[0])} through one "
        f"`nn.Linear` of size {size}. The reference is the same loop with a plain layer, and "
        "after it one evaluation and one backward pass of paramdesc's map with a given gradient.",
        fast,
        slow,
        [
            "A scope without `deferred=True` evaluates again after each backward pass. torch's "
            "raises there, so it is entered for each micro-batch: around all of them it ends in "
            "`RuntimeError: Trying to backward through the graph a second time`."
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
        f"Forward and backward of {count} windows of {length} steps each, with a batch of {batch}, "
        f"through a recurrent cell whose {size} x {size} kernel is orthogonal. The state is "
        "detached between windows; the model that is called for `auto_cache` reads a window. The "
        "reference is the same with a plain kernel, and one evaluation and one backward pass of "
        "paramdesc's map.",
        fast,
        slow,
        ["torch's scope is entered for each window."],
    )


# memory


def peak(function: Callable[[], object]) -> int:
    """The largest number of bytes that tensors hold at one time which `function` has made.

    It must free no other ones.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    results: Any = profiler.profiler
    events = below(results.kineto_results.experimental_event_tree())
    held = [0]
    for event in sorted(events, key=lambda event: int(event.start_time_ns)):
        if event.tag == torch._C._profiler._EventType.Allocation:
            held.append(held[-1] + event.extra_fields.alloc_size)
    assert min(held) == 0
    return max(held)


def below(roots: Sequence[Any]) -> list[Any]:
    """All events of these trees."""
    found = list(roots)
    for event in found:  # it grows
        found += event.children
    return found


def known_case() -> None:
    """Three tensors of 4096 bytes, of which two live at one time."""
    first = torch.ones(1024)
    second = first + first
    del first
    second.mul(second)


def peaks(size: int, length: int) -> Table:
    assert peak(known_case) == 2 * 4096
    inputs, state = torch.randn(1, length, 32, 1), torch.zeros(32, size)
    mine, peer, mixed = recurrent(size, ours), recurrent(size, theirs), Recurrent(size)
    parametrize.register_parametrization(mixed.cell, "kernel", ours.TorchOrthogonal("matrix_exp"))
    mine_too = automatic(recurrent(size, ours))
    steps: dict[str, tuple[nn.Module, Step]] = {
        BY_HAND: (
            mine,
            lambda: mine(inputs[0], state, mine.cell.kernel).square().mean().backward(),
        ),
        CACHED: (mine, truncated(mine, inputs, state, partial(cached, mine))),
        DEFERRED: (mine, truncated(mine, inputs, state, partial(cached, mine, deferred=True))),
        AUTO: (mine_too, truncated(mine_too, inputs, state)),
        SAME_MAP: (mixed, truncated(mixed, inputs, state, parametrize.cached)),
        TORCH_CACHED: (peer, truncated(peer, inputs, state, parametrize.cached)),
        UNCACHED: (mine, truncated(mine, inputs, state)),
        TORCH: (peer, truncated(peer, inputs, state)),
    }
    found = {}
    for name, (model, step) in steps.items():
        model.zero_grad()  # nothing of another case may be freed while it is measured
        found[name] = peak(step)
    return Table(
        f"Peak memory of {length} recurrent steps",
        f"Forward and backward of a cell with an orthogonal {size} x {size} kernel over {length} "
        "steps, with a batch of 32: the most that its tensors hold at one time, gradients "
        "included, models and inputs not. Counted by torch's profiler, allocation by allocation.",
        ("times by hand", "MiB"),
        {name: (size / found[BY_HAND], size / 2**20) for name, size in found.items()},
        [
            Goal(f"{name}, in the memory of torch's cached,", 1, found[name] / found[TORCH_CACHED])
            for name in (CACHED, DEFERRED, AUTO)
        ],
    )


# threads


def concurrently(
    model: nn.Module,
    x: Tensor,
    requests: int,
    scope: Scope = nullcontext,
    request: Scope | None = None,
) -> Clock:
    """A clock on the wall for one of that many requests, which all threads share.

    Each of them enters `scope` once, and `request` for each request.
    """
    model.eval()
    share = max(1, requests // THREADS)

    def clock() -> float:
        barrier = Barrier(THREADS + 1)

        def serve() -> None:
            with torch.inference_mode(), scope():
                barrier.wait()
                for _ in range(share):
                    if request is None:
                        model(x)
                    else:
                        with request():
                            model(x)

        workers = [Thread(target=serve) for _ in range(THREADS)]
        for worker in workers:
            worker.start()
        barrier.wait()
        start = perf_counter()
        for worker in workers:
            worker.join()
        return (perf_counter() - start) / (share * THREADS)

    return clock


def threads(size: int, batches: Sequence[int], quick: bool) -> Table:
    found = {batch: serve_in_threads(size, batch, quick) for batch in batches}
    names = list(next(iter(found.values())).seconds)
    columns = [what for batch in batches for what in (f"batch {batch}, of plain", "per second")]
    return Table(
        "Eight threads that serve one model",
        f"The throughput of {THREADS} Python threads that call one `nn.Linear` of size {size}, by "
        f"the clock on the wall, on {os.cpu_count()} cores: as a fraction of that of a plain "
        "model, and in requests.",
        tuple(columns),
        {
            name: tuple(
                figure
                for series in found.values()
                for figure in (1 / series.ratio(name, PLAIN), 1 / series.median(name))
            )
            for name in names
        },
        [
            Goal(f"the time of {name}, batch {batch}, in plain,", 1.176, series.ratio(name, PLAIN))
            for batch, series in found.items()
            for name in (ONCE, PER_REQUEST, AUTO)
        ],
        ["1.176 times the time is 0.85 of the throughput."],
    )


def serve_in_threads(size: int, batch: int, quick: bool) -> Series:
    few, many = (THREADS, THREADS) if quick else (2 * THREADS, 250 * THREADS)
    x, mine = torch.randn(batch, size), layer(size, ours)
    kept, per_request = (cached(mine, persistent=True) for _ in range(2))
    return in_turns(
        {
            PLAIN: concurrently(layer(size), x, many),
            ONCE: concurrently(mine, x, many, lambda: kept),
            PER_REQUEST: concurrently(mine, x, many, request=lambda: per_request),
            AUTO: concurrently(automatic(layer(size, ours)), x, many),
            UNCACHED: concurrently(mine, x, few),
            TORCH: concurrently(layer(size, theirs), x, few),
        },
        1 if quick else 15,
    )


# the picture


Loops = Mapping[str, Callable[[int], Step]]
"""By case, the loop of so many calls."""


def forward_cost(size: int, quick: bool) -> Table:
    x = torch.randn(2 if quick else 32, size)
    mine, peer = layer(size, ours), layer(size, theirs)
    kept = cached(mine, persistent=True)

    def calls(model: nn.Module, count: int, scope: Scope = nullcontext) -> Step:
        model.eval()

        def run() -> None:
            with torch.inference_mode(), scope():
                for _ in range(count):
                    model(x)

        return run

    return cost(
        "Cost of a call by their number, forward",
        f"Milliseconds for each of so many calls of an `nn.Linear` of size {size} in one loop, "
        f"with a batch of {len(x)} in `torch.inference_mode()`.",
        {
            TORCH: partial(calls, peer),
            UNCACHED: partial(calls, mine),
        },
        {
            TORCH_CACHED: partial(calls, peer, scope=parametrize.cached),
            CACHED: partial(calls, mine, scope=partial(cached, mine)),
            AGAIN: partial(calls, mine, scope=lambda: kept),
            PLAIN: partial(calls, layer(size)),
        },
        quick,
    )


def training_cost(size: int, quick: bool) -> Table:
    x = torch.randn(2 if quick else 32, size)
    mine, peer = layer(size, ours), layer(size, theirs)

    def passes(model: nn.Module, count: int, scope: Scope = nullcontext) -> Step:
        return accumulation(model, [x] * count, scope)

    return cost(
        "Cost of a micro-batch by their number, forward and backward",
        f"Milliseconds for each of so many micro-batches of {len(x)}, through the same layer.",
        {
            TORCH: partial(passes, peer),
            UNCACHED: partial(passes, mine),
            CACHED: partial(passes, mine, scope=partial(cached, mine)),
        },
        {
            DEFERRED: partial(passes, mine, scope=partial(cached, mine, deferred=True)),
            PLAIN: partial(passes, layer(size)),
        },
        quick,
    )


def cost(title: str, text: str, slow: Loops, fast: Loops, quick: bool) -> Table:
    """The time of one call in loops of growing length, in slow ones of fewer rounds."""
    found: dict[str, list[float]] = {name: [] for name in (*slow, *fast)}
    rounds_of = dict.fromkeys((1, 2), 1) if quick else ROUNDS
    for count, rounds in rounds_of.items():
        for loops, times in ((slow, rounds), (fast, 1 if quick else 15)):
            clocks = {name: clocked(loop(count)) for name, loop in loops.items()}
            series = in_turns(clocks, times)
            for name in loops:
                found[name].append(series.median(name) / count * 1e3)
    columns = tuple(map(str, rounds_of))
    return Table(title, text, columns, {name: tuple(row) for name, row in found.items()})


def draw(*panels: Table) -> None:
    """The costs as curves, on one picture for light and dark pages."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.7, 6.6), layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_alpha(0)
        for axes, table in zip(figure.subplots(len(panels), sharex=True), panels, strict=True):
            draw_curves(axes, table)
        axes.set_xlabel("number of calls in the loop")
        figure.savefig(PICTURE, metadata={"Date": None})


def draw_curves(axes: Any, table: Table) -> None:
    """Each case as a line, with its name at the end, and no name on another."""
    counts = [int(column) for column in table.columns]
    axes.set(xscale="log", yscale="log", ylabel="milliseconds per call")
    axes.set_title(table.title.partition(", ")[2], loc="left", fontsize=10)
    axes.set_xticks(counts, map(str, counts))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.grid(color=GRID, linewidth=0.5)
    axes.patch.set_alpha(0)
    ends = {name: row[-1] or 0 for name, row in table.rows.items()}
    low, high = (
        math.log(f(x or 1 for row in table.rows.values() for x in row)) for f in (min, max)
    )
    gap, place = (high - low) / 14, -math.inf
    for name in sorted(ends, key=lambda name: ends[name]):
        color, dashes = LINES[name]
        axes.plot(counts, table.rows[name], dashes, color=color, marker="o", markersize=3.5)
        place = max(place + gap, math.log(ends[name]))
        axes.annotate(
            name,
            (counts[-1], ends[name]),
            (counts[-1] * 1.35, math.exp(place)),
            color=color,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6, "relpos": (0, 0.5)},
        )


# the page


def write_part(tables: Sequence[Table]) -> None:
    """Into the page, between two marks."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    assert END in rest, f"{PAGE} lacks the marks"
    parts = [f"{environment()}\n", *(f"#{table.markdown()}" for table in tables)]
    PAGE.write_text("".join([before, BEGIN, "\n", "\n".join(parts), "\n", END, after]), "utf-8")


if __name__ == "__main__":
    main(tables, __doc__)
