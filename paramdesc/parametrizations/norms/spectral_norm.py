"""Weights of bounded operator norm.

Without postponed annotations: TorchScript takes those of a class as they are.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.precision import epsilon, matmul, smallest_normal, widened, without_autocast
from paramdesc.linalg.singular_iteration import (
    best_pair,
    first_left,
    improve_triple,
    orthogonal_part,
    some_vector,
)
from paramdesc.linalg.singular_on_cpu import improve_on_cpu
from paramdesc.torch_internals.dynamo import is_dynamo_compiling
from paramdesc.torch_internals.mode import has_autocast, is_plain

__all__ = ["SpectralNorm"]

MOST_ITERATIONS = 100
COMPILED_ITERATIONS = 8
FEW = 6
"""Up to how many iterations rounding leaves vectors orthogonal that are made so locally."""


class SpectralNorm(Parametrization):
    """`layer.weight` will have spectral norm `bound`: `Y = bound * X / sigma(X)`.

    The norm `sigma`, the largest singular value, is `Re(uᴴ M v)` with the leading singular
    vectors `u` and `v` of the matrix `M` that `X` is read as: dimension `dim` as rows, all
    others as columns. They go on from the last solution at each training step, and only
    then. A step takes the best vectors from the span of those that as many power iterations
    would meet, which is far better than the last of them; a single one is a power iteration.

    Shapes `(*) -> (*)`, one dimension at least; a vector is divided by its length. Real and
    complex; half precision is iterated in float32. A zero weight stays zero, with finite
    gradient. The gradient is exact for the vectors at hand, so its error is of first order
    in theirs, while that of `sigma` is of second order. Cost of an evaluation: one product of
    `M` with a vector; of a training step: 2 `n_power_iterations` + 1 more; of registering or
    assigning: 200 at most.

    The state is that of `torch.nn.utils.parametrizations.spectral_norm`, with the same
    meaning: checkpoints go both ways.

    Assigning, and registering on a weight, keeps a weight of that norm as it is, and scales
    any other one.

    Args:
        bound: the norm, positive.
        dim: the dimension of `X` that gives the rows, 0 for linear and convolution layers,
            1 for transposed convolutions.
        n_power_iterations: how many iterations a training step makes, by default 3, and 6 for
            more than 50 000 entries, where they cost little beside the passes over the
            weight. With a `tolerance`, how many at most, by default 100.
        tolerance: the relative error of the norm up to which a training step iterates, as
            far as it can be estimated from the residual. It looks at the numbers, which
            compiled code cannot: there, a step makes 8 iterations, or `n_power_iterations`
            if these are fewer.
        only_shrink: whether a weight of smaller norm is left as it is. Then `bound` is an
            upper bound, as residual flows need it.
        eps: a norm up to here counts as zero. By default the smallest normal number.
        strict: whether to refuse a weight of another norm instead of scaling it.

    Raises:
        ValueError: if an argument is out of its range, or `X` has no such dimension; with
            `strict`, if a weight that is assigned has another norm, with the relative
            difference.

    Source: T. Miyato et al., *Spectral normalization for generative adversarial networks*,
    ICLR 2018, algorithm 1; the iteration: G. H. Golub and W. Kahan, *Calculating the singular
    values and pseudo-inverse of a matrix*, SIAM J. Numer. Anal. 2 (1965), section 3;
    `only_shrink`: H. Gouk et al., *Regularisation of neural networks by enforcing Lipschitz
    continuity*, Machine Learning 110 (2021), equation 9.

    >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", SpectralNorm())
    >>> round(torch.linalg.matrix_norm(linear.weight, 2).item(), 3)
    1.0
    """

    constraint = "of the given spectral norm"
    warm_start = ("_u", "_v")
    _u: Tensor
    _v: Tensor

    def __init__(
        self,
        bound: float = 1.0,
        *,
        dim: int = 0,
        n_power_iterations: int | None = None,
        tolerance: float | None = None,
        only_shrink: bool = False,
        eps: float | None = None,
        strict: bool = False,
    ) -> None:
        super().__init__(strict=strict)
        if not 0 < bound < math.inf:
            raise ValueError(f"bound must be positive and finite. Got bound={bound}.")
        self.more_for_large = n_power_iterations is None and tolerance is None
        if n_power_iterations is None:
            n_power_iterations = 3 if tolerance is None else MOST_ITERATIONS
        if n_power_iterations <= 0:
            raise ValueError(
                f"n_power_iterations must be positive. Got n_power_iterations={n_power_iterations}."
            )
        if tolerance is not None and not 0 < tolerance < 1:
            raise ValueError(f"tolerance must be between 0 and 1. Got tolerance={tolerance}.")
        if eps is not None and not 0 <= eps < math.inf:
            raise ValueError(f"eps must be finite and not negative. Got eps={eps}.")
        self.bound = bound
        self.dim = dim
        self.n_power_iterations = n_power_iterations
        self.accuracy = tolerance
        self.compiled_iterations = (
            2 * n_power_iterations if tolerance is None else COMPILED_ITERATIONS
        )
        self.only_shrink = only_shrink
        self.eps = eps

    def forward(self, X: Tensor) -> Tensor:
        self.follow(X)
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            is_simple = self.is_simple(X)
            if is_simple:
                normalise: Any = Normalised.apply
                value: Tensor = normalise(X, self._u, self._v, self.bound, self.limit(X))
                return value
        matrix = self.matrix(X)
        sigma = self.leading_value(matrix)
        # up to the limit, nothing is divided
        quotient = self.bound / torch.threshold(sigma, self.limit(sigma), self.bound)
        result: Tensor = widened(X) * quotient
        return result.to(X.dtype)

    def limit(self, X: Tensor) -> float:
        """Up to which norm a weight is left as it is."""
        if self.only_shrink:
            return self.bound
        eps = self.eps
        if eps is None:
            return max(1.0, 4 * self.bound) * smallest_normal(X)  # the quotient is finite
        return eps

    def is_simple(self, X: Tensor) -> bool:
        """Whether `Normalised` gives value and gradient, with fewer passes over the weight."""
        return (
            not is_dynamo_compiling()
            and X.requires_grad
            and torch.is_grad_enabled()
            and self.dim == 0
            and X.ndim > 1
            and X.device.type == "cpu"
            and X.dtype in (torch.float32, torch.float64)
            and self._u.dtype == X.dtype
            and X.is_contiguous()
            and type(X) in (Tensor, Parameter)
            and is_plain()
            and not has_autocast()
        )

    def norm(self, X: Tensor) -> Tensor:
        """The spectral norm of `X`, from the state, differentiable: a real scalar."""
        return self.leading_value(self.matrix(X))

    def leading_value(self, matrix: Tensor) -> Tensor:
        """The singular value of `matrix` that belongs to the state."""
        if matrix.ndim == 1:
            return length_of(matrix)
        # the state is written in place by later steps, while this graph may still need it
        u = self._u.to(matrix.dtype, copy=True)
        v = self._v.to(matrix.dtype, copy=True)
        sigma: Tensor = torch.vdot(u, matmul(matrix, v)).real
        return sigma

    def right_inverse(self, Y: Tensor) -> Tensor:
        self.matrix(Y)
        self.admit(Y)
        return Y

    def deviation(self, Y: Tensor) -> Tensor:
        """How far the norm is from the bound, or with `only_shrink` above it, over the bound."""
        matrix = self.matrix(Y)
        if Y.numel() == 0:
            return torch.zeros((), dtype=matrix.real.dtype, device=Y.device)
        order = 2.0
        norm = length_of(matrix) if Y.ndim == 1 else torch.linalg.matrix_norm(matrix, order)
        excess: Tensor = norm / self.bound - 1
        return excess.clamp_min(0) if self.only_shrink else excess.abs()

    def tolerance(self, Y: Tensor) -> float:
        """What rounding and the iteration leave."""
        iteration = 0.01 if self.accuracy is None else self.accuracy
        return super().tolerance(Y) + (iteration if Y.ndim > 1 else 0.0)

    def guess(self, X: Tensor) -> tuple[Tensor, ...]:
        matrix = self.matrix(X)
        u, v = (
            some_vector(size, matrix)
            for size in (matrix.shape[0], 1 if X.ndim == 1 else matrix.shape[1])
        )
        if X.ndim == 1:
            return u, v
        return self.iterate(matrix, u, v, MOST_ITERATIONS, epsilon(matrix), X)

    def refine(self, X: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors that are `n_power_iterations` better, or as good as the tolerance asks for."""
        if X.ndim == 1:
            return u, v
        matrix = self.matrix(X)
        if u.dtype != matrix.dtype:
            u, v = u.to(matrix.dtype), v.to(matrix.dtype)
        count = self.n_power_iterations
        if self.more_for_large and X.numel() > 50_000:
            count *= 2
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            left, inverse = first_left(torch.mv(matrix, v), u)
            lefts = [left]
            products = [torch.mv(matrix.mH, left) * inverse]
            for _ in range(min(count, self.compiled_iterations, len(u), len(v)) - 1):
                left, _length = orthogonal_part(torch.mv(matrix, products[-1]) * inverse, lefts)
                lefts.append(left)
                products.append(torch.mv(matrix.mH, left) * inverse)
            u, v = best_pair(lefts, products, u, v)
            return u.to(X.dtype), v.to(X.dtype)
        if self.accuracy is None and count <= FEW and X.numel() > 0:
            found = improve_on_cpu(matrix, v, count)
            if found is not None:
                return found[0].to(X.dtype), found[1].to(X.dtype)
        if is_dynamo_compiling():
            count = min(count, self.compiled_iterations)
        return self.iterate(matrix, u, v, count, self.accuracy, X)

    @torch.jit.unused
    def iterate(
        self,
        matrix: Tensor,
        u: Tensor,
        v: Tensor,
        count: int,
        accuracy: float | None,
        X: Tensor,
    ) -> tuple[Tensor, Tensor]:
        with without_autocast(matrix):
            u, v = improve_triple(matrix.mv, matrix.mH.mv, u, v, count, accuracy)
        return u.to(X.dtype), v.to(X.dtype)

    def matrix(self, X: Tensor) -> Tensor:
        """`X` as the matrix whose norm counts, in a dtype that products are accurate in."""
        if not -X.ndim <= self.dim < X.ndim:
            raise ValueError(f"a weight of shape {list(X.shape)} has no dimension {self.dim}.")
        matrix = widened(X)
        if X.ndim == 1:
            return matrix
        return (matrix if self.dim == 0 else matrix.movedim(self.dim, 0)).flatten(1)

    def extra_repr(self) -> str:
        shown = [f"bound={self.bound}", f"dim={self.dim}"]
        shown += [f"tolerance={self.accuracy}"] if self.accuracy is not None else []
        return ", ".join(
            shown + ["only_shrink=True"] * self.only_shrink + ["strict=True"] * self.strict
        )


class Normalised(torch.autograd.Function):
    """`bound * X / sigma` with `sigma = uᵀ M v`, or `X` where `sigma` is at most `limit`.

    What autograd makes of the formula goes over the weight twice as often. On the CPU, where
    it costs nothing to look at `sigma`.
    """

    @staticmethod
    def forward(ctx: Any, X: Tensor, u: Tensor, v: Tensor, bound: float, limit: float) -> Tensor:
        # the state is written in place by later steps, while this graph may still need it
        u, v = u.clone(), v.clone()
        sigma = torch.dot(u, torch.mv(X.flatten(1), v)).item()
        ctx.save_for_backward(X, u, v)
        ctx.save_for_forward(X, u, v)
        ctx.sigma = sigma if sigma > limit else 0.0
        ctx.quotient = bound / sigma if sigma > limit else 1.0
        ctx.bound = bound
        value: Tensor = X * ctx.quotient
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        X, u, v = ctx.saved_tensors
        grad = grads[0]
        if not ctx.sigma:
            return grad, None, None, None, None
        along = torch.dot(grad.reshape(-1), X.view(-1))
        if torch.is_grad_enabled():  # to be differentiated once more
            sigma = torch.dot(u, torch.mv(X.flatten(1), v))
            outer = torch.outer(u, v).view_as(X)
            return (grad - along / sigma * outer) * (ctx.bound / sigma), None, None, None, None
        factor = -ctx.quotient * along.item() / ctx.sigma
        result = torch.addr(grad.flatten(1), u, v, beta=ctx.quotient, alpha=factor)
        return result.view_as(X), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        X, u, v = ctx.saved_tensors
        change = tangents[0]
        if ctx.sigma:
            along = torch.dot(u, torch.mv(change.flatten(1), v))
            change = change - along / ctx.sigma * X
        result: Tensor = ctx.quotient * change
        return result


def length_of(x: Tensor) -> Tensor:
    """The length of a vector; squares of its entries may overflow or vanish."""
    largest = torch.linalg.vector_norm(x.detach(), math.inf if x.numel() > 0 else 2.0)
    scale = torch.threshold(largest, smallest_normal(largest), 1.0)
    length: Tensor = torch.linalg.vector_norm(x / scale) * scale
    return length
