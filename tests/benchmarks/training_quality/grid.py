"""Trains each contestant with each optimizer at each learning rate, and times its steps."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from tests.benchmarks.timing import Clock, clocked, in_turns
from tests.benchmarks.training_quality.contestants import is_there
from tests.benchmarks.training_quality.problem import Contestant, Problem

__all__ = ["OPTIMIZERS", "SOLVED", "TIMED", "Finding", "Outcome", "best", "run", "train"]

STEEPEST = (0.3, 0.1, 1.0, 0.03, 3.0, 0.01)
ADAPTIVE = (0.1, 0.03, 0.3, 0.01, 1.0, 0.003)
OPTIMIZERS = {"SGD": STEEPEST, "momentum": STEEPEST, "Adam": ADAPTIVE, "AdamW": ADAPTIVE}
"""The learning rates of each optimizer, those first that are often the best."""
TIMED = ("SGD", "Adam")
LOOK_EVERY = 20
"""After how many steps a run is ended if it has diverged, or solved the problem."""
SOLVED = 1e-12
"""A loss that ends a run, and the search for a better rate."""
DTYPE = torch.float32


@dataclass(frozen=True)
class Outcome:
    """What a run ends with. The loss is infinite if it has diverged."""

    loss: float
    error: float
    rate: float


@dataclass(frozen=True)
class Finding:
    """The best outcome with each optimizer that there is, and the seconds that a step takes."""

    outcomes: Mapping[str, Outcome]
    seconds: Mapping[str, float]


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of the peers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Run:
    """A contestant at work. `optimizer` is None where its library has none of that name."""

    def __init__(self, problem: Problem, contestant: Contestant, name: str, rate: float) -> None:
        torch.manual_seed(0)
        self.problem = problem
        self.data = tuple(x.to(DTYPE) if x.is_floating_point() else x for x in problem.data)
        self.trainee = contestant.make(problem.start.to(DTYPE))
        self.optimizer = self.trainee.new_optimizer(self.trainee.parameters, name, rate)

    def step(self) -> Tensor:
        """Make one step, and return the loss before it."""
        assert self.optimizer is not None
        self.optimizer.zero_grad()
        loss = self.problem.loss(self.trainee.read(), *self.data)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    def outcome(self, rate: float) -> Outcome:
        """Measured in double precision."""
        with torch.no_grad():
            weight = self.trainee.read().detach().double()
            if not bool(weight.isfinite().all()):
                return Outcome(math.inf, math.inf, rate)
            loss = float(self.problem.loss(self.problem.project(weight), *self.problem.data))
            error = float(self.problem.deviation(weight))
        return Outcome(max(loss, 0.0) if math.isfinite(loss) else math.inf, error, rate)


def train(
    problem: Problem, contestant: Contestant, name: str, rate: float, steps: int
) -> Outcome | None:
    """Train from the start, or return None if there is no such optimizer.

    Decompositions raise once a run has diverged: that counts as a run that has.
    """
    with quiet():
        run = Run(problem, contestant, name, rate)
        if run.optimizer is None:
            return None
        try:
            for step in range(steps):
                loss = run.step()
                if step % LOOK_EVERY == 0:
                    if not bool(loss.isfinite()):
                        return Outcome(math.inf, math.inf, rate)
                    if loss.item() < 1e-6:  # it may be rounding alone
                        outcome = run.outcome(rate)
                        if outcome.loss <= SOLVED:
                            return outcome
            return run.outcome(rate)
        except (RuntimeError, ValueError):
            return Outcome(math.inf, math.inf, rate)


def best(problem: Problem, contestant: Contestant, name: str, quick: bool) -> Outcome | None:
    """The best of the grid, or None if there is no such optimizer."""
    rates = OPTIMIZERS[name][:2] if quick else OPTIMIZERS[name]
    steps = 3 if quick else problem.steps
    lowest = None
    for rate in rates:
        found = train(problem, contestant, name, rate, steps)
        if found is None:
            return None
        if lowest is None or found.loss < lowest.loss:
            lowest = found
        if lowest.loss <= SOLVED:
            break
    return lowest


def clock(problem: Problem, contestant: Contestant, name: str, steps: int) -> Clock:
    """A clock for steps of a run that moves little."""
    with quiet():
        run = Run(problem, contestant, name, 1e-4)

    def make_steps() -> None:
        for _ in range(steps):
            run.step()

    return clocked(make_steps)


def step_seconds(problem: Problem, quick: bool) -> dict[str, dict[str, float]]:
    """For each contestant that is there, the seconds of a step with some of the optimizers."""
    steps, rounds = (1, 1) if quick else (20, 9)
    clocks = {
        (title, name): clock(problem, contestant, name, steps)
        for title, contestant in problem.contestants.items()
        if is_there(contestant.library)
        for name in TIMED
    }
    with quiet():
        series = in_turns({f"{title}\n{name}": x for (title, name), x in clocks.items()}, rounds)
    found: dict[str, dict[str, float]] = {}
    for title, name in clocks:
        found.setdefault(title, {})[name] = series.median(f"{title}\n{name}") / steps
    return found


def run(
    problem: Problem, quick: bool = False, known: Mapping[str, Finding | None] | None = None
) -> dict[str, Finding | None]:
    """What there is to say of each contestant; None if its library is not there.

    Peers whose outcomes are known are timed, but not trained again.
    """
    seconds = step_seconds(problem, quick)
    findings: dict[str, Finding | None] = {}
    for title, contestant in problem.contestants.items():
        if not is_there(contestant.library):
            findings[title] = None
            continue
        before = None if known is None or contestant.is_ours else known.get(title)
        if before is not None:
            findings[title] = Finding(before.outcomes, seconds[title])
            continue
        found = {name: best(problem, contestant, name, quick) for name in OPTIMIZERS}
        outcomes = {name: outcome for name, outcome in found.items() if outcome is not None}
        findings[title] = Finding(outcomes, seconds[title])
    return findings
