"""What a parametrization is, and how a chain of them is evaluated."""
