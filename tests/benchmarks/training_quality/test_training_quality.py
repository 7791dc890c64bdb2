"""The benchmark trains every contestant, and its tables name every one. No figure is tested."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from paramdesc.parametrizations import Symmetric
from tests.benchmarks.training_quality import contestants, grid, page, store
from tests.benchmarks.training_quality.grid import OPTIMIZERS, Finding, Outcome, run, train
from tests.benchmarks.training_quality.losses import matched
from tests.benchmarks.training_quality.problem import Problem
from tests.benchmarks.training_quality.problems import FAMILIES, PROBLEMS
from tests.benchmarks.training_quality.results import Solved, compare

MIRRORED = contestants.by_hand(lambda X: (X + X.mT) / 2, lambda Y: Y)


def tiny() -> Problem:
    """A symmetric 2 x 2 matrix, by our map and by hand."""
    return Problem(
        "Tiny.",
        torch.zeros(2, 2, dtype=torch.float64),
        matched,
        (torch.tensor([[1.0, 2.0], [2.0, 3.0]], dtype=torch.float64),),
        Symmetric().deviation,
        {"`Symmetric()`": contestants.ours(Symmetric), "by hand": MIRRORED},
        steps=100,
    )


def test_a_tiny_problem_is_solved_with_every_optimizer() -> None:
    problem = tiny()
    for title, finding in run(problem).items():
        assert finding is not None, title
        assert set(finding.outcomes) == set(OPTIMIZERS)
        assert finding.outcomes["SGD"].loss < 1e-10
        assert finding.outcomes["momentum"].loss < 1e-3
        assert all(outcome.loss < 0.1 for outcome in finding.outcomes.values())
        assert all(outcome.error == 0 for outcome in finding.outcomes.values())
        assert all(seconds > 0 for seconds in finding.seconds.values())


def test_two_runs_end_with_the_same_loss() -> None:
    problem = tiny()
    first, second = (
        train(problem, problem.contestants["`Symmetric()`"], "Adam", 0.1, 20) for _ in range(2)
    )
    assert first == second


def test_a_run_that_diverges_has_infinite_loss_and_is_not_the_best() -> None:
    problem = tiny()
    contestant = problem.contestants["by hand"]
    diverged = train(problem, contestant, "SGD", 1e9, 100)
    assert diverged is not None
    assert math.isinf(diverged.loss)
    found = grid.best(problem, contestant, "SGD", False)
    assert found is not None
    assert math.isfinite(found.loss)


@pytest.mark.parametrize("name", PROBLEMS)
def test_all_contestants_of_a_problem_start_from_its_weight_and_make_steps(name: str) -> None:
    problem = PROBLEMS[name]()
    loss = problem.loss(problem.start, *problem.data)
    for title, contestant in problem.contestants.items():
        if contestants.is_there(contestant.library):
            with grid.quiet():
                begun = grid.Run(problem, contestant, "Adam", 1e-3)
                weight = begun.trainee.read().detach().double()
                torch.testing.assert_close(weight, problem.start, atol=1e-4, rtol=1e-4)
                begun.step()
            outcome = begun.outcome(1e-3)
            assert outcome.loss < loss, title
            assert outcome.error < 1e-3, title


@pytest.mark.parametrize("name", ["aligned points SO(3)", "spectrally normed regression"])
def test_the_table_of_a_problem_has_all_contestants(name: str) -> None:
    problem = PROBLEMS[name]()
    table = page.problem_section(Solved(name, problem, run(problem, quick=True)))
    titles = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    assert titles[2:] == list(problem.contestants)


def test_every_problem_has_a_map_of_ours_and_a_peer() -> None:
    for name, new_problem in PROBLEMS.items():
        kinds = {contestant.is_ours for contestant in new_problem().contestants.values()}
        assert kinds == {True, False}, name


def finding(loss: float, seconds: float) -> Finding:
    return Finding(
        {name: Outcome(loss, 0.0, 0.1) for name in OPTIMIZERS},
        dict.fromkeys(grid.TIMED, seconds),
    )


@pytest.mark.parametrize(
    ("mine", "cells"),
    [
        (finding(2e-3, 1.0), ["2", "1, 1"]),
        (finding(4e-3, 1.0), ["**4**", "1, 1"]),
        (finding(1e-4, 2.0), ["0.1", "**2**, **2**"]),
        (finding(math.inf, 1.0), ["**diverges**", "1, 1"]),
    ],
)
def test_the_summary_says_who_wins(mine: Finding, cells: list[str]) -> None:
    solved = Solved("tiny", tiny(), {"`Symmetric()`": mine, "by hand": finding(1e-3, 1.0)})
    last = page.summary([solved]).splitlines()[-1]
    assert [cell.strip() for cell in last.split("|")[-3:-1]] == cells


@pytest.mark.parametrize(("loss", "row"), [(0.4, "0.4 | 0.1"), (0.2, None)])
def test_the_page_begins_with_the_problems_that_peers_solve_better(
    loss: float, row: str | None
) -> None:
    found = {"`Symmetric()`": finding(loss, 2.0), "by hand": finding(0.1, 1.0)}
    text = page.page({"Family": [Solved("tiny", tiny(), found)]})
    part = text.partition("## Where a peer is better")[2].partition("## All problems")[0]
    rows = [line for line in part.splitlines() if line.startswith("| tiny")]
    assert rows == ([f"| tiny | `Symmetric()` | by hand | {row} |"] if row else [])
    assert f"in {0 if row else 1} of 1 comparisons" in " ".join(text.split())


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    assert page.table(["a", "b"], [["`|x|`", "1"]]).splitlines()[-1] == r"| `\|x\|` | 1 |"


def test_losses_below_the_threshold_are_level() -> None:
    solved = Solved(
        "tiny", tiny(), {"`Symmetric()`": finding(9e-9, 1.0), "by hand": finding(1e-14, 1.0)}
    )
    comparison = compare(solved, "`Symmetric()`")
    assert comparison is not None
    assert not comparison.behind


def test_a_peer_that_is_not_installed_is_named_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(contestants.PEERS, "geoopt", "no_such_module")
    peer = replace(MIRRORED, library="geoopt")
    problem = replace(tiny(), contestants={**tiny().contestants, "geoopt": peer})
    findings = run(problem, quick=True)
    assert findings["geoopt"] is None
    text = page.page({"Family": [Solved("tiny", problem, findings)]})
    assert "| geoopt | not installed |" in text
    assert re.search(r"left out: [^.]*\bgeoopt\b", text)


def test_peers_that_are_known_are_not_trained_again() -> None:
    known = {"by hand": finding(7.0, 1.0), "`Symmetric()`": finding(7.0, 1.0)}
    found = run(tiny(), quick=True, known=known)
    ours, theirs = found["`Symmetric()`"], found["by hand"]
    assert ours is not None
    assert theirs is not None
    assert theirs.outcomes == known["by hand"].outcomes
    assert ours.outcomes["SGD"].loss != 7.0
    assert theirs.seconds["SGD"] < 1.0


def test_what_is_stored_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "results"
    findings = {"`Symmetric()`": finding(math.inf, 1.0), "geoopt": None}
    store.append(path, "tiny", findings)
    assert store.stored(path) == {"tiny": findings}
    assert store.stored(tmp_path / "none") == {}


def test_the_page_has_every_problem_of_every_family() -> None:
    families: dict[str, list[Solved]] = {}
    for family, problems in FAMILIES.items():
        families[family] = []
        for name, new_problem in problems.items():
            problem = new_problem()
            found = {title: finding(1e-3, 1.0) for title in problem.contestants}
            families[family].append(Solved(name, problem, found))
    text = page.page(families)
    for name in PROBLEMS:
        assert f"### {name[0].upper()}{name[1:]}\n" in text
