"""Parametrizations, and how a chain of them is evaluated."""
