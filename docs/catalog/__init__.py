"""A page for each parametrization, and an index by purpose. An extension of Sphinx.

What the docstrings do not say is in one file for each family; a picture comes from the gallery, an
example from the docstring, and the launches on a GPU from the page that has them.
"""

from .examples import as_code, example_of, imports_for
from .fact import Fact
from .facts import FACTS, FAMILIES
from .launches import read_launches
from .literature import LINKS, linked
from .purposes import index
from .writing import setup, write_pages

__all__ = [
    "FACTS",
    "FAMILIES",
    "LINKS",
    "Fact",
    "as_code",
    "example_of",
    "imports_for",
    "index",
    "linked",
    "read_launches",
    "setup",
    "write_pages",
]
