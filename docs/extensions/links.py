"""Code spans that name something public, of this package or of torch, are links to it."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

from docutils import nodes  # type: ignore[import-untyped]
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

import paramdesc
from paramdesc import errors, parametrizations, testing

from .inventories import TORCH_NAMES

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["PUBLIC", "CodeSpansAreLinks", "setup"]

WORDS = {"cache", "cached", "frozen", "normal", "ordered", "positive", "scaled", "tie"}
"""Names that are ordinary words or names of other things: only a written reference links them."""


def public_names() -> dict[str, str]:
    """Each public name with its full one."""
    modules: tuple[ModuleType, ...] = (errors, testing, parametrizations, paramdesc)
    names = {
        name: f"{module.__name__}.{name}"
        for module in modules
        for name in module.__all__
        if not isinstance(getattr(module, name), ModuleType)
    }
    ours = {name: full for name, full in names.items() if name not in WORDS}
    theirs = {name.partition(":")[0] for listed in TORCH_NAMES.values() for name in listed}
    short = {name.removeprefix("torch."): name for name in theirs if name.startswith("torch.nn.")}
    return {name: name for name in theirs} | short | ours


PUBLIC = public_names()
NOT_INSIDE = (nodes.reference, nodes.title, addnodes.pending_xref, addnodes.desc_signature)


class CodeSpansAreLinks(SphinxTransform):
    """Replaces a code span by a reference, unless it is one already or names what is around it."""

    default_priority = 400

    def apply(self, **arguments: Any) -> None:
        for span in list(self.document.findall(nodes.literal)):
            name = span.astext().removeprefix("P.").removesuffix("()")
            full = PUBLIC.get(name)
            if full and not inside(span, full):
                reference = addnodes.pending_xref(
                    "",
                    span.deepcopy(),
                    refdomain="py",
                    reftype="obj",
                    reftarget=full,
                    refdoc=self.env.current_document.docname,
                    refexplicit=False,
                    refwarn=False,
                )
                span.replace_self(reference)


def inside(span: nodes.literal, full: str) -> bool:
    """Whether the span is part of a reference or a heading, or of what describes the object."""
    node: Any = span.parent
    while node is not None:
        if isinstance(node, NOT_INSIDE):
            return True
        if isinstance(node, addnodes.desc) and full in node[0].get("ids", ()):
            return True
        node = node.parent
    return False


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx calls this as it loads the extension."""
    app.add_transform(CodeSpansAreLinks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
