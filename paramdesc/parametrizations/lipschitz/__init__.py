"""Weights of 1-Lipschitz layers, which do not increase distances."""
