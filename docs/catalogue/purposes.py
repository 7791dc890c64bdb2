"""The index by purpose: a table for each family, and the navigation of the pages."""

from __future__ import annotations

from .fact import Fact
from .facts import FAMILIES, Family

__all__ = ["index"]

OPENING = """\
# Parametrizations by purpose

Find what the weight should satisfy, and follow the link: each page has the formula, a picture, an example to copy,
the cost, and what to take instead. In the formulas `X` is the tensor that is trained, and `Y` is the weight.
[The library guide](../guide/library.md) explains what they have in common, and the [gallery](../gallery.md) has all
pictures on one page.
"""


def index() -> str:
    """The page, as MyST Markdown."""
    return "\n".join([OPENING, *(section(family) for family in FAMILIES)])


def section(family: Family) -> str:
    title, facts = family
    table = "\n".join(map(row, facts))
    pages = "\n".join(f"{fact.name} <{fact.page}>" for fact in facts)
    return (
        f"## {title}\n\n| to get | take |\n|---|---|\n{table}\n\n"
        f"```{{toctree}}\n:hidden:\n:caption: {title}\n\n{pages}\n```\n"
    )


def row(fact: Fact) -> str:
    return f"| {fact.purpose} | [`{fact.name}`]({fact.page}.md) |"
