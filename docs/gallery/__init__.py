"""The gallery: a picture of what each map makes of a weight. An extension of Sphinx.

For every map there is a record that says how it is written, which weight it is registered on, and
which plot shows its constraint best. The records are in one file for each family.
"""

from .colors import on_dark
from .drawing import as_svg, draw
from .entry import Entry
from .page import GALLERY, setup, write_gallery, write_picture

__all__ = [
    "GALLERY",
    "Entry",
    "as_svg",
    "draw",
    "on_dark",
    "setup",
    "write_gallery",
    "write_picture",
]
