"""Norms and constraints on entries: an evaluation and its backward pass, beside the peers'."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import constraints as typed_constraints
from torch.distributions import transform_to
from torch.nn.utils import parametrizations, parametrize

import paramdesc
from paramdesc.parametrizations.entries.interval import Interval
from paramdesc.parametrizations.entries.ordered import Ordered
from paramdesc.parametrizations.entries.positive import Positive
from paramdesc.parametrizations.entries.simplex import Simplex
from paramdesc.parametrizations.norms.centered import Centered
from paramdesc.parametrizations.norms.frobenius_norm import FrobeniusNorm
from paramdesc.parametrizations.norms.max_norm import MaxNorm
from paramdesc.parametrizations.norms.weight_norm import WeightNorm
from paramdesc.parametrizations.norms.weight_standardization import WeightStandardization
from tests.benchmarks.table import Goal, Table, main
from tests.benchmarks.timing import clocked, in_turns

__all__ = ["tables"]

constraints: Any = typed_constraints

MOST = 1.05
"""What counts as not slower: the figures of one run differ by as much."""


class Formula(nn.Module):
    """A map written as the usual formula."""

    def __init__(self, formula: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.formula = formula

    def forward(self, X: Tensor) -> Tensor:
        return self.formula(X)


def standardized(X: Tensor) -> Tensor:
    variance, mean = torch.var_mean(X, 1, keepdim=True, correction=0)
    return (X - mean) * torch.rsqrt(variance + 1e-10)


def increasing(X: Tensor) -> Tensor:
    steps = nn.functional.softplus(X[:, 1:])
    return torch.cat([X[:, :1], steps], -1).cumsum(-1)


def shortened(X: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(X, dim=-1, keepdim=True)
    return X * (1 / norms).clamp(max=1)


Row = tuple[Callable[[], nn.Module], str, Callable[[Tensor], Tensor]]

PEERS: dict[str, Row] = {
    "`FrobeniusNorm(dim=-1)`": (
        lambda: FrobeniusNorm(dim=-1),
        "`X / X.norm(dim=-1)`",
        lambda X: X / X.norm(dim=-1, keepdim=True),
    ),
    "`MaxNorm()`": (MaxNorm, "`X * (1 / X.norm(dim=-1)).clamp(max=1)`", shortened),
    "`Centered()`": (Centered, "`X - X.mean(-1)`", lambda X: X - X.mean(-1, keepdim=True)),
    "`WeightStandardization()`": (
        WeightStandardization,
        "`(X - mean) * rsqrt(variance + eps)`",
        standardized,
    ),
    "`Positive()`": (Positive, "`softplus`", nn.functional.softplus),
    "`Interval(-1, 2)`": (
        lambda: Interval(-1, 2),
        "`transform_to(interval(-1, 2))`",
        transform_to(constraints.interval(-1, 2)),
    ),
    "`Simplex()`": (Simplex, "`transform_to(simplex)`", transform_to(constraints.simplex)),
    "`Ordered()`": (Ordered, "`cumsum` of `softplus`", increasing),
}


def tables(quick: bool) -> Iterator[Table]:
    for size in [8] if quick else [64, 256, 1024]:
        yield norms(size, quick)
        yield elements(size, quick)


def layer(size: int, engine: Any, new_map: Callable[[], nn.Module], **arguments: Any) -> Any:
    torch.manual_seed(0)
    module = nn.Linear(size, size, bias=False)
    return engine.register_parametrization(module, "weight", new_map(), **arguments)


def read_and_back(module: Any) -> Callable[[], None]:
    gradient = torch.randn(module.weight.shape)

    def run() -> None:
        module.zero_grad()
        module.weight.backward(gradient)

    return run


def rounds(size: int, quick: bool) -> int:
    return 1 if quick else 301 if size < 512 else 101


def norms(size: int, quick: bool) -> Table:
    """The maps of which torch and geotorch have their own."""
    plain = nn.Linear(size, size, bias=False)
    modules = {
        "torch, `weight_norm`": parametrizations.weight_norm(plain),
        "paramdesc, `WeightNorm`": layer(size, paramdesc, WeightNorm, unsafe=True),
        "paramdesc, sphere, `FrobeniusNorm(dim=-1)`": layer(
            size, paramdesc, lambda: FrobeniusNorm(dim=-1)
        ),
    }
    pairs = [("paramdesc, `WeightNorm`", "torch, `weight_norm`")]
    with contextlib.suppress(ModuleNotFoundError):
        geotorch: Any = importlib.import_module("geotorch")
        name = "geotorch, `sphere`, embedded"
        modules[name] = nn.Linear(size, size, bias=False)
        geotorch.sphere(modules[name], "weight", embedded=True)
        pairs.append(("paramdesc, sphere, `FrobeniusNorm(dim=-1)`", name))
    series = in_turns(
        {name: clocked(read_and_back(module)) for name, module in modules.items()},
        rounds(size, quick),
    )
    peers = dict(pairs)
    return Table(
        f"Norms of the rows of a {size} x {size} weight",
        "One read of the weight and the backward pass to its originals.",
        ("times the peer's", "microseconds"),
        {
            name: (
                series.ratio(name, peers[name]) if name in peers else None,
                series.median(name) * 1e6,
            )
            for name in modules
        },
        [
            Goal(f"{ours}, in times of {theirs},", MOST, series.ratio(ours, theirs))
            for ours, theirs in pairs
        ],
    )


def elements(size: int, quick: bool) -> Table:
    """Maps whose peers are formulas, these registered by torch's engine."""
    found: dict[str, tuple[float | None, ...]] = {}
    goals = []
    for name, (new_map, peer, formula) in PEERS.items():
        ours = layer(size, paramdesc, new_map)
        theirs = layer(size, parametrize, partial(Formula, formula))
        cases = {name: clocked(read_and_back(ours)), peer: clocked(read_and_back(theirs))}
        series = in_turns(cases, rounds(size, quick))
        found[name] = (series.ratio(name, peer), series.median(name) * 1e6)
        found[f"{peer}, torch"] = (None, series.median(peer) * 1e6)
        goals.append(Goal(f"{name}, in times of {peer},", MOST, series.ratio(name, peer)))
    return Table(
        f"Constraints on a {size} x {size} weight",
        "One read of the weight and the backward pass to its original. The peers are plain "
        "formulas, or transforms of torch.distributions, registered by torch's engine. They give "
        "NaN for zero rows, and may touch the bounds.",
        ("times the peer's", "microseconds"),
        found,
        goals,
    )


if __name__ == "__main__":
    main(tables, __doc__)
