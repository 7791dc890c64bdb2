"""The tables of docs/gpu.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils import parametrize as torch_engine

import paramdesc as P
from tests.benchmarks.gpu.clocks import Budget, Run, in_turns_on, peak_memory
from tests.benchmarks.gpu.layers import OURS, TORCHS, layer, read_after_a_change, read_and_back
from tests.benchmarks.table import Table
from tests.benchmarks.timing import Series

__all__ = ["COUNT", "Setting", "tables"]

Sizes = tuple[tuple[int, int], ...]
SMALL: Sizes = ((16, 16),)


class Setting(NamedTuple):
    """Where and how long to measure."""

    device: str
    budget: Budget
    quick: bool

    def sizes(self, *sizes: tuple[int, int]) -> Sizes:
        """The sizes to measure. A CPU gets those that it can do."""
        if self.quick:
            return SMALL
        largest = 2**31 if self.device == "cuda" else 512 * 512
        return tuple(size for size in sizes if size[0] * size[1] <= largest)

    def measure(self, cases: dict[str, Run], share: float) -> Series:
        return in_turns_on(self.device, cases, share, self.quick)


def shown(rows: int, columns: int) -> str:
    return f"{rows}" if rows == columns else f"{rows} x {columns}"


def pair(series: Series, mine: str, theirs: str, unit: float = 1e3) -> tuple[float, ...]:
    """Our time, torch's, and their ratio."""
    return (unit * series.median(mine), unit * series.median(theirs), series.ratio(mine, theirs))


MS = ("paramdesc, ms", "torch, ms", "paramdesc / torch")


def compared(
    setting: Setting,
    names: Iterable[tuple[str, str | None]],
    sizes: Sizes,
    run: Callable[[Any], Run],
) -> dict[str, tuple[float | None, ...]]:
    """A row for each size and each of our maps, with torch's beside it."""
    rows: dict[str, tuple[float | None, ...]] = {}
    share = setting.budget.share() / len(sizes)
    for size in sizes:
        cases: dict[str, Run] = {}
        listed = [(mine, theirs) for mine, theirs in names]
        for mine, theirs in listed:
            cases[f"ours {mine}"] = run(layer(OURS[mine], *size, setting.device))
            # torch's maps for orthogonal weights are slow to register, and to run, where large
            if theirs in ("matrix_exp", "householder") and size[0] > 2048:
                theirs = None
            if theirs is not None and f"torch {theirs}" not in cases:
                cases[f"torch {theirs}"] = run(layer(TORCHS[theirs], *size, setting.device))
        series = setting.measure(cases, share)
        for mine, theirs in listed:
            name = f"{mine}, {shown(*size)}"
            if f"torch {theirs}" in cases:
                rows[name] = pair(series, f"ours {mine}", f"torch {theirs}")
            else:
                rows[name] = (1e3 * series.median(f"ours {mine}"), None, None)
    return rows


def host_time(setting: Setting) -> Table:
    """Reads with the identity as map: what the host does besides the maps."""
    holders: dict[str, Any] = {
        "plain": nn.Linear(3, 3, device=setting.device),
        "ours": nn.Linear(3, 3, device=setting.device),
        "torch": nn.Linear(3, 3, device=setting.device),
    }
    P.register_parametrization(holders["ours"], "weight", nn.Identity())
    torch_engine.register_parametrization(holders["torch"], "weight", nn.Identity())

    def reads(holder: Any) -> Run:
        def run() -> None:
            for _ in range(100):
                holder.weight  # noqa: B018

        return run

    def reads_in(scope: Callable[[], Any], holder: Any) -> Run:
        read = reads(holder)

        def run() -> None:
            with scope():
                read()

        return run

    cases = {
        **{f"{name}, uncached": reads(holder) for name, holder in holders.items()},
        "plain, cached": reads_in(P.cached, holders["plain"]),
        "ours, cached": reads_in(P.cached, holders["ours"]),
        "torch, cached": reads_in(torch_engine.cached, holders["torch"]),
    }
    series = setting.measure(cases, setting.budget.share())
    return Table(
        "Host time of a read",
        "`layer.weight` with the identity as its map, in microseconds; cached in a scope, with 100 "
        "reads in each.",
        ("paramdesc", "torch", "plain", "paramdesc / torch"),
        {
            way: (
                1e4 * series.median(f"ours, {way}"),
                1e4 * series.median(f"torch, {way}"),
                1e4 * series.median(f"plain, {way}"),
                series.ratio(f"ours, {way}", f"torch, {way}"),
            )
            for way in ("uncached", "cached")
        },
    )


def spectral(setting: Setting) -> Table:
    sizes = setting.sizes((64, 64), (512, 512), (4096, 4096), (11008, 4096))
    names = (("SpectralNorm", "spectral_norm"), ("spectral_norm", "spectral_norm"))
    return Table(
        "Spectral norm",
        "A read and its backward pass, each after a change of the weight.",
        MS,
        compared(setting, names, sizes, read_after_a_change),
    )


def weight_norm(setting: Setting) -> Table:
    sizes = setting.sizes((64, 64), (1024, 1024), (4096, 4096))
    return Table(
        "Weight norm",
        "A read and its backward pass.",
        MS,
        compared(setting, (("WeightNorm", "WeightNorm"),), sizes, read_and_back),
    )


def orthogonal(setting: Setting) -> Table:
    sizes = setting.sizes((64, 64), (512, 512), (1024, 1024), (2048, 2048), (4096, 4096))
    names = (("cayley", "cayley"), ("matrix_exp", "matrix_exp"), ("householder", None))
    return Table(
        "Orthogonal weights",
        "A read and its backward pass, in float32. torch's householder map takes 13 milliseconds "
        "and more on a GPU and is left out, as is its matrix exponential for size 4096.",
        MS,
        compared(setting, names, sizes, read_and_back),
    )


def polar(setting: Setting) -> Table:
    sizes = setting.sizes((64, 64), (512, 512), (1024, 1024), (2048, 2048))
    return Table(
        "The polar factor",
        "The same for `Orthogonal('polar')`, beside torch's matrix exponential.",
        MS,
        compared(setting, (("polar", "matrix_exp"),), sizes, read_and_back),
    )


def many(setting: Setting) -> Table:
    """A model of many layers, one evaluation of all weights."""
    count, size = (2, 8) if setting.quick else (48, 512 if setting.device == "cuda" else 64)
    share = setting.budget.share() / 3
    rows: dict[str, tuple[float | None, ...]] = {}

    def all_layers(makes: dict[str, Any], name: str) -> Run:
        runs = [
            read_after_a_change(layer(makes[name], size, size, setting.device))
            for _ in range(count)
        ]

        def run() -> None:
            for each in runs:
                each()

        return run

    for mine, theirs in (
        ("SpectralNorm", "spectral_norm"),
        ("cayley", "cayley"),
        ("householder", None),
    ):
        cases = {"ours": all_layers(OURS, mine)}
        if theirs is not None:
            cases["torch"] = all_layers(TORCHS, theirs)
        series = setting.measure(cases, share)
        rows[mine] = (
            pair(series, "ours", "torch") if theirs else (1e3 * series.median("ours"), None, None)
        )
    return Table(
        f"{count} layers",
        f"{count} weights of size {size}, each read and differentiated after a change.",
        MS,
        rows,
    )


def loops(setting: Setting) -> Table:
    """A recurrent cell, and a layer that serves."""
    size, steps = (8, 3) if setting.quick else (256, 100)
    device = setting.device
    cells: dict[str, Any] = {}
    for name, makes in (("plain", OURS), ("ours", OURS), ("torch", TORCHS)):
        torch.manual_seed(0)
        cells[name] = layer(makes["plain" if name == "plain" else "cayley"], size, size, device)
    x = torch.randn(64, size, device=device)

    def recurrence(cell: Any, scope: Callable[[], Any]) -> Run:
        def run() -> None:
            state: Any = x
            with scope():
                for _ in range(steps):
                    state = torch.tanh(cell(state))
            state.sum().backward()

        return run

    def serve(cell: Any, scope: Callable[[], Any]) -> Run:
        def run() -> None:
            with torch.no_grad(), scope():
                cell(x)

        return run

    kept = P.cached(cells["ours"].eval(), persistent=True)
    series = setting.measure(
        {
            "plain": recurrence(cells["plain"], P.cached),
            "ours": recurrence(cells["ours"], P.cached),
            "torch": recurrence(cells["torch"], torch_engine.cached),
            "plain, served": serve(cells["plain"], P.cached),
            "ours, served": serve(cells["ours"], lambda: kept),
            "torch, served": serve(cells["torch"], torch_engine.cached),
        },
        setting.budget.share(),
    )
    return Table(
        "Kept values",
        f"{steps} steps of a recurrence in a scope, and one call of a layer in evaluation, where "
        f"paramdesc keeps the value between the calls; with an orthogonal weight of size {size}.",
        ("paramdesc, ms", "torch, ms", "plain, ms", "paramdesc / torch"),
        {
            row: (
                1e3 * series.median(f"ours{suffix}"),
                1e3 * series.median(f"torch{suffix}"),
                1e3 * series.median(f"plain{suffix}"),
                series.ratio(f"ours{suffix}", f"torch{suffix}"),
            )
            for row, suffix in (("recurrence", ""), ("one request", ", served"))
        },
    )


def memory(setting: Setting) -> Table:
    size = 64 if setting.quick else 2048
    setting.budget.share()

    def taken(makes: dict[str, Any], name: str) -> float:
        return peak_memory(read_and_back(layer(makes[name], size, size, setting.device)))

    rows: dict[str, tuple[float | None, ...]] = {}
    for mine, theirs in (
        ("plain", "plain"),
        ("cayley", "cayley"),
        ("matrix_exp", "matrix_exp"),
        ("SpectralNorm", "spectral_norm"),
        ("WeightNorm", "WeightNorm"),
    ):
        rows[mine] = (taken(OURS, mine), taken(TORCHS, theirs))
    return Table(
        "Memory",
        f"MiB at the peak of a read and its backward pass, for a weight of size {size}.",
        ("paramdesc", "torch"),
        rows,
    )


TABLES = (host_time, spectral, weight_norm, orthogonal, polar, many, loops, memory)
COUNT = len(TABLES)


def tables(setting: Setting) -> Iterator[Table]:
    """All tables that the time allows. Memory is measured on a CUDA device only."""
    for make in TABLES:
        if make is memory and setting.device != "cuda":
            continue
        yield make(setting)
