"""The library map by map, next to torch and geotorch. Writes docs/maps.md."""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as torch_maps
from torch.nn.utils import parametrize as torch_engine

import paramdesc
import paramdesc.parametrizations as maps
from paramdesc import register_parametrization
from paramdesc.testing import check_parametrization
from tests.benchmarks.table import Table
from tests.benchmarks.timing import Clock, clocked, environment, in_turns
from tests.geotorch import constraints

__all__ = ["ROWS", "Row", "page", "tables"]

PAGE = Path(__file__).parents[2] / "docs" / "maps.md"

NewMap = Callable[[tuple[int, int]], nn.Module]
"""A map for a weight of that shape."""

NOT_ABOUT_THE_MATHEMATICS = ("schema", "strict", "constraint")
"""Checks of what only our base class declares."""


@dataclass(frozen=True)
class Row:
    """One of our maps, and what its peers have for it."""

    ours: NewMap
    torch: NewMap | None = None
    geotorch: NewMap | None = None
    is_wide: bool = True
    """Whether it is compared on an `n x n / 2` weight rather than on a square one."""
    tolerance: float = 1e-5
    """How close a value must come back, relative to its largest entry: some maps iterate."""


class LazyModule:
    """geotorch, where it is installed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("geotorch"), name)


geotorch: Any = LazyModule()
RANK = 4


def of_torch(function: str, **arguments: Any) -> NewMap:
    """The map that a function of torch registers."""

    def make(shape: tuple[int, int]) -> nn.Module:
        module: Any = nn.Linear(shape[1], shape[0])
        getattr(torch_maps, function)(module, **arguments)
        found: nn.Module = module.parametrizations.weight[0]
        return found

    return make


ROWS: dict[str, Row] = {
    "Symmetric": Row(
        lambda s: maps.Symmetric(),
        geotorch=lambda s: geotorch.Symmetric(),
        is_wide=False,
    ),
    "Skew": Row(
        lambda s: maps.Skew(),
        geotorch=lambda s: geotorch.Skew(s),
        is_wide=False,
    ),
    "Triangular": Row(lambda s: maps.Triangular()),
    "Diagonal": Row(lambda s: maps.Diagonal(), is_wide=False),
    "Banded": Row(lambda s: maps.Banded(1, 1)),
    "Masked": Row(lambda s: maps.Masked(torch.ones(s).tril() > 0)),
    "Traceless": Row(lambda s: maps.Traceless(), is_wide=False),
    "Toeplitz": Row(lambda s: maps.Toeplitz()),
    "Circulant": Row(lambda s: maps.Circulant(), is_wide=False),
    "Hamiltonian": Row(lambda s: maps.Hamiltonian(), is_wide=False),
    "Symplectic": Row(lambda s: maps.Symplectic(), is_wide=False),
    "Normal": Row(lambda s: maps.Normal(), is_wide=False),
    "Orthogonal, cayley": Row(
        lambda s: maps.Orthogonal("cayley"),
        of_torch("orthogonal", orthogonal_map="cayley"),
        lambda s: geotorch.Stiefel(s, triv="cayley"),
        is_wide=False,
    ),
    "Orthogonal, matrix_exp": Row(
        lambda s: maps.Orthogonal("matrix_exp"),
        of_torch("orthogonal", orthogonal_map="matrix_exp"),
        lambda s: geotorch.Stiefel(s),
        is_wide=False,
    ),
    "Orthogonal, householder": Row(
        lambda s: maps.Orthogonal("householder"),
        of_torch("orthogonal", orthogonal_map="householder"),
    ),
    "Orthogonal, polar": Row(lambda s: maps.Orthogonal("polar")),
    "SpecialOrthogonal": Row(
        lambda s: maps.SpecialOrthogonal(),
        geotorch=lambda s: geotorch.SO(s, triv="cayley"),
        is_wide=False,
    ),
    "Grassmann": Row(
        lambda s: maps.Grassmann(),
        geotorch=lambda s: geotorch.Grassmannian(s, triv="cayley"),
    ),
    "Sphere": Row(lambda s: maps.Sphere(), geotorch=lambda s: geotorch.SphereEmbedded(s)),
    "AlmostOrthogonal": Row(
        lambda s: maps.AlmostOrthogonal(0.1),
        geotorch=lambda s: geotorch.AlmostOrthogonal(s, lam=0.1, triv="cayley"),
        is_wide=False,
    ),
    "LowRank": Row(
        lambda s: maps.LowRank(RANK),
        geotorch=lambda s: geotorch.LowRank(s, RANK, triv="cayley"),
    ),
    "FixedRank": Row(
        lambda s: maps.FixedRank(RANK),
        geotorch=lambda s: geotorch.FixedRank(s, RANK, triv="cayley"),
    ),
    "PositiveDefinite": Row(
        lambda s: maps.PositiveDefinite(),
        geotorch=lambda s: geotorch.PSD(s, triv="cayley"),
        is_wide=False,
    ),
    "PositiveSemidefinite": Row(
        lambda s: maps.PositiveSemidefinite(),
        geotorch=lambda s: geotorch.PSSD(s, triv="cayley"),
        is_wide=False,
    ),
    "Correlation": Row(lambda s: maps.Correlation(), is_wide=False),
    "PositiveDeterminant": Row(
        lambda s: maps.PositiveDeterminant(),
        geotorch=lambda s: geotorch.GLp(s, triv="cayley"),
        is_wide=False,
    ),
    "SpecialLinear": Row(
        lambda s: maps.SpecialLinear(),
        geotorch=lambda s: geotorch.SL(s, triv="cayley"),
        is_wide=False,
    ),
    "HurwitzStable": Row(lambda s: maps.HurwitzStable(), is_wide=False),
    "SchurStable": Row(lambda s: maps.SchurStable(), is_wide=False),
    "WeightNorm": Row(lambda s: maps.WeightNorm(), of_torch("weight_norm")),
    "SpectralNorm": Row(lambda s: maps.SpectralNorm(), of_torch("spectral_norm"), tolerance=0.1),
    "FrobeniusNorm": Row(lambda s: maps.FrobeniusNorm()),
    "MaxNorm": Row(lambda s: maps.MaxNorm(1.0)),
    "Centered": Row(lambda s: maps.Centered()),
    "WeightStandardization": Row(lambda s: maps.WeightStandardization()),
    "Positive": Row(lambda s: maps.Positive()),
    "Interval": Row(lambda s: maps.Interval(-1.0, 1.0)),
    "Simplex": Row(lambda s: maps.Simplex()),
    "Ordered": Row(lambda s: maps.Ordered()),
}


@dataclass(frozen=True)
class Findings:
    """What was found of one map in one library: error, milliseconds, checks that fail."""

    error: float | None
    clock: Clock


def shape_of(row: Row, n: int) -> tuple[int, int]:
    return (n, n // 2) if row.is_wide else (n, n)


def value_of(row: Row, shape: tuple[int, int]) -> Tensor:
    """A value of our map, on which the others can be registered: some take no other weight."""
    weight = torch.randn(shape) / math.sqrt(shape[0])
    value: Tensor = registered(row.ours(shape), weight, register_parametrization).weight
    return value.detach()


def registered(parametrization: nn.Module, weight: Tensor, engine: Any) -> Any:
    module: Any = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    module.weight = nn.Parameter(weight.clone())
    return engine(module, "weight", parametrization, unsafe=True)


def find(row: Row, library: str, n: int) -> Findings | None:
    """What there is to say of the map of `row` in `library`, or None if it has none."""
    new_map = row.ours if library == "paramdesc" else getattr(row, library)
    if new_map is None:
        return None
    ours_or_torchs = paramdesc if library == "paramdesc" else torch_engine
    engine = ours_or_torchs.register_parametrization
    torch.manual_seed(0)
    shape = shape_of(row, n)
    weight = value_of(row, shape)
    module = registered(new_map(shape), weight, engine)
    gradient = torch.randn(shape)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(10):
        optimizer.zero_grad()
        module.weight.backward(gradient)
        optimizer.step()
    ours: Any = row.ours(shape)
    error = None
    with contextlib.suppress(NotImplementedError):
        error = float(ours.deviation(module.weight.detach()))

    def forward_and_backward() -> None:
        module.zero_grad()
        module.weight.backward(gradient)

    return Findings(error, clocked(forward_and_backward))


def failing(row: Row, library: str) -> str:
    """The checks of `check_parametrization` that the map fails, on a small weight."""
    new_map = row.ours if library == "paramdesc" else getattr(row, library)
    if new_map is None:
        return ""
    torch.manual_seed(0)
    shape = shape_of(row, 8)
    weight = value_of(row, shape)
    with warnings.catch_warnings(), contextlib.redirect_stderr(None):
        warnings.simplefilter("ignore")
        report = check_parametrization(
            new_map(shape), weight, raises=False, batch=False, tolerance=row.tolerance
        )
    failed = [x.check for x in report.failed if x.check not in NOT_ABOUT_THE_MATHEMATICS]
    return ", ".join(failed) or "none"


LIBRARIES = ("paramdesc", "torch", "geotorch")


def compare(
    row: Row, n: int, rounds: int
) -> tuple[dict[str, Findings | None], dict[str, float | None]]:
    """What there is to say of each library, and how many times as long as ours it takes."""
    found = {library: find(row, library, n) for library in LIBRARIES}
    clocks = {library: x.clock for library, x in found.items() if x is not None}
    series = in_turns(clocks, rounds)
    times = {x: series.ratio(x, "paramdesc") if x in clocks else None for x in LIBRARIES}
    return found, times


def tables(quick: bool) -> Iterator[Table]:
    """The times for all sizes, of the maps that have a counterpart."""
    sizes = (16,) if quick else (64, 256, 512, 1024)
    peers = {name: row for name, row in ROWS.items() if row.torch or row.geotorch}
    for library in LIBRARIES[1:]:
        rows: dict[str, tuple[float | None, ...]] = {}
        for name, row in peers.items():
            if getattr(row, library) is not None:
                only = replace(row, torch=row.torch if library == "torch" else None)
                only = replace(only, geotorch=row.geotorch if library == "geotorch" else None)
                rounds = [1 if quick else 25 if n < 500 else 3 for n in sizes]
                rows[name] = tuple(
                    compare(only, n, count)[1][library]
                    for n, count in zip(sizes, rounds, strict=True)
                )
        yield Table(
            f"The maps of {library}",
            f"How many times as long as ours that of {library} takes, for reading the weight and "
            "the backward pass: weights of n x n, or n x n / 2 where they may be rectangular, in "
            "float32. geotorch's are those with Cayley transforms, its faster ones, but where "
            "the name says otherwise.",
            tuple(f"n = {n}" for n in sizes),
            rows,
        )


def shown(findings: Findings | None) -> str:
    if findings is None or findings.error is None:
        return ""
    # with a hyphen that no line is broken at
    return (
        f"{findings.error:.0e}".replace("-", "\N{NON-BREAKING HYPHEN}") if findings.error else "0"
    )


TEXT = """\
# Parametrizations compared

Each parametrization next to those of torch {torch} and geotorch 0.4 for the same constraint. The
weights are {n} x {n}, or {n} x {half} where they may be rectangular, in float32, on one thread of a
CPU. An empty cell means that the library has no such parametrization. The gallery has
[a picture of each](gallery.md), and [How it compares](comparison.md) compares everything else.

- **error** is the distance from the constraint after ten steps of Adam, as `deviation` measures it,
  in the norm that its docstring names.
- **time** is the time of the other library in multiples of paramdesc's, for reading the weight and
  the backward pass. Above 1, paramdesc is faster; below 1, the other library is. There are
  [more sizes](development/benchmarks.md#the-maps-of-geotorch).

`python -m tests.benchmarks.maps` writes this page. Figures are medians of interleaved runs.
{environment}

"""

LACKS = """
## Which checks fail

`paramdesc.testing.check_parametrization` [checks](guide/maps.md) finite values, right inverses,
gradients, special points, vmap, half precision, autocast, determinism, copies, checkpoints, meta
tensors, torch's own engine, TorchScript, tracing, compilation and export. The table lists the
checks that fail. geotorch's right inverses fail because they refuse every value outside of the
constraint.

"""

CONSTRAINTS = """
## geotorch's constraints in paramdesc

paramdesc can register the constraints of geotorch as they are. The columns say what then works.

"""

HEAD = ["", "error", "torch: error", "torch: time", "geotorch: error", "geotorch: time"]


def table(head: Sequence[str]) -> str:
    return line(head) + f"|{' --- |' * len(head)}\n"


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def page(n: int, rounds: int) -> Iterator[str]:
    """The page, in parts, as they are measured."""
    yield TEXT.format(torch=torch.__version__, n=n, half=n // 2, environment=environment())
    yield table(HEAD)
    for name, row in ROWS.items():
        found, times = compare(row, n, rounds)
        cells = [name, shown(found["paramdesc"])]
        for library in LIBRARIES[1:]:
            ratio = times[library]
            cells += [shown(found[library]), "" if ratio is None else f"{ratio:.2g}"]
        yield line(cells)
    yield LACKS + table(("", *LIBRARIES))
    for name, row in ROWS.items():
        if row.torch or row.geotorch:
            yield line([name, *(failing(row, library) for library in LIBRARIES)])
    yield CONSTRAINTS + table(("", *constraints.QUESTIONS))
    for name in constraints.CONSTRAINTS:
        yield line([name, *constraints.answers(name)])


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.disable(logging.ERROR)
    quick = "--quick" in sys.argv
    parts = []
    for part in page(16 if quick else 256, 1 if quick else 15):
        print(part, end="", flush=True)
        parts.append(part)
    if not quick:
        PAGE.write_text("".join(parts), encoding="utf-8")
