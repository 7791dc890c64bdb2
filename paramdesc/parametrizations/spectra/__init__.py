"""Maps onto matrices of given rank, eigenvalues or determinant."""
