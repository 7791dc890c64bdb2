"""Writes what was found, as Markdown."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
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
# How well maps train

Small problems with a known solution, solved by the maps of this library and by their peers: the
maps of torch and geotorch, the manifolds and optimizers of geoopt, the optimizer POGO, and the
usual formula by hand. Written by `python -m tests.benchmarks.training_quality`.

{versions}

- Every contestant starts from the same weight, in float32, and makes the same number of steps with
  the whole data, at a constant learning rate.
- Every loss is zero at the solution, and its curvature is about one. The figure is the loss after
  the last step, in double precision, for the best learning rate of a fixed grid: {rates}. Momentum
  is 0.9; all other settings are torch's defaults. A dash is a library without that optimizer.
- A run ends early when its loss is below {solved:g}, and then no other learning rates are tried.
- *error* is the largest deviation from the constraint after the last step, as the `deviation` of
  our map measures it.
- Times are those of a whole step: the weight, the loss, the backward pass and the optimizer. They
  are processor time, medians of interleaved runs. *By hand* is without a module and an engine,
  whose own time shows, since the weights are small.
- POGO's Adam has one second moment for a matrix, geoopt's one for a vector or a matrix on a
  manifold. They have no AdamW.

## Who wins

For each of our maps and each optimizer, the loss in times of the best peer's; losses below
{enough:g} count as {enough:g}. The last column compares the time of a step, with SGD and with Adam,
with that of the fastest peer whose loss is within a factor of {factor:g} of the best. Bold: we are
behind, by more than {factor:g} times the loss or {slower:g} times the time. The tables below name
the peers. The rows with `rebase=None` show what fixed base points do, and are not counted; moving
ones are the default.

{summary}
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


def summary(everything: Sequence[Solved]) -> str:
    rows = []
    counts = {"all": 0, "level": 0, "overall": 0, "fast": 0}
    for solved in everything:
        for title in solved.found(ours=True):
            comparison = compare(solved, title)
            if comparison is None:
                rows.append([solved.name, title, "no peer is installed", *[""] * 4])
                continue
            if FIXED not in title:
                counts["all"] += 1
                counts["level"] += not comparison.behind
                counts["overall"] += comparison.overall <= FACTOR
                counts["fast"] += not comparison.slower
            cells = [shown_factor(comparison, name) for name in OPTIMIZERS]
            times = [
                marked(f"{comparison.times[name]:.2g}", name in comparison.slower) for name in TIMED
            ]
            rows.append([solved.name, title, *cells, ", ".join(times)])
    head = ["problem", "map", *OPTIMIZERS, "time"]
    found = (
        f"Of {counts['all']} rows, {counts['overall']} are within the factor of the best peer with "
        f"the best optimizer of each, {counts['level']} with every optimizer, and {counts['fast']} "
        "are not slower."
    )
    return f"{found}\n\n{table(head, rows, words=2)}"


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
