"""Weights with bounded spectral norm.

No `from __future__ import annotations`: TorchScript needs the annotations of the class as objects.
"""

import math

import torch
from torch import Tensor

from paramdesc.linalg.precision import matmul, smallest_normal, widened, without_autocast
from paramdesc.linalg.singular_step import (
    affordable_iterations,
    improve_pair,
    improve_pair_of_map,
)
from paramdesc.parametrizations.norms.normalized import is_simple, normalized
from paramdesc.parametrizations.norms.operator_norm import OperatorNorm, start_vector
from paramdesc.torch_internals.dynamo import is_dynamo_compiling
from paramdesc.torch_internals.shards import Part

__all__ = ["SpectralNorm"]

LEAST_IN_PARTS = 2_000_000
"""How many entries a weight in shards must have, so that sending vectors takes less time than
gathering it: measured between two processes on a CPU."""


class SpectralNorm(OperatorNorm):
    """Give `layer.weight` the spectral norm `bound`: `Y = bound * X / sigma(X)`.

    `X` is read as a matrix `M`, with dimension `dim` as rows and all others as columns. Its norm
    `sigma`, the largest singular value, is `Re(uᴴ M v)` with the leading singular vectors `u` and
    `v`. Each training step, and only that, continues from the vectors of the previous one. A step
    takes the best vectors in the span of those that the same number of power iterations would
    produce, which are far more accurate than the last of them; a single iteration is a power
    iteration.

    Shapes `(*) -> (*)`, with at least one dimension; a vector is divided by its length. Real and
    complex; half precision is iterated in float32. A zero weight stays zero, with finite gradient.
    The gradient is exact for the current vectors, so its error is of first order in the error of
    the vectors, while the error of `sigma` is of second order. Cost of an evaluation: one product
    of `M` with a vector; of a training step: 2 `n_power_iterations` + 1 more; of registration or
    assignment: at most 200.

    In shards, as under tensor parallelism, a weight of 2 million entries or more is not gathered:
    each process multiplies its part, and only vectors are sent.

    On a GPU, where the number of operations counts more than their size, a step applies a Chebyshev
    polynomial of degree 4 `n_power_iterations` + 1 or more instead. It is as accurate, takes fewer
    operations, and does not synchronize with the device. Without a `tolerance`, nothing else in a
    training step does either.

    The state is the same as in `torch.nn.utils.parametrizations.spectral_norm`: checkpoints work in
    both directions.

    Assignment and registration keep a weight of this norm as it is and rescale any other.

    Args:
        bound: the norm, positive.
        dim: the dimension of `X` that becomes the rows: 0 for linear and convolution layers, 1 for
            transposed convolutions.
        n_power_iterations: the number of iterations in each training step. By default 3, or 6 on a
            CPU for more than 50 000 entries, where iterations are cheap compared with the passes
            over the weight. With a `tolerance`, the largest number, by default 100.
        tolerance: the relative error of the norm, estimated from the residual, at which the
            iteration of a training step stops. The test reads values, which compiled code cannot
            do: there, a step makes 8 iterations, or `n_power_iterations` if that is fewer.
        only_shrink: whether to leave a weight of smaller norm as it is, so that `bound` is an upper
            bound, as residual flows require.
        eps: a norm up to this value counts as zero. By default the smallest normal number.
        strict: whether to reject a weight of another norm instead of scaling it.

    Raises:
        ValueError: if an argument is out of its range, or `X` has no such dimension; with `strict`,
            if an assigned weight has another norm; the error's `deviation` is the relative
            difference.

    Source: T. Miyato et al., *Spectral normalization for generative adversarial networks*, ICLR
    2018, algorithm 1; for the iteration, G. H. Golub and W. Kahan, *Calculating the singular values
    and pseudo-inverse of a matrix*, SIAM J. Numer. Anal. 2 (1965), section 3; for `only_shrink`, H.
    Gouk et al., *Regularisation of neural networks by enforcing Lipschitz continuity*, Machine
    Learning 110 (2021), equation 9.

    >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", SpectralNorm())
    >>> round(torch.linalg.matrix_norm(linear.weight, 2).item(), 3)
    1.0
    """

    constraint = "of the given spectral norm"

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
        super().__init__(
            bound,
            n_power_iterations=n_power_iterations,
            tolerance=tolerance,
            only_shrink=only_shrink,
            strict=strict,
        )
        if eps is not None and not 0 <= eps < math.inf:
            raise ValueError(f"eps must be finite and not negative. Got eps={eps}.")
        self.more_for_large = n_power_iterations is None and tolerance is None
        self.dim = dim
        self.eps = eps

    def forward(self, X: Tensor) -> Tensor:
        self.follow(X)
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            moved = self.take_moved()
            if is_simple(X, self._u, self.dim):
                u, v = (self._u.clone(), self._v.clone()) if moved is None else moved
                return normalized(X, u, v, self.bound, self.limit(X), self.dim)
        return self.divided(X, self.norm(X))

    @torch.no_grad()
    def advance(self, *originals: Tensor) -> None:
        """Replace the state with the result of `refine`, which is kept for `forward`."""
        (X,) = originals
        better = self.refine(X, self._u, self._v)
        for tensor, vector in zip((self._u, self._v), better, strict=True):
            tensor.copy_(vector)
        if not is_dynamo_compiling() and better[0] is not self._u:
            self.__dict__["_moved"] = better

    @torch.jit.unused
    def take_moved(self) -> tuple[Tensor, Tensor] | None:
        """The state in tensors that later steps do not write to, if `follow` has just moved it."""
        if is_dynamo_compiling():
            return None
        moved: tuple[Tensor, Tensor] | None = self.__dict__.pop("_moved", None)
        return moved

    def forward_part(self, X: Tensor, part: Part) -> Tensor | None:
        """The iteration with products of the parts, which sends vectors instead of the weight."""
        is_small = len(part.shape) == 1 or part.shape.numel() < LEAST_IN_PARTS
        if is_small or is_dynamo_compiling() or not self.has_state():
            return None
        if self.is_due:
            self.is_due = False
            self.advance_parts(X, part)
        matrix = self.matrix(X)
        u, v = self._u.to(matrix.dtype, copy=True), self._v.to(matrix.dtype, copy=True)
        left, right = self.pieces(u, v, X, part)
        sigma = part.total(torch.vdot(left, matmul(matrix, right.flatten())).real)
        return self.divided(X, sigma)

    @torch.no_grad()
    def advance_parts(self, X: Tensor, part: Part) -> None:
        """`advance`, by products of the parts."""
        matrix = self.matrix(X)
        u, v = self._u.to(matrix.dtype), self._v.to(matrix.dtype)
        count = self.n_power_iterations
        if self.more_for_large:
            count = affordable_iterations(matrix, count, part.shape.numel())

        def image(x: Tensor) -> Tensor:
            y = torch.zeros_like(u)
            left, right = self.pieces(y, x, X, part)
            left.copy_(matrix.mv(right.flatten()))
            return part.total(y)

        def adjoint(y: Tensor) -> Tensor:
            x = torch.zeros_like(v)
            left, right = self.pieces(y, x, X, part)
            right.copy_(matrix.mH.mv(left).view_as(right))
            return part.total(x)

        with without_autocast(matrix):
            better = improve_pair_of_map(image, adjoint, u, v, count, self.accuracy)
        self._u.copy_(better[0])
        self._v.copy_(better[1])

    def pieces(self, u: Tensor, v: Tensor, X: Tensor, part: Part) -> tuple[Tensor, Tensor]:
        """Views of the entries of `u` and `v` that belong to the part `X` of the weight."""
        axes = [axis for axis in range(X.ndim) if axis != self.dim % X.ndim]
        columns = v.view([part.shape[axis] for axis in axes])
        if part.dim == self.dim % X.ndim:
            return u.narrow(0, part.start, X.shape[part.dim]), columns
        return u, columns.narrow(axes.index(part.dim), part.start, X.shape[part.dim])

    def smallest_norm(self, X: Tensor) -> float:
        eps = self.eps
        if eps is None:
            return max(1.0, 4 * self.bound) * smallest_normal(X)  # the quotient is finite
        return eps

    def norm(self, X: Tensor) -> Tensor:
        """The spectral norm of `X`, from the state, differentiable: a real scalar."""
        matrix = self.matrix(X)
        if matrix.ndim == 1:
            return length_of(matrix)
        # the state is written in place by later steps, while this graph may still need it
        u = self._u.to(matrix.dtype, copy=True)
        v = self._v.to(matrix.dtype, copy=True)
        sigma: Tensor = torch.vdot(u, matmul(matrix, v)).real
        return sigma

    def exact_norm(self, X: Tensor) -> Tensor:
        matrix = self.matrix(X)
        order = 2.0
        return length_of(matrix) if X.ndim == 1 else torch.linalg.matrix_norm(matrix, order)

    def guess(self, X: Tensor) -> tuple[Tensor, ...]:
        if X.ndim == 1:  # divided by its length, which takes no iteration
            return self.start(self.matrix(X))
        return super().guess(X)

    def start(self, operator: Tensor) -> tuple[Tensor, Tensor]:
        columns = 1 if operator.ndim == 1 else operator.shape[1]
        return start_vector(operator.shape[0], operator), start_vector(columns, operator)

    def refine(self, X: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors after `n_power_iterations`, or within the tolerance."""
        if X.ndim == 1:
            return u, v
        matrix = self.matrix(X)
        if u.dtype != matrix.dtype:
            u, v = u.to(matrix.dtype), v.to(matrix.dtype)
        count = self.n_power_iterations
        if self.more_for_large:
            count = affordable_iterations(matrix, count)
        u, v = self.improve(matrix, u, v, count)
        return u.to(X.dtype), v.to(X.dtype)

    @torch.jit.unused
    def iterate(
        self, operator: Tensor, u: Tensor, v: Tensor, count: int, accuracy: float | None
    ) -> tuple[Tensor, Tensor]:
        return improve_pair(operator, u, v, count, accuracy)

    def image(self, operator: Tensor, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return torch.mv(operator, x)

    def adjoint(self, operator: Tensor, y: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return torch.mv(operator.mH, y)

    def operator(self, X: Tensor) -> Tensor:
        return self.matrix(X)

    def check(self, X: Tensor) -> None:
        if not -X.ndim <= self.dim < X.ndim:
            raise ValueError(f"a weight of shape {list(X.shape)} has no dimension {self.dim}.")

    def matrix(self, X: Tensor) -> Tensor:
        """`X` as a matrix, in a dtype with accurate products."""
        self.check(X)
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


def length_of(x: Tensor) -> Tensor:
    """The length of a vector, correct even if squares of its entries overflow or underflow."""
    largest = torch.linalg.vector_norm(x.detach(), math.inf if x.numel() > 0 else 2.0)
    scale = torch.threshold(largest, smallest_normal(largest), 1.0)
    length: Tensor = torch.linalg.vector_norm(x / scale) * scale
    return length
