"""Weights of layers that enlarge no distance."""
