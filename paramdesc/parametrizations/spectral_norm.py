"""Weights of bounded operator norm.

Without postponed annotations: TorchScript takes those of a class as they are.
"""

import math

import torch
from torch import Tensor

from paramdesc.base import Parametrization
from paramdesc.linalg.precision import matmul, smallest_normal, widened

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
        if not 0 < bound < math.inf:
            raise ValueError(f"bound must be positive and finite. Got bound={bound}.")
        if n_power_iterations <= 0:
            raise ValueError(
                f"n_power_iterations must be positive. Got n_power_iterations={n_power_iterations}."
            )
        if eps is not None and not 0 <= eps < math.inf:
            raise ValueError(f"eps must be finite and not negative. Got eps={eps}.")
        self.bound = bound
        self.dim = dim
        self.n_power_iterations = n_power_iterations
        self.only_shrink = only_shrink
        self.eps = eps

    def forward(self, X: Tensor) -> Tensor:
        self.follow(X)
        matrix, scale = self.matrix(X), largest_entry(X)
        sigma = self.leading_value(matrix, scale)  # of X it is scale times that
        eps = self.eps
        if eps is None:
            eps = smallest_normal(sigma)
        divided = scale * sigma > (self.bound if self.only_shrink else eps)
        # what is not divided must give a finite quotient all the same: it has a gradient
        quotient = self.bound / torch.where(divided, sigma, 1.0) / scale
        result: Tensor = widened(X) * torch.where(divided, quotient, 1.0)
        return result.to(X.dtype)

    def norm(self, X: Tensor) -> Tensor:
        """The spectral norm of `X`, from the state, differentiable: a real scalar."""
        scale = largest_entry(X)
        return self.leading_value(self.matrix(X), scale) * scale

    def leading_value(self, matrix: Tensor, scale: Tensor) -> Tensor:
        """The singular value of `matrix / scale` that belongs to the state."""
        if matrix.ndim == 1:
            length: Tensor = torch.linalg.vector_norm(matrix / scale)
            return length
        # the state is written in place by later steps, while this graph may still need it
        u = self._u.to(matrix.dtype, copy=True)
        v = self._v.to(matrix.dtype, copy=True)
        sigma: Tensor = torch.vdot(u, matmul(matrix, v / scale)).real
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
        return self.iterate(X, u, v, FIRST_ITERATIONS)

    def refine(self, X: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.iterate(X, u, v, self.n_power_iterations)

    def iterate(self, X: Tensor, u: Tensor, v: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The leading singular vectors of `X` after `count` power iterations from `u`, `v`."""
        matrix, scale = self.matrix(X), largest_entry(X)
        u, v = u.to(matrix.dtype), v.to(matrix.dtype)
        for _ in range(count if X.ndim > 1 else 0):
            u = direction(matmul(matrix, v / scale), u)
            v = direction(matmul(matrix.mH, u / scale), v)
        return u.to(X.dtype), v.to(X.dtype)

    def matrix(self, X: Tensor) -> Tensor:
        """`X` as the matrix whose norm counts, in a dtype that products are accurate in."""
        if not -X.ndim <= self.dim < X.ndim:
            raise ValueError(f"a weight of shape {list(X.shape)} has no dimension {self.dim}.")
        matrix = widened(X)
        return matrix if X.ndim == 1 else matrix.movedim(self.dim, 0).flatten(1)

    def extra_repr(self) -> str:
        shown = [f"bound={self.bound}", f"dim={self.dim}"]
        return ", ".join(shown + ["only_shrink=True"] * self.only_shrink)


def largest_entry(X: Tensor) -> Tensor:
    """The largest absolute value in `X`, or one if that is zero.

    The products are made with vectors divided by it: squares of the entries themselves may
    overflow or vanish.
    """
    entries = widened(X.detach())
    largest = torch.linalg.vector_norm(entries, math.inf if X.numel() > 0 else 2.0)
    return torch.where(largest > smallest_normal(largest), largest, 1.0)


def direction(x: Tensor, otherwise: Tensor) -> Tensor:
    """`x` as a unit vector, or `otherwise` if it is zero: from there no iteration returns."""
    length = torch.linalg.vector_norm(x)
    return torch.where(length > 0, x / torch.where(length > 0, length, 1.0), otherwise)
