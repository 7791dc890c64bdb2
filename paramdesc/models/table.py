"""Tables for the terminal and for notebooks."""

from paramdesc.chain.table import html_table, text_table

__all__ = ["html_table", "text_table"]
