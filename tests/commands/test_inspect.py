"""`python -m paramdesc inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import paramdesc as P
from paramdesc.commands.cli import main
from paramdesc.parametrizations import Orthogonal, SpectralNorm
from tests.commands.checkpoints import make_model, save


def inspect(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["inspect", str(path), *options]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    return output


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    ("layout", "layouts"),
    [
        ("torch", {"torch"}),
        ("weight_g", {"weight_g", "spectral_norm"}),
        ("plain", set()),
    ],
)
def test_layouts_are_told(
    layout: str,
    layouts: set[str],
    suffix: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = save(make_model(layout).state_dict(), tmp_path / f"in{suffix}")
    data = json.loads(inspect(path, capsys, "--json"))
    tensors = {tensor["path"]: tensor for tensor in data["tensors"]}
    plain = make_model("plain").state_dict()
    assert set(tensors) == set(plain)
    for name, value in plain.items():
        expected = {"shape": list(value.shape), "dtype": str(value.dtype)[6:]}
        assert tensors[name]["plain"] == {**expected, "bytes": value.nbytes}
    assert {tensor["layout"] for tensor in tensors.values()} == {"plain", *layouts}


def test_maps_are_told_where_the_file_says_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    P.register_parametrization(model[0], "weight", Orthogonal())
    P.register_parametrization(model[1], "weight", SpectralNorm())
    path = save(model.state_dict(), tmp_path / "in.pt")
    rows: list[Any] = json.loads(inspect(path, capsys, "--json"))["tensors"]
    maps = {row["path"]: row["maps"] for row in rows}
    assert maps["0.weight"] == ["Orthogonal"]
    assert maps["1.weight"] == ["SpectralNorm"]
    assert maps["0.bias"] is None
    text = inspect(path, capsys)
    assert "Orthogonal" in text
    assert "needs its map" in text
    assert "paramdesc.plain_state_dict(model.eval())" in text


def test_names_of_a_norm_with_another_map_are_no_norm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the file says counts, not what the names look like."""
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    state_dict = layer.state_dict()
    state_dict._metadata["parametrizations.weight"]["paramdesc.maps"] = ["Other"]
    path = save(state_dict, tmp_path / "in.pt")
    (row,) = (
        row
        for row in json.loads(inspect(path, capsys, "--json"))["tensors"]
        if row["path"] == "weight"
    )
    assert row["plain"] is None
    assert main(["convert", str(path), str(tmp_path / "out.pt"), "--to", "plain"]) == 2
    assert "The file says that its map is Other." in capsys.readouterr().err


@pytest.mark.parametrize("columns", [60, 100])
@pytest.mark.parametrize("layout", ["torch", "weight_g", "plain"])
def test_the_table_fits_the_terminal(
    layout: str,
    columns: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.chdir(tmp_path)
    path = save({"model": make_model(layout).state_dict(), "epoch": 3}, Path("in.pt"))
    output = inspect(path, capsys, "--all")
    assert max(map(len, output.splitlines())) <= columns
    assert "linear.bias" in output
    assert "Also in the file: epoch" in output
    assert ("0 of them parametrized" in " ".join(output.split())) == (layout == "plain")


def test_plain_tensors_are_counted_and_not_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(make_model("torch").state_dict(), tmp_path / "in.pt")
    assert "embedding.weight" not in inspect(path, capsys)
    assert "embedding.weight" in inspect(path, capsys, "--all")


def test_tied_tensors_count_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensor = torch.ones(250)
    path = save({"a": tensor, "b": tensor}, tmp_path / "in.pt")
    assert json.loads(inspect(path, capsys, "--json"))["bytes"] == 1000
    assert "2 tensors, 1.0 kB" in inspect(path, capsys)
