"""Weights of bounded operator norm."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from paramdesc.base import Parametrization

__all__ = ["SpectralNorm"]

FIRST_ITERATIONS = 50


class SpectralNorm(Parametrization):
    """`layer.weight` will have spectral norm `bound`: `Y = bound * X / sigma(X)`.

    The norm `sigma`, the largest singular value, is `Re(uᴴ M v)` with the leading singular
    vectors `u` and `v` of the matrix `M` that `X` is read as: dimension `dim` as rows, all
    others as columns. They are found by power iteration, which goes on from the last
    solution at each training step, and only then.

    Shapes `(*) -> (*)`, one dimension at least; a vector is divided by its length. Real and
    complex; half precision is iterated in float32. A zero weight stays zero, with finite
    gradient. Cost of an evaluation: one product of `M` with a vector; of a training step:
    2 `n_power_iterations` more; of registering or assigning: 100.

    Assigning, and registering on a weight, keeps a weight of that norm as it is, and scales
    any other one.

    Args:
        bound: the norm, positive.
        dim: the dimension of `X` that gives the rows, 0 for linear and convolution layers,
            1 for transposed convolutions.
        n_power_iterations: how many iterations a training step makes.
        only_shrink: whether a weight of smaller norm is left as it is. Then `bound` is an
            upper bound, as residual flows need it.
        eps: a norm up to here counts as zero. By default the smallest normal number.

    Raises:
        ValueError: if an argument is out of its range, or `X` has no such dimension.

    Source: T. Miyato et al., *Spectral normalization for generative adversarial networks*,
    ICLR 2018, algorithm 1; `only_shrink`: H. Gouk et al., *Regularisation of neural networks
    by enforcing Lipschitz continuity*, Machine Learning 110 (2021), equation 9.

    >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", SpectralNorm())
    >>> round(torch.linalg.matrix_norm(linear.weight, 2).item(), 3)
    1.0
    """

    warm_start = ("_u", "_v")
    _u: Tensor
    _v: Tensor

    def __init__(
        self,
        bound: float = 1.0,
        *,
        dim: int = 0,
        n_power_iterations: int = 1,
        only_shrink: bool = False,
        eps: float | None = None,
    ) -> None:
        super().__init__()
        if bound <= 0:
            raise ValueError(f"bound must be positive. Got bound={bound}.")
        if n_power_iterations <= 0:
            raise ValueError(
                f"n_power_iterations must be positive. Got n_power_iterations={n_power_iterations}."
            )
        self.bound = bound
        self.dim = dim
        self.n_power_iterations = n_power_iterations
        self.only_shrink = only_shrink
        self.eps = eps

    def forward(self, X: Tensor) -> Tensor:
        sigma = self.norm(X)
        eps = torch.finfo(sigma.dtype).tiny if self.eps is None else self.eps
        scaled = sigma > (self.bound if self.only_shrink else eps)
        # where it is not scaled, the quotient must be finite all the same: it has a gradient
        factor = torch.where(scaled, self.bound / torch.where(scaled, sigma, 1.0), 1.0)
        return X * factor.to(X.dtype)

    def norm(self, X: Tensor) -> Tensor:
        """The spectral norm of `X`, from the state, differentiable: a real scalar."""
        matrix = self.matrix(X)
        if X.ndim == 1:
            length: Tensor = torch.linalg.vector_norm(matrix)
            return length
        if not self.has_state():  # under torch's engine, which starts nobody's state
            self.reset(X)
        # the state is written in place by later steps, while this graph may still need it
        u = self._u.to(matrix.dtype, copy=True)
        v = self._v.to(matrix.dtype, copy=True)
        sigma: Tensor = torch.vdot(u, matrix @ v).real
        return sigma

    def right_inverse(self, X: Tensor) -> Tensor:
        return X

    def guess(self, X: Tensor) -> tuple[Tensor, ...]:
        matrix = self.matrix(X)
        # a generator of its own: registering a map must not shift the user's random numbers
        generator = torch.Generator().manual_seed(0)
        u, v = (
            torch.randn(size, dtype=matrix.dtype, generator=generator).to(matrix.device)
            for size in (matrix.shape[0], 1 if X.ndim == 1 else matrix.shape[1])
        )
        return self.iterate(matrix, u, v, FIRST_ITERATIONS, X.dtype)

    def refine(self, X: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        return self.iterate(self.matrix(X), u, v, self.n_power_iterations, X.dtype)

    def iterate(
        self, matrix: Tensor, u: Tensor, v: Tensor, count: int, dtype: torch.dtype
    ) -> tuple[Tensor, ...]:
        """The leading singular vectors of `matrix` after `count` power iterations."""
        if matrix.ndim == 1:
            return u.to(dtype), v.to(dtype)
        u, v = u.to(matrix.dtype), v.to(matrix.dtype)
        for _ in range(count):
            u = normalize(matrix @ v, dim=0, eps=torch.finfo(matrix.dtype).tiny)
            v = normalize(matrix.mH @ u, dim=0, eps=torch.finfo(matrix.dtype).tiny)
        return u.to(dtype), v.to(dtype)

    def matrix(self, X: Tensor) -> Tensor:
        """`X` as the matrix whose norm counts, in a dtype that products are accurate in."""
        if not -X.ndim <= self.dim < X.ndim:
            raise ValueError(f"a weight of shape {tuple(X.shape)} has no dimension {self.dim}.")
        if X.dtype in (torch.float16, torch.bfloat16):
            X = X.float()
        return X if X.ndim == 1 else X.movedim(self.dim, 0).flatten(1)

    def extra_repr(self) -> str:
        shown = [f"bound={self.bound}", f"dim={self.dim}"]
        return ", ".join(shown + ["only_shrink=True"] * self.only_shrink)
