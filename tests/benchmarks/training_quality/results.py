"""Compares our maps with the best of the peers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tests.benchmarks.training_quality.grid import OPTIMIZERS, TIMED, Finding
from tests.benchmarks.training_quality.problem import Problem

__all__ = ["ENOUGH", "FACTOR", "SLOWER", "Comparison", "Solved", "compare"]

ENOUGH = 1e-8
"""A loss up to here counts as zero: rounding decides what is less."""
FACTOR = 3.0
SLOWER = 1.05
"""What counts as slower: the figures of one run differ by as much."""


@dataclass(frozen=True)
class Solved:
    """A problem with what was found of each contestant, None where a library is missing."""

    name: str
    problem: Problem
    findings: Mapping[str, Finding | None]

    def is_ours(self, title: str) -> bool:
        return self.problem.contestants[title].is_ours

    def found(self, *, ours: bool) -> dict[str, Finding]:
        return {
            title: finding
            for title, finding in self.findings.items()
            if finding is not None and self.is_ours(title) == ours
        }


@dataclass(frozen=True)
class Comparison:
    """One of our maps next to the best peer: factors of the loss and of the time of a step.

    A factor above one says that the peer is better.
    """

    losses: Mapping[str, float]
    """With each optimizer that a peer has."""
    overall: float
    """With the best optimizer of each."""
    times: Mapping[str, float]

    @property
    def behind(self) -> list[str]:
        return [name for name, factor in self.losses.items() if factor > FACTOR]

    @property
    def slower(self) -> list[str]:
        return [name for name, factor in self.times.items() if factor > SLOWER]


def loss_of(finding: Finding, optimizer: str) -> float:
    """The final loss, infinite where a library has no such optimizer."""
    outcome = finding.outcomes.get(optimizer)
    return max(outcome.loss, ENOUGH) if outcome is not None else math.inf


def factor(ours: float, theirs: float) -> float:
    if math.isinf(theirs):
        return 1.0 if math.isinf(ours) else 0.0
    return ours / theirs


def compare(solved: Solved, title: str) -> Comparison | None:
    """Compare one of our maps, or return None if no peer is there."""
    peers, mine = solved.found(ours=False), solved.findings[title]
    if not peers or mine is None:
        return None
    losses, times = {}, {}
    optimizers = [name for name in OPTIMIZERS if any(name in x.outcomes for x in peers.values())]
    for name in optimizers:
        theirs = {peer: loss_of(finding, name) for peer, finding in peers.items()}
        best = min(theirs.values())
        losses[name] = factor(loss_of(mine, name), best)
        if name in TIMED:
            good = [peer for peer, loss in theirs.items() if loss <= FACTOR * best]
            fastest = min(peers[peer].seconds[name] for peer in good or peers)
            times[name] = mine.seconds[name] / fastest
    lowest = [
        min(loss_of(finding, name) for finding in findings for name in optimizers)
        for findings in ([mine], peers.values())
    ]
    return Comparison(losses, factor(*lowest), times)
