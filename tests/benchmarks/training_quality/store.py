"""Keeps what was found in a file, one line of JSON for each problem, so that a run can go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks.training_quality.grid import Finding, Outcome

__all__ = ["append", "stored"]


def append(path: Path, name: str, findings: Mapping[str, Finding | None]) -> None:
    found = {title: finding and asdict(finding) for title, finding in findings.items()}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"problem": name, "findings": found}) + "\n")


def stored(path: Path) -> dict[str, dict[str, Finding | None]]:
    """What the file holds of each problem; the last line counts."""
    if not path.exists():
        return {}
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {
        line["problem"]: {title: restored(found) for title, found in line["findings"].items()}
        for line in lines
    }


def restored(found: Mapping[str, Mapping[str, Mapping[str, float]]] | None) -> Finding | None:
    if found is None:
        return None
    outcomes = {name: Outcome(**outcome) for name, outcome in found["outcomes"].items()}
    seconds: Mapping[str, float] = found["seconds"]  # type: ignore[assignment]
    return Finding(outcomes, seconds)
