"""Checks of the built site: `python -m checks docs/_build/html`, with docs on the path.

Dead links are looked for in any case, all else in Chromium, where it is installed.
"""
