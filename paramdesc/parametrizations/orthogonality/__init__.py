"""Maps to orthogonal matrices, spheres and subspaces."""
