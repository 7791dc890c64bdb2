"""How the site is built. The package is imported as installed, not from the checkout."""

import doctest
import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinx.application import Sphinx

project = "paramdesc"
author = "The paramdesc authors"
copyright = "2026, The paramdesc authors"
release = version = installed_version("paramdesc")

sys.path.insert(0, str(Path(__file__).parent))  # for the gallery alone

extensions = [
    "gallery",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build", "_generated"]

html_theme = "furo"
html_title = f"paramdesc {release}"
html_show_sphinx = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

doctest_default_flags = doctest.ELLIPSIS  # without it, sphinx compares no message of an exception
default_role = "literal"  # docstrings write `code` as Markdown does
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
toc_object_entries_show_parents = "hide"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False

# docstrings use the public names as they are; the pages import what they need. The classes of an
# example are pickled by the name of their module, which is the example itself.
doctest_global_setup = """
import sys, types
import torch
from paramdesc import *
from paramdesc.linalg.singular import largest_singular_triple
from paramdesc.parametrizations import *

class Example(types.ModuleType):
    def __getattr__(self, name):
        try:
            return globals()[name]
        except KeyError:
            raise AttributeError(name) from None

__name__ = "example"
sys.modules[__name__] = Example(__name__)
torch.manual_seed(0)
"""


def separate_plurals(*arguments: object) -> None:
    """Let "`Name`s" be a name and an s: reStructuredText would look for the end of the name."""
    lines = arguments[-1]
    assert isinstance(lines, list)
    lines[:] = [re.sub(r"(`[^`\s][^`]*`)(?=\w)", r"\1\\ ", line) for line in lines]


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", separate_plurals)
