"""Maps onto orthogonal matrices, spheres and subspaces."""
