"""Every benchmark runs and measures something. How long it takes is never tested."""

from __future__ import annotations

import math
from types import ModuleType

import pytest
import torch

from tests.benchmarks.__main__ import BENCHMARKS
from tests.benchmarks.gpu import tables as gpu_tables
from tests.benchmarks.gpu.__main__ import INTRODUCTION, PAGE
from tests.benchmarks.gpu.clocks import Budget
from tests.benchmarks.table import Goal, Table


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch's own
@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_row_holds_finite_positive_figures(benchmark: ModuleType) -> None:
    threads = torch.get_num_threads()
    found: list[Table] = list(benchmark.tables(quick=True))
    assert torch.get_num_threads() == threads
    check(found)


def check(found: list[Table]) -> None:
    assert found
    for table in found:
        assert table.rows
        for name, figures in table.rows.items():
            assert len(figures) == len(table.columns), name
            shown = [figure for figure in figures if figure is not None]
            assert shown, name
            assert all(math.isfinite(figure) and figure > 0 for figure in shown), (name, figures)


def test_the_benchmarks_of_a_gpu_run_on_a_cpu() -> None:
    setting = gpu_tables.Setting("cpu", Budget(1.0, gpu_tables.COUNT), quick=True)
    check(list(gpu_tables.tables(setting)))


def test_the_page_of_the_gpu_says_how_it_is_written() -> None:
    assert PAGE.read_text(encoding="utf-8").startswith(INTRODUCTION)


def test_a_table_says_whether_its_goal_is_reached() -> None:
    table = Table(
        "T", "Text.", ("a", "b"), {"row": (1.0, None)}, [Goal("x", 2, 1.5), Goal("y", 2, 3)]
    )
    assert table.markdown() == (
        "## T\n\nText.\n\n"
        "|     |   a |   b |\n"
        "| --- | --: | --: |\n"
        "| row |   1 |     |\n\n"
        "Goal: x at most 2. Measured: 1.5, reached.\n\n"
        "Goal: y at most 2. Measured: 3, **not reached**.\n"
    )
