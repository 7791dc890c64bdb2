"""Tables for the terminal and for notebooks."""

from paramdesc.chain.table import fill, html_table, text_table

__all__ = ["fill", "html_table", "text_table"]
