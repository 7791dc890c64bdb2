"""Maps that are made of other maps."""
