"""The page of one parametrization."""

from __future__ import annotations

import re

from gallery.entry import Entry
from gallery.page import picture

import paramdesc
from paramdesc import parametrizations

from .examples import example_of
from .fact import Fact
from .facts import FACTS
from .launches import Launches

__all__ = ["page_of"]


def page_of(fact: Fact, entry: Entry, launches: dict[str, Launches], counted_on: str) -> str:
    """The page, as MyST Markdown. `counted_on` is the page that has the launches of all maps."""
    found = getattr(parametrizations, fact.name)
    parts = [
        f"---\nmyst:\n  html_meta:\n    keywords: {keywords(fact)}\n---\n",
        f"# {fact.title}\n",
        f"{entry.caption}\n",
        f"```{{math}}\n{fact.formula}\n```\n",
        "\n".join(picture(entry)),
        f"## When to use it\n\n{fact.use}\n",
        instead(fact),
        f"## Example\n\n```python\n{example_of(found) or example_of(first_function(fact))}\n```\n",
        "## Right inverse and cost\n",
        right_inverse(fact),
        cost(fact, launches, counted_on),
        reference(fact),
    ]
    return "\n".join(part for part in parts if part)


def keywords(fact: Fact) -> str:
    spoken = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", fact.name).lower()
    return ", ".join([spoken, fact.name, *fact.functions])


def instead(fact: Fact) -> str:
    if not fact.instead:
        return ""
    rows = "\n".join(f"- {link_to(name)} {reason}." for name, reason in fact.instead)
    return f"Alternatives:\n\n{rows}\n"


def link_to(name: str) -> str:
    if name in FACTS:
        return f"[`{name}`]({FACTS[name].page}.md)"
    return f"{{py:obj}}`{name} <paramdesc.{name}>`"


def right_inverse(fact: Fact) -> str:
    if not fact.replaced:
        return "Right inverse\n: Registering and assigning keep every value.\n"
    return (
        "Right inverse\n: Registering and assigning keep a value that satisfies the constraint. "
        f"Any other value is {fact.replaced}.\n"
    )


def cost(fact: Fact, launches: dict[str, Launches], counted_on: str) -> str:
    lines = [f"Cost, forward and backward\n: {fact.cost}\n"] if fact.cost else []
    if fact.launches:
        count = launches[fact.launches]
        lines.append(
            f"Launches on a GPU\n: {count.both}: {count.forward} forward and {count.backward} "
            f"backward, for the case “{fact.launches}” of "
            f"[the counted launches](/{counted_on}.md#launches-on-a-gpu).\n"
        )
    return "\n".join(lines)


def reference(fact: Fact) -> str:
    """The docstrings of the class and of its functions."""
    lines = [
        "## Reference",
        "",
        "```{eval-rst}",
        ".. currentmodule:: paramdesc.parametrizations",
        "",
    ]
    if isinstance(getattr(parametrizations, fact.name), type):
        lines += [f".. autoclass:: {fact.name}", *members(fact.name), ""]
    for name in fact.functions:
        lines += [f".. autofunction:: {name}", ""]
    return "\n".join([*lines, "```", ""])


MEMBERS = {
    "ConvolutionSpectralNorm": "for_module, norm",
    "OrthogonalConvolution": "for_module, deviation",
    "Rounded": "scale_and_zero",
    "SpectralNorm": "norm",
}


def members(name: str) -> list[str]:
    return [f"   :members: {MEMBERS[name]}"] if name in MEMBERS else []


def first_function(fact: Fact) -> object:
    for name in fact.functions:
        found = getattr(parametrizations, name, None) or getattr(paramdesc, name)
        if example_of(found):
            return found
    raise LookupError(f"{fact.name} has no example")
