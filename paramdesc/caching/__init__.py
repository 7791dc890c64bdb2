"""The cache: scopes, the dependencies of cached values, and how tensors are read."""
