"""Writes the pages of the parametrizations as Sphinx starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gallery import GALLERY
from gallery.page import write_changed

from .facts import FACTS
from .launches import read_launches
from .page import page_of
from .purposes import index, tables

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["setup", "write_pages"]

FOLDER = "parametrizations"


def write_pages(folder: Path) -> None:
    """The index and a page for each parametrization; pages of former ones are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = {entry.name: entry for family in GALLERY.values() for entry in family}
    counted_on, launches = read_launches()
    pages = {
        fact.page: page_of(fact, entries[fact.name], launches, counted_on)
        for fact in FACTS.values()
    } | {"index": index()}
    for name, text in pages.items():
        write_changed(folder / f"{name}.md", text)
    for path in folder.glob("*.md"):
        if path.stem not in pages:
            path.unlink()


def write_before_reading(app: Sphinx) -> None:
    write_pages(Path(app.srcdir) / FOLDER)
    included = Path(app.srcdir) / "_generated"
    included.mkdir(exist_ok=True)
    for name, text in tables().items():
        write_changed(included / f"{name}.md", text)


def no_edit_link(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """What is generated cannot be edited."""
    if page.startswith(f"{FOLDER}/"):
        context["page_source_suffix"] = None


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx calls this as it loads the extension."""
    app.connect("builder-inited", write_before_reading)
    app.connect("html-page-context", no_edit_link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
