"""Putting parametrizations on the tensors of a module, and taking them off."""
