"""The gallery of the docs has every map, and its pictures show what the maps promise."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from torch.nn import Module

from paramdesc import Parametrization, parametrizations

DOCS = Path(__file__).parents[2] / "docs"
BASES = {"LinearStructure"}  # to derive from: it has no value of its own


@pytest.fixture
def gallery(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("gallery")


@pytest.fixture
def entries(gallery: Any) -> dict[str, Any]:
    return {entry.name: entry for family in gallery.GALLERY.values() for entry in family}


def test_every_map_has_a_picture(entries: dict[str, Any]) -> None:
    maps = {
        name
        for name in parametrizations.__all__
        if isinstance(found := getattr(parametrizations, name), type) and issubclass(found, Module)
    }
    assert maps - BASES == set(entries) - {"joint"}


def test_every_picture_has_a_place_and_words_of_its_own(gallery: Any) -> None:
    all_entries = [entry for family in gallery.GALLERY.values() for entry in family]
    for distinct in ("file", "alt", "caption"):
        assert len({getattr(entry, distinct) for entry in all_entries}) == len(all_entries)
    assert all(entry.caption.endswith(".") for entry in all_entries)


def test_what_is_drawn_satisfies_the_constraint(entries: dict[str, Any]) -> None:
    for name, entry in entries.items():
        made = entry.make()
        value = entry.evaluate(made, entry.weight)
        if isinstance(made, Parametrization) and made.constraint and name != "Compose":
            assert made.deviation(value).item() <= made.tolerance(value), name


@pytest.mark.parametrize(
    "name", ["Hermitian", "HurwitzStable", "Positive", "ConvolutionSpectralNorm"]
)
def test_a_picture_is_drawn_for_light_and_for_dark_pages(
    gallery: Any, entries: dict[str, Any], tmp_path: Path, name: str
) -> None:
    gallery.write_picture(entries[name], tmp_path)
    light, dark = (
        (tmp_path / f"{name.lower()}-{mode}.svg").read_text(encoding="utf-8")
        for mode in ("light", "dark")
    )
    assert "layer.weight" in light
    assert "layer.weight" in dark
    assert "#24292f" in light
    assert "#24292f" not in dark
    assert gallery.on_dark(light) == dark


def test_the_same_picture_is_drawn_each_time(gallery: Any, entries: dict[str, Any]) -> None:
    first, second = (gallery.as_svg(gallery.draw(entries["Symmetric"])) for _ in range(2))
    assert first == second
