"""Runs all problems and writes docs/training_quality.md, or prints some of them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch

from tests.benchmarks.training_quality import page, store
from tests.benchmarks.training_quality.grid import Finding, run
from tests.benchmarks.training_quality.problem import Problem
from tests.benchmarks.training_quality.problems import FAMILIES
from tests.benchmarks.training_quality.results import Solved

PAGE = Path(__file__).parents[3] / "docs" / "training_quality.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problems", nargs="*", help="names, or parts of names; default: all")
    parser.add_argument("--quick", action="store_true", help="a smoke run: the figures mean little")
    parser.add_argument("--results", type=Path, help="a file to go on from, and to add to")
    parser.add_argument(
        "--again", action="store_true", help="train our maps again, and keep what peers have found"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = store.stored(arguments.results) if arguments.results else {}
    families: dict[str, list[Solved]] = {}
    for family, problems in FAMILIES.items():
        for name, new_problem in problems.items():
            wanted = arguments.problems or [""]
            if any(part in name or part in family for part in wanted):
                problem = new_problem()
                known = found.get(name)
                if known is None or arguments.again or set(known) != set(problem.contestants):
                    known = solve(problem, name, arguments, known)
                solved = Solved(name, problem, known)
                families.setdefault(family, []).append(solved)
                print(page.problem_section(solved), end="\n\n", flush=True)
    print(page.summary([solved for family in families.values() for solved in family]))
    if not arguments.problems and not arguments.quick:
        PAGE.write_text(page.page(families), encoding="utf-8")


def solve(
    problem: Problem,
    name: str,
    arguments: argparse.Namespace,
    known: Mapping[str, Finding | None] | None,
) -> dict[str, Finding | None]:
    findings = run(problem, arguments.quick, known)
    if arguments.results:
        store.append(arguments.results, name, findings)
    return findings


if __name__ == "__main__":
    main()
