"""Maps to matrices with linear or algebraic structure."""
