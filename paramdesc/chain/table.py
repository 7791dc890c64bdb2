"""Tables for the terminal and for notebooks, from rows of text."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from html import escape
from shutil import get_terminal_size

__all__ = ["fill", "html_table", "text_table"]

NARROWEST = 8
"""The width of a column, in characters, below which rows are stacked."""
LONGEST = 400
"""The length of a cell, in characters, from which on its middle is left out."""
UNLIMITED = (10_000, 24)
"""The width and height where there is no terminal: a log should not depend on it."""

Rows = Sequence[Sequence[object]]


def text_table(header: Sequence[str], rows: Rows) -> str:
    """A table that is at most as wide as the terminal; in a file or pipe, as wide as needed.

    If it does not fit, the widest cells are wrapped. If that does not help, rows are stacked, with
    a line for each cell. Columns of numbers are aligned to the right.
    """
    width = max(20, get_terminal_size(UNLIMITED).columns)
    table = [[shortened(str(cell)) for cell in row] for row in (header, *rows)]
    to_right = [all(map(is_number, column[1:])) for column in zip(*table, strict=True)]
    widths = fit([max(map(len, column)) for column in zip(*table, strict=True)], width)
    if widths is None:
        return stacked(table[0], table[1:], width)
    lines: list[str] = []
    for row in table:
        cells = [wrap(cell, room) for cell, room in zip(row, widths, strict=True)]
        for i in range(max(map(len, cells), default=0)):
            parts = [cell[i] if i < len(cell) else "" for cell in cells]
            lines.append(
                "  ".join(
                    part.rjust(room) if right else part.ljust(room)
                    for part, room, right in zip(parts, widths, to_right, strict=True)
                ).rstrip()
            )
    return "\n".join(lines)


def fill(text: str) -> str:
    """`text` in lines that fit the terminal."""
    return textwrap.fill(text, max(20, get_terminal_size(UNLIMITED).columns))


def html_table(header: Sequence[str], rows: Rows, caption: str = "") -> str:
    """A table for a notebook, in its colors, that scrolls if it is wider than the page."""
    cell = "text-align: left; vertical-align: top; padding: 0.25em 0.75em"
    titles = "".join(
        f'<th style="{cell}; white-space: nowrap">{escape(str(title))}</th>' for title in header
    )
    body = "".join(
        "<tr>"
        + "".join(f'<td style="{cell}">{escape(shortened(str(x)))}</td>' for x in row)
        + "</tr>"
        for row in rows
    )
    below = f"<div>{escape(caption)}</div>" if caption else ""
    # no colors: those of the notebook, light or dark, are inherited
    return (
        '<div style="overflow-x: auto; max-width: 100%">'
        '<table style="border-collapse: collapse; color: inherit">'
        f"<thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>{below}</div>"
    )


def is_number(cell: str) -> bool:
    return re.fullmatch(r"-|[\d,.]+(e[+-]?\d+)?", cell) is not None


def shortened(cell: str) -> str:
    """`cell`, with the middle of a very long text left out."""
    half = LONGEST // 2
    return cell if len(cell) <= LONGEST else f"{cell[:half]} … {cell[-half:]}"


def fit(widths: Sequence[int], total: int) -> list[int] | None:
    """Widths of the columns that fit into `total`; None if a column would become too narrow."""
    room = total - 2 * (len(widths) - 1)
    fitted = list(widths)
    while sum(fitted) > room:
        widest = max(fitted)
        if widest <= NARROWEST:
            return None
        fitted[fitted.index(widest)] -= 1
    return fitted


def wrap(cell: str, width: int) -> list[str]:
    """The lines of `cell`, broken after a space, a comma, a dot, a bracket or an underscore."""
    lines = [""]
    for part in re.findall(r"[^\s,.(_]*[\s,.(_]?", cell):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("")
        while len(part.rstrip()) > width:
            lines[-1], part = part[:width], part[width:]
            lines.append("")
        lines[-1] += part
    return [line.rstrip() for line in lines]


def stacked(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """A block of lines for each row, with the titles on the left."""
    left = max(map(len, header), default=0)
    blocks = [
        "\n".join(
            f"{title if not i else '':<{left}}  {line}".rstrip()
            for title, cell in zip(header, row, strict=True)
            for i, line in enumerate(wrap(cell, max(NARROWEST, width - left - 2)))
        )
        for row in rows
    ]
    return "\n\n".join(blocks) or "  ".join(header)
