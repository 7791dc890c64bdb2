"""Maps of rank and spectrum, next to those of geotorch: forward and backward."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from paramdesc import register_parametrization
from paramdesc.parametrizations.spectra.fixed_rank import FixedRank
from paramdesc.parametrizations.spectra.low_rank import LowRank
from paramdesc.parametrizations.spectra.positive_definite import PositiveDefinite
from paramdesc.parametrizations.spectra.positive_determinant import PositiveDeterminant
from paramdesc.parametrizations.spectra.positive_semidefinite import PositiveSemidefinite
from paramdesc.parametrizations.spectra.special_linear import SpecialLinear
from paramdesc.parametrizations.spectra.stable import HurwitzStable
from tests.benchmarks.table import Goal, Table, main
from tests.benchmarks.timing import Clock, clocked, in_turns

__all__ = ["tables"]

NewMap = Callable[[int, int], nn.Module]
"""A map for an `n x n` weight, with its rank where it takes one."""

OURS: dict[str, NewMap] = {
    "LowRank": lambda n, rank: LowRank(rank),
    "FixedRank": lambda n, rank: FixedRank(rank),
    "PositiveDefinite": lambda n, rank: PositiveDefinite(),
    "PositiveSemidefinite": lambda n, rank: PositiveSemidefinite(),
    "PositiveSemidefinite(rank)": lambda n, rank: PositiveSemidefinite(rank),
    "PositiveSemidefinite(rank, fixed=True)": lambda n, rank: PositiveSemidefinite(
        rank, fixed=True
    ),
    "PositiveDeterminant": lambda n, rank: PositiveDeterminant(),
    "SpecialLinear": lambda n, rank: SpecialLinear(),
    "HurwitzStable": lambda n, rank: HurwitzStable(),
}

THEIRS = {
    "LowRank": "LowRank",
    "FixedRank": "FixedRank",
    "PositiveDefinite": "PSD",
    "PositiveSemidefinite": "PSSD",
    "PositiveSemidefinite(rank)": "PSSDLowRank",
    "PositiveSemidefinite(rank, fixed=True)": "PSSDFixedRank",
    "PositiveDeterminant": "GLp",
    "SpecialLinear": "SL",
    "HurwitzStable": "Hurwitz",
}

TRIVS = ("expm", "cayley")


def tables(quick: bool) -> Iterator[Table]:
    for n in (16,) if quick else (64, 256, 512):
        yield forward_and_backward(n, max(1, n // 8), quick)


def step(parametrization: nn.Module, n: int, weight: Tensor) -> Clock:
    """Reading a weight with that map, and its gradient. The map is moved off its start first."""
    module: Any = nn.Module()
    module.weight = nn.Parameter(weight.clone())
    register_parametrization(module, "weight", parametrization)
    with torch.no_grad():
        for original in module.parameters():
            original.add_(torch.randn_like(original), alpha=0.1 / math.sqrt(n))
    gradient = torch.randn(n, n)

    def evaluate() -> None:
        module.zero_grad()
        module.weight.backward(gradient)

    return clocked(evaluate)


def counterpart(name: str, n: int, rank: int, triv: str) -> tuple[nn.Module, Tensor]:
    """The map of geotorch, and a weight that it can be registered on."""
    geotorch: Any = importlib.import_module("geotorch")
    new_map = getattr(geotorch, THEIRS[name])
    ranked = "Rank" in THEIRS[name]
    found = new_map((n, n), rank, triv=triv) if ranked else new_map((n, n), triv=triv)
    if name == "HurwitzStable":  # its own samples are too large for the residual that it asks for
        return found, -torch.eye(n)
    return found, found.sample()


def forward_and_backward(n: int, rank: int, quick: bool) -> Table:
    torch.manual_seed(0)
    names = list(OURS)
    clocks: dict[str, dict[str, Clock]] = {
        name: {"paramdesc": step(OURS[name](n, rank), n, torch.randn(n, n) / math.sqrt(n))}
        for name in names
    }
    with contextlib.suppress(ModuleNotFoundError):
        for name in names:
            if name == "HurwitzStable" and n > 64:
                continue  # geotorch solves a system of n² equations when it registers
            for triv in ("expm", "cayley"):
                parametrization, weight = counterpart(name, n, rank, triv)
                clocks[name][triv] = step(parametrization, n, weight)
    rows: dict[str, tuple[float | None, ...]] = {}
    shares = []
    for name, cases in clocks.items():
        series = in_turns(cases, 1 if quick else 9)
        ratios = [series.ratio(triv, "paramdesc") if triv in cases else None for triv in TRIVS]
        rows[name] = (series.median("paramdesc") * 1e3, *ratios)
        shares += [1 / ratio for ratio in ratios if ratio is not None]
    return Table(
        f"Rank and spectrum, n = {n}",
        f"Forward and backward of a square weight of size {n}, of rank {rank} where one is given: "
        "milliseconds, and how many times as long geotorch's map of that set takes, with "
        "matrix exponentials, its default, and with Cayley transforms.",
        ("paramdesc, ms", "geotorch, expm", "geotorch, cayley"),
        rows,
        [Goal("the longest of the maps, in times of geotorch's,", 1, max(shares))]
        if shares
        else [],
    )


if __name__ == "__main__":
    main(tables, __doc__)
