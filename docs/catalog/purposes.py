"""The tables by purpose: those of the index, and those that the library guide includes."""

from __future__ import annotations

from collections.abc import Iterator

from .fact import Fact
from .facts import FAMILIES, Family

__all__ = ["index", "tables"]

OPENING = """\
# Parametrizations by purpose

Find what the weight should satisfy, and follow the link: each page has the formula, a picture, an
example to copy, the cost, and alternatives. In the formulas `X` is the tensor that is
trained, and `Y` is the weight. [The library guide](../guide/library.md) explains what they have in
common, and the [gallery](../gallery.md) has all pictures on one page.
"""


def index() -> str:
    """The page, as MyST Markdown."""
    return "\n".join([OPENING, *map(section, FAMILIES)])


def section(family: Family) -> str:
    title, facts = family
    pages = "\n".join(f"{fact.name} <{fact.page}>" for fact in facts)
    rows = "\n".join(f"| {purpose} | {link} |" for fact in facts for purpose, link in links(fact))
    return (
        f"## {title}\n\n| to get | use |\n|---|---|\n{rows}\n\n"
        f"```{{toctree}}\n:hidden:\n:caption: {title}\n\n{pages}\n```\n"
    )


def tables() -> dict[str, str]:
    """Those with costs, for the library guide, by the name of their file."""
    return {f"purposes-{title.split()[0].lower()}": table(facts) for title, facts in FAMILIES}


def table(facts: tuple[Fact, ...]) -> str:
    lines = ["| to get | use | cost | other values are |", "|---|---|---|---|"]
    for fact in facts:
        cost = fact.cost.partition(". ")[0].removesuffix(".")
        (purpose, link), *variants = links(fact)
        lines.append(f"| {purpose} | {link} | {cost} | {fact.replaced or 'kept'} |")
        lines += [f"| {purpose} | {link} | | |" for purpose, link in variants]
    return "\n".join(lines) + "\n"


def links(fact: Fact) -> Iterator[tuple[str, str]]:
    """Purposes, and what to take, as a link to its page."""
    for purpose, call in fact.rows:
        yield purpose, f"[`{call}`](/parametrizations/{fact.page}.md)"
