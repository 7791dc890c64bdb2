"""The cache: scopes, what cached values depend on, and the ways in which a tensor is read."""
