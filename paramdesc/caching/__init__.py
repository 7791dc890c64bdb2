"""Keeping values: scopes, what kept values depend on, and the regimes of a read."""
