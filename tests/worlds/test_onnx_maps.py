"""The page on shipping says of each map whether it exports to ONNX."""

from __future__ import annotations

import re

import pytest

from tests.parametrizations.all_cases import CASES
from tests.worlds.onnx_maps import BEGIN, END, PAGE, TOLERANCE, export_case, table, title_of


def test_the_table_has_a_row_for_each_map_and_no_other() -> None:
    text = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert re.findall(r"^\| `(.*?)` \|", text, re.MULTILINE) == sorted(
        {title_of(case)[0] for case in CASES.values()}
    )
    assert text.startswith(table({}))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_case_is_exported_and_compared() -> None:
    pytest.importorskip("onnxscript", reason="torch.onnx needs it")
    pytest.importorskip("onnxruntime", reason="it runs the program")
    outcome = export_case(CASES["symmetric"])
    assert outcome.error is not None
    assert outcome.error < TOLERANCE
    failed = export_case(CASES["special linear"])
    assert failed == (None, "aten._linalg_slogdet")
