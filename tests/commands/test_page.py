"""What docs/guide/files.md shows is what the commands print."""

from __future__ import annotations

import re
import shlex
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from paramdesc.commands.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "files.md"


def test_examples_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older function is deprecated
        conv = nn.utils.weight_norm(nn.Conv1d(16, 32, 7))
    head = nn.utils.parametrizations.spectral_norm(nn.Linear(32, 8))
    model = nn.ModuleDict({"conv": conv, "norm": nn.LayerNorm(32), "head": head})
    torch.save(model.state_dict(), "vocoder.pt")
    examples = re.findall(r"```console\n\$ python -m paramdesc (.*)\n([^`]*)```", PAGE.read_text())
    assert len(examples) == 2
    for command, expected in examples:
        assert main(shlex.split(command)) == 0
        assert capsys.readouterr().out == expected
