"""The page for readers shows the figures that were stored."""

from __future__ import annotations

import pytest

from tests.benchmarks.front_picture import trained
from tests.benchmarks.readers import PAGE, page
from tests.benchmarks.stored import DETAILS, read
from tests.benchmarks.table import Goal, Table


def test_a_written_table_is_read_back() -> None:
    table = Table("T", "Text.", ("a", "b, c"), {"x": (1.5, None), "y": (2e-7, 300.0)})
    other = Table("U", "Text.", ("a",), {"z": (1.0,)}, [Goal("x", 2, 3)])
    found = read(f"# Page\n\n{table.markdown()}\n{other.markdown()}")
    assert list(found) == ["T", "U"]
    assert found["T"].columns == table.columns
    assert found["T"].rows == table.rows
    assert found["T"].figure("y", "b, c") == 300
    with pytest.raises(ValueError, match="no figure of 'x' under 'b, c'"):
        found["T"].figure("x", "b, c")


def test_the_page_has_the_stored_figures() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(read(DETAILS.read_text(encoding="utf-8")))
    assert "<<" not in text


def test_only_the_constrained_kernel_stays_orthogonal() -> None:
    (low, high), (lowest, highest) = trained(True, steps=5)[-1], trained(False, steps=5)[-1]
    assert abs(low - 1) < 1e-5 > abs(high - 1)
    assert lowest < 0.99
    assert highest > 1.01
