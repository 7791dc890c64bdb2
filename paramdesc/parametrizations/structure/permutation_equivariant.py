"""Matrices that commute with every permutation."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.linalg.precision import widened
from paramdesc.linalg.shapes import check_square
from paramdesc.parametrizations.structure.linear_structure import LinearStructure

__all__ = ["PermutationEquivariant"]


class PermutationEquivariant(LinearStructure):
    """Make `layer.weight` commute with permutations: `Y = a I + b 1 1ᵀ`.

    `b` is the mean of the off-diagonal entries of `X`, and `a + b` is the mean of the diagonal
    entries. A layer with this weight and a constant bias treats its inputs as a set.

    Shapes `(*, n, n) -> (*, n, n)`, floating point or complex; half precision is averaged in
    float32. Every entry of `X` has an effect. A layer from `p` to `q` features of each element has
    a weight `(q, p, n, n)`. Cost: three passes over the matrix.

    Assignment and registration keep a matrix of this form up to rounding and replace any other with
    the nearest one in the Frobenius norm, which the means also give.

    Args:
        strict: whether to reject a matrix that is not of this form instead of replacing it.

    Raises:
        ValueError: if the matrices are not square; with `strict`, if an assigned matrix is not of
            this form; the error's `deviation` is the largest difference of an entry from its mean.

    Source: M. Zaheer et al., *Deep sets*, NeurIPS 2017, lemma 3.

    >>> layer = torch.nn.Linear(2, 2)
    >>> layer = register_parametrization(layer, "weight", PermutationEquivariant())
    >>> layer.weight = torch.tensor([[1.0, 2.0], [4.0, 5.0]])
    >>> layer.weight.tolist()
    [[3.0, 3.0], [3.0, 3.0]]
    """

    constraint = "permutation equivariant"
    roundings = 20

    def project(self, X: Tensor) -> Tensor:
        check_square(X, "permutation equivariant")
        n = X.shape[-1]
        wide = widened(X)
        trace = wide.diagonal(0, -2, -1).sum(-1)[..., None, None]
        others = wide.sum((-2, -1), keepdim=True) - trace
        on_diagonal = torch.eye(n, dtype=torch.bool, device=X.device)
        Y = torch.where(on_diagonal, trace / max(n, 1), others / max(n * n - n, 1))
        return Y.to(X.dtype)
