"""The report as a table."""

from __future__ import annotations

import re
from datetime import datetime

import pytest
import torch

import paramdesc as P
from paramdesc.caching.record import Cause, Reason
from paramdesc.caching.report import CacheReport, CacheRow
from tests.caching.report.models import INPUT, model
from tests.helpers import chain_of


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def masked(report: CacheReport) -> str:
    """The table with its times replaced, and with the widths that are left."""
    text = re.sub(r"\d\d:\d\d:\d\d", "hh:mm:ss", str(report))
    return re.sub(r"(Scaled|Double|Shift) [\d.e+-]+ (?:us|ms|s)", r"\1 t", text)


def test_the_table_is_readable() -> None:
    network = model()
    with P.cached(network) as scope, torch.no_grad():
        network(INPUT)
        network(INPUT)
        chain_of(network[0]).original.add_(1)
        assert network[0].weight is not None
        chain_of(network[2])[0].eval().shift.requires_grad_(False)
        network(INPUT)
        lines = [re.sub(r"  +", "  ", line) for line in masked(scope.report()).splitlines()]
        widths = {line.index("hh:mm:ss") for line in masked(scope.report()).splitlines()[1:]}
    assert lines == [
        "tensor  kept  since  hits  misses  time in its parametrizations  last dropped",
        "0.weight  (3, 3) float32 cpu  hh:mm:ss  2  2  Scaled t, Double t  original: written to",
        "2.weight  (3, 3) float32 cpu  hh:mm:ss  1  2  Shift t  shift: requires_grad switched",
    ]
    assert len(widths) == 1


def test_the_exact_table_of_one_row() -> None:
    row = CacheRow(
        "encoder.weight",
        hits=12,
        misses=3,
        seconds={"0 Symmetric": 2.5e-5, "1 Cayley": 0.0125, "2 Slow": 3.0},
        value="(3, 3) torch.float32 cpu",
        bytes=36,
        since=datetime(2026, 1, 2, 3, 4, 5),
        dropped=Cause(Reason.WRITTEN, "original"),
    )
    empty = CacheRow("bias", hits=0, misses=0)
    assert str(CacheReport([row, empty])).splitlines() == [
        "tensor          kept                since     hits  misses  "
        "time in its parametrizations               last dropped",
        "encoder.weight  (3, 3) float32 cpu  03:04:05    12       3  "
        "Symmetric 25 us, Cayley 12.5 ms, Slow 3 s  original: written to",
        "bias            -                   -            0       0  "
        "-                                          -",
    ]


def test_a_table_without_rows_has_its_title() -> None:
    with P.cached() as scope:
        text = str(scope.report())
    assert text == "tensor  kept  since  hits  misses  time in its parametrizations  last dropped"
