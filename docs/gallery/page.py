"""The pictures and the page that shows them, written as Sphinx starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import composition, elements, linear_structure, lipschitz, norms, orthogonal, rank, spectrum
from .colors import on_dark
from .drawing import as_svg, draw
from .entry import Entry

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["GALLERY", "picture", "setup", "write_changed", "write_gallery", "write_picture"]

GALLERY: dict[str, tuple[Entry, ...]] = {
    "Linear structure": linear_structure.ENTRIES,
    "Orthogonal matrices and spheres": orthogonal.ENTRIES,
    "Rank": rank.ENTRIES,
    "Spectrum and determinant": spectrum.ENTRIES,
    "Norms and means": norms.ENTRIES,
    "Lipschitz layers": lipschitz.ENTRIES,
    "Elements": elements.ENTRIES,
    "Composition": composition.ENTRIES,
}


def write_gallery(folder: Path, *, redraw: bool = True) -> None:
    """All pictures, or those that are missing, and what `gallery.md` includes."""
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for family, entries in GALLERY.items():
        lines += [f"## {family}", ""]
        for entry in entries:
            if redraw or not (folder / f"{entry.file}-dark.svg").exists():
                write_picture(entry, folder)
            lines += section(entry)
    write_changed(folder / "gallery.md", "\n".join(lines))


def write_picture(entry: Entry, folder: Path) -> None:
    """The picture of one map, once for light and once for dark pages."""
    picture = as_svg(draw(entry))
    write_changed(folder / f"{entry.file}-light.svg", picture)
    write_changed(folder / f"{entry.file}-dark.svg", on_dark(picture))


def picture(entry: Entry) -> list[str]:
    """The picture of one map, for light and for dark pages."""
    lines: list[str] = []
    for mode in ("light", "dark"):
        lines += [
            f"```{{image}} /_generated/{entry.file}-{mode}.svg",
            f":alt: {entry.alt}",
            f":class: only-{mode}",
            ":width: 100%",
            "```",
            "",
        ]
    return lines


def section(entry: Entry) -> list[str]:
    """What the page says of one map."""
    page = f"[`{entry.shown}`](parametrizations/{entry.file}.md)"
    return [f"### {entry.name}", "", *picture(entry), f"{page}: {entry.caption}", ""]


def write_changed(path: Path, text: str) -> None:
    """Write a file unless it is so already: Sphinx reads again what was written."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def write_before_reading(app: Sphinx) -> None:
    # drawing takes longer than all else that is generated, and examples do not show pictures
    write_gallery(Path(app.srcdir) / "_generated", redraw=app.builder.name != "doctest")


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx calls this as it loads the extension."""
    app.connect("builder-inited", write_before_reading)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
