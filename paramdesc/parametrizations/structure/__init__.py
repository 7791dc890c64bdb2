"""Maps onto matrices of a linear or algebraic structure."""
