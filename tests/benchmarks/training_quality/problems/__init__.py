"""The problems, one file for each family of constraints."""

from __future__ import annotations

from collections.abc import Callable

from tests.benchmarks.training_quality.problem import Problem
from tests.benchmarks.training_quality.problems import (
    definite,
    entries,
    invertible,
    norms,
    orthogonal,
    rank,
    spheres,
    stable,
    structure,
)

__all__ = ["FAMILIES", "PROBLEMS"]

FAMILIES: dict[str, dict[str, Callable[[], Problem]]] = {
    "Orthogonal matrices": orthogonal.PROBLEMS,
    "Spheres": spheres.PROBLEMS,
    "Bounded rank": rank.PROBLEMS,
    "Positive definite matrices": definite.PROBLEMS,
    "Invertible matrices": invertible.PROBLEMS,
    "Stable matrices": stable.PROBLEMS,
    "Norms": norms.PROBLEMS,
    "Entries": entries.PROBLEMS,
    "Linear structure": structure.PROBLEMS,
}

PROBLEMS = {name: new for family in FAMILIES.values() for name, new in family.items()}
"""Each makes its problem, under the name of the task."""
