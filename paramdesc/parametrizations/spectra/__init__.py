"""Maps to matrices with given rank, eigenvalues or determinant."""
