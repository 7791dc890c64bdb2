"""Writes what was found, as Markdown."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.benchmarks.timing import environment
from tests.benchmarks.training_quality.contestants import PEERS, is_there
from tests.benchmarks.training_quality.grid import OPTIMIZERS, SOLVED, TIMED, Finding
from tests.benchmarks.training_quality.results import (
    ENOUGH,
    FACTOR,
    SLOWER,
    Comparison,
    Solved,
    compare,
)

__all__ = ["page", "problem_section", "summary"]

FIXED = "rebase=None"
TEXT = """\
# How well each parametrization trains

Small problems with a known solution, trained with the parametrizations of paramdesc and with their
peers: those of torch and geotorch, the manifolds and optimizers of geoopt, the optimizer POGO, and
the usual formula by hand. [Training with constraints](guide/training.md) draws the conclusions.

{found}

## Where a peer is better

In these problems, the loss of a peer is less than a third of ours, with the best optimizer of each:

{behind}

## All problems

For each of our parametrizations and each optimizer, the loss in multiples of the best peer's;
losses below {enough:g} count as {enough:g}. The last column is the time of a step with SGD and
with Adam, in multiples of the time of the fastest peer whose loss is within a factor of
{factor:g} of the best. Bold means that we are behind, by more than {factor:g} times the loss or
{slower:g} times the time. The rows with `rebase=None` show what fixed base points do, and are not
counted; base points that move are the default. The sections below name the peers.

{summary}

## How it was measured

{versions}

- Every contestant starts from the same weight, in float32, and makes the same number of steps with
  all data, at a constant learning rate.
- Every loss is zero at the solution, and its curvature is about one. The figure is the loss after
  the last step, in double precision, for the best learning rate of a fixed grid: {rates}. Momentum
  is 0.9; all other settings are torch's defaults. A dash means that the library has no such
  optimizer.
- A run ends early when its loss is below {solved:g}. Then no other learning rate is tried.
- *error* is the largest deviation from the constraint after the last step, as the `deviation` of
  our parametrization measures it.
- Times are those of a whole step: the weight, the loss, the backward pass and the optimizer. They
  are processor time, medians of interleaved runs. *By hand* uses no module and no parametrization,
  which take time of their own that shows because the weights are small.
- POGO's Adam has one second moment for a matrix, geoopt's has one for a vector or a matrix on a
  manifold. They have no AdamW.

`python -m tests.benchmarks.training_quality` writes this page.
"""


def page(families: dict[str, list[Solved]]) -> str:
    """The whole page."""
    everything = [solved for family in families.values() for solved in family]
    groups = []
    for family, members in families.items():
        groups += [f"## {family}", *(problem_section(solved) for solved in members)]
    head = TEXT.format(
        versions=versions(),
        rates=rates(),
        enough=ENOUGH,
        solved=SOLVED,
        factor=FACTOR,
        slower=SLOWER,
        found=counted(everything),
        behind=where_behind(everything),
        summary=summary(everything),
    )
    return "\n\n".join([head.rstrip(), *groups]) + "\n"


def versions() -> str:
    installed, missing = [], []
    for library, module in PEERS.items():
        package = {"pogo": "pogo-torch"}.get(module, module)
        try:
            installed.append(f"{library} {version(package)}" if is_there(library) else "")
        except PackageNotFoundError:
            installed.append(library)
        if not is_there(library):
            missing.append(library)
    shown = (
        ", ".join([environment().removesuffix("."), processor(), *filter(None, installed)]) + "."
    )
    if missing:
        shown += f" Not installed, and left out: {', '.join(missing)}."
    return shown


def processor() -> str:
    """The kind of machine, as far as it tells."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "an unknown processor"


def rates() -> str:
    groups: dict[tuple[float, ...], list[str]] = {}
    for name, grid in OPTIMIZERS.items():
        groups.setdefault(grid, []).append(name)
    return "; ".join(
        f"{', '.join(f'{rate:g}' for rate in sorted(grid))} for {' and '.join(names)}"
        for grid, names in groups.items()
    )


def compared(everything: Sequence[Solved]) -> Iterator[tuple[Solved, str, Comparison | None]]:
    """Each of our maps in each problem, next to the best peer."""
    for solved in everything:
        for title in solved.found(ours=True):
            yield solved, title, compare(solved, title)


def counted(everything: Sequence[Solved]) -> str:
    """How often our maps are as good as the best peer, in words."""
    found = [x for _, title, x in compared(everything) if x is not None and FIXED not in title]
    level = sum(comparison.overall <= FACTOR for comparison in found)
    always = sum(not comparison.behind for comparison in found)
    fast = sum(not comparison.slower for comparison in found)
    return (
        "With the best optimizer of each, the loss of paramdesc is within a factor of "
        f"{FACTOR:g} of the best peer's in {level} of {len(found)} comparisons. In {always} of "
        f"them it is so with every optimizer. A step takes no longer than the peer's in {fast}."
    )


def where_behind(everything: Sequence[Solved]) -> str:
    """The problems that the best peer solves better, with the best optimizer of each."""
    rows = []
    for solved, title, comparison in compared(everything):
        if comparison is not None and comparison.overall > FACTOR and FIXED not in title:
            theirs = {peer: lowest(found) for peer, found in solved.found(ours=False).items()}
            best = min(theirs, key=lambda peer: theirs[peer])
            mine = lowest(solved.found(ours=True)[title])
            rows.append([solved.name, title, best, number(mine), number(theirs[best])])
    return table(["problem", "paramdesc", "best peer", "our loss", "its loss"], rows, words=3)


def lowest(finding: Finding) -> float:
    """The loss with the best optimizer."""
    return min(outcome.loss for outcome in finding.outcomes.values())


def summary(everything: Sequence[Solved]) -> str:
    """The table of all comparisons."""
    rows = []
    for solved, title, comparison in compared(everything):
        if comparison is None:
            rows.append([solved.name, title, "no peer is installed", *[""] * 4])
            continue
        cells = [shown_factor(comparison, name) for name in OPTIMIZERS]
        times = [
            marked(f"{comparison.times[name]:.2g}", name in comparison.slower) for name in TIMED
        ]
        rows.append([solved.name, title, *cells, ", ".join(times)])
    return table(["problem", "paramdesc", *OPTIMIZERS, "time"], rows, words=2)


def shown_factor(comparison: Comparison, name: str) -> str:
    if name not in comparison.losses:
        return "\N{EN DASH}"
    factor = comparison.losses[name]
    return marked(number(factor), factor > FACTOR)


def marked(text: str, is_bold: bool) -> str:
    return f"**{text}**" if is_bold else text


def number(figure: float) -> str:
    if math.isinf(figure):
        return "diverges"
    if figure == 0:
        return "0"
    shown = f"{figure:.2g}" if 0.01 <= figure < 1000 else f"{figure:.0e}"
    return shown.replace("e-0", "e-").replace("e+0", "e").replace("-", "\N{NON-BREAKING HYPHEN}")


def problem_section(solved: Solved) -> str:
    """The losses of all contestants; the lowest of each optimizer are bold."""
    found = [x for x in solved.findings.values() if x is not None]
    least = {
        name: min((x.outcomes[name].loss for x in found if name in x.outcomes), default=math.inf)
        for name in OPTIMIZERS
    }
    rows = []
    for title, finding in solved.findings.items():
        if finding is None:
            rows.append([title, "not installed", *[""] * (len(OPTIMIZERS) + len(TIMED))])
            continue
        cells = [loss(finding, name, max(least[name], ENOUGH)) for name in OPTIMIZERS]
        error = max(outcome.error for outcome in finding.outcomes.values())
        times = [f"{finding.seconds[name] * 1e6:.0f}" for name in TIMED]
        rows.append([title, *cells, number(error), *times])
    head = ["", *OPTIMIZERS, "error", *(f"µs, {name}" for name in TIMED)]
    return (
        f"### {solved.name[0].upper()}{solved.name[1:]}\n\n"
        f"{solved.problem.text} {solved.problem.steps} steps.\n\n{table(head, rows)}"
    )


def loss(finding: Finding, name: str, least: float) -> str:
    if name not in finding.outcomes:
        return "\N{EN DASH}"
    outcome = finding.outcomes[name]
    shown = number(outcome.loss)
    return marked(shown, outcome.loss <= least)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """A table whose first columns are words, and the others numbers."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [head, ["---"] * words + ["---:"] * (len(head) - words), *escaped]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
