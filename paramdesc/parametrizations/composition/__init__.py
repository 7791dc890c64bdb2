"""Maps that combine other maps."""
