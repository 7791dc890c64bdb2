"""Functions that register a map in one line."""
