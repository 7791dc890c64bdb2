"""Maps that act on each entry, or on the entries along an axis."""
