"""Links within the site that lead nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urldefrag, urlsplit

__all__ = ["dead_links"]

ADDRESSES = {("a", "href"), ("img", "src"), ("link", "href"), ("script", "src")}


class Page(NamedTuple):
    """What a page links to, and what in it can be linked to."""

    links: set[str]
    anchors: set[str]


class Reader(HTMLParser):
    """Collects both."""

    def __init__(self) -> None:
        super().__init__()
        self.page = Page(set(), set())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and (tag, name) in ADDRESSES:
                self.page.links.add(value)
            if value and name == "id":
                self.page.anchors.add(value)


def read(path: Path) -> Page:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader.page


def dead_links(site: Path) -> Iterator[str]:
    """A line for each link to a page, file or anchor that is not there."""
    pages = {path: read(path) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        for link in sorted(page.links):
            if not urlsplit(link).scheme and not leads_somewhere(link, path, pages):
                yield f"{path.relative_to(site)}: nothing is at {link}"


def leads_somewhere(link: str, path: Path, pages: dict[Path, Page]) -> bool:
    address, anchor = urldefrag(link)
    file = unquote(urlsplit(address).path)
    target = (path.parent / file).resolve() if file else path
    if target not in pages or not anchor:
        return target.exists()
    return unquote(anchor) in pages[target].anchors
