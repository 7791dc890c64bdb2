"""The page of tested versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.versions import page
from tests.versions.page import PAGE, Row, read


def test_the_page_is_what_the_results_give() -> None:
    assert PAGE.read_text("utf-8") == page.page(read())


def test_a_run_replaces_an_earlier_one_and_comes_in_the_order_of_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(page, "STORE", tmp_path / "results.json")
    page.write(Row("3.13.0", "2.15.0+cu132", "2026-01-02", "jit", "", {"passed": 7}, []))
    failed = {"passed": 6, "failed": 1, "skipped": 2}
    page.write(Row("3.9.9", "2.9.0", "2026-01-01", "jit", "A note.", failed, ["jit/test_x.py::y"]))
    page.write(Row("3.13.0", "2.15.0+cu132", "2026-01-03", "jit", "", {"passed": 8}, []))
    text = page.PAGE.read_text("utf-8")
    first, second = (
        text.index("| 3.9.9 | 2.9.0 | 2026-01-01 | 6 | 1 | 2 |\n"),
        text.index("3.13.0 |"),
    )
    assert first < second
    assert "| 3.13.0 | 2.15.0+cu132 | 2026-01-03 | 8 | 0 | 0 |\n" in text
    assert "2026-01-02" not in text
    assert "with torch 2.9.0: `jit`. A note.\n  - failed: `jit/test_x.py::y`\n" in text
