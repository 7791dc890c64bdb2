"""Extensions of Sphinx for this site, one a file."""
