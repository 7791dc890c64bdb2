"""Registering parametrizations on the tensors of a module, and removing them."""
