"""Runs all problems and writes docs/training_quality.md, or prints some of them."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from tests.benchmarks.training_quality import page
from tests.benchmarks.training_quality.grid import run
from tests.benchmarks.training_quality.problems import FAMILIES
from tests.benchmarks.training_quality.results import Solved

PAGE = Path(__file__).parents[3] / "docs" / "training_quality.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problems", nargs="*", help="names, or parts of names; default: all")
    parser.add_argument("--quick", action="store_true", help="a smoke run: the figures mean little")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    families: dict[str, list[Solved]] = {}
    for family, problems in FAMILIES.items():
        for name, new_problem in problems.items():
            if not arguments.problems or any(part in name for part in arguments.problems):
                problem = new_problem()
                solved = Solved(name, problem, run(problem, arguments.quick))
                families.setdefault(family, []).append(solved)
                print(page.problem_section(solved), end="\n\n", flush=True)
    print(page.summary([solved for family in families.values() for solved in family]))
    if not arguments.problems and not arguments.quick:
        PAGE.write_text(page.page(families), encoding="utf-8")


if __name__ == "__main__":
    main()
