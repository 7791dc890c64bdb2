"""How the site is built. The package is imported as installed, not from the checkout."""

import doctest
import importlib.metadata
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for the extensions beside this file

from extensions.inventories import inventories  # noqa: E402
from extensions.mathjax import mathjax  # noqa: E402

project = "paramdesc"
author = "The paramdesc authors"
copyright = "2026, The paramdesc authors"
release = version = importlib.metadata.version("paramdesc")
REPOSITORY = "https://github.com/OWNER/paramdesc"  # the one place that names it

extensions = [
    "catalog",
    "extensions.docstrings",
    "extensions.links",
    "extensions.sources",
    "gallery",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "_generated", "**.ipynb_checkpoints"]

html_theme = "furo"
html_title = f"paramdesc {release}"
html_show_sphinx = False
html_favicon = "_static/favicon.svg"
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_theme_options = {
    "source_repository": REPOSITORY,
    "source_branch": "main",
    "source_directory": "docs/",
}

mathjax_path, mathjax_folder = mathjax()
html_static_path = ["_static", *mathjax_folder]
intersphinx_mapping = inventories(HERE / "_generated")
intersphinx_disabled_reftypes = ["std:*"]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
viewcode_line_numbers = True

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"  # a notebook runs again where it has changed
nb_execution_timeout = 60
nb_execution_raise_on_error = True

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
