"""Colors of light and of dark pages, told apart by color-blind readers.

A picture is drawn in those of light pages. Its text names each color as `#rrggbb`, so the picture
for dark pages is the same text with others.
"""

from __future__ import annotations

import re
from typing import Any

from matplotlib.colors import Colormap, LinearSegmentedColormap, to_hex

__all__ = ["ACCENT", "FAINT", "GRAY", "INK", "SCALE", "STEPS", "STYLE", "WASH", "on_dark"]

STEPS = 61
"""Of the scale of weights: blue is less than zero, red is more."""

LIGHT = ("#053061", "#2f79b5", "#a7cfe4", "#f4f4f2", "#fbbfa0", "#d0584a", "#67001f")
DARK = ("#b9dcff", "#5aa5e0", "#28567f", "#1d2024", "#7c3326", "#e0745a", "#ffd9c7")
INK, FAINT, GRAY, ACCENT, WASH = "#24292f", "#c9ced4", "#8b9097", "#0065a8", "#dfeaf3"


def scale_of(colors: tuple[str, ...]) -> Colormap:
    return LinearSegmentedColormap.from_list("weights", colors, N=STEPS)


SCALE = scale_of(LIGHT)

REPLACED = {
    **{to_hex(SCALE(i)): to_hex(scale_of(DARK)(i)) for i in range(STEPS)},
    INK: "#dde2e8",
    FAINT: "#4a5058",
    GRAY: "#9097a0",
    ACCENT: "#5fb4f0",
    WASH: "#22384a",
}


def on_dark(svg: str) -> str:
    """The same picture in the colors of dark pages."""
    return re.sub(r"#[0-9a-f]{6}\b", lambda found: REPLACED.get(found[0], found[0]), svg)


STYLE: Any = {
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "paramdesc",
    "text.color": INK,
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
}
