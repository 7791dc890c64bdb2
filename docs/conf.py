"""How the site is built. The package is imported as installed, not from the checkout."""

import doctest
import re
from importlib.metadata import version as installed_version

from sphinx.application import Sphinx

project = "paramdesc"
author = "The paramdesc authors"
copyright = "2026, The paramdesc authors"
release = version = installed_version("paramdesc")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"paramdesc {release}"
html_show_sphinx = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

doctest_default_flags = doctest.ELLIPSIS  # without it, sphinx compares no message of an exception
default_role = "literal"  # docstrings write `code` as Markdown does
autodoc_class_signature = "separated"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False

# docstrings use the public names as they are; the pages import what they need
doctest_global_setup = """
import torch
from paramdesc import *
from paramdesc.parametrizations import *
torch.manual_seed(0)
"""


def separate_plurals(*arguments: object) -> None:
    """Let "`Name`s" be a name and an s: reStructuredText would look for the end of the name."""
    lines = arguments[-1]
    assert isinstance(lines, list)
    lines[:] = [re.sub(r"(`[^`\s][^`]*`)(?=\w)", r"\1\\ ", line) for line in lines]


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", separate_plurals)
