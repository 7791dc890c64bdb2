"""Dividing a weight by the norm of the linear map that it represents, found by iteration.

No `from __future__ import annotations`: TorchScript needs the annotations of the class as objects.
"""

import math

import torch
from torch import Tensor

from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.devices import is_bound_by_launches
from paramdesc.linalg.precision import epsilon, smallest_normal, widened, without_autocast
from paramdesc.linalg.singular_iteration import (
    best_pair,
    first_left,
    orthogonal_part,
    some_vector,
)
from paramdesc.linalg.singular_step import improve_pair_of_map
from paramdesc.torch_internals.dynamo import is_dynamo_compiling
from paramdesc.torch_internals.placeholders import is_placeholder

__all__ = ["MOST_ITERATIONS", "OperatorNorm", "start_vector"]

MOST_ITERATIONS = 100
COMPILED_ITERATIONS = 8


class OperatorNorm(Parametrization):
    """A map to `bound * X / sigma(X)`, with the norm `sigma` of the linear map that `X` represents.

    The state holds the leading singular vectors, `_u` and `_v`. Subclasses define the linear map
    with `check`, `operator`, `image` and `adjoint`, and its norm with `start`, `refine`, `norm` and
    `exact_norm`. The iteration runs on rows: a single vector, or several.
    """

    warm_start = ("_u", "_v")
    _u: Tensor
    _v: Tensor

    def __init__(
        self,
        bound: float,
        *,
        n_power_iterations: int | None,
        tolerance: float | None,
        only_shrink: bool,
        strict: bool,
    ) -> None:
        super().__init__(strict=strict)
        if not 0 < bound < math.inf:
            raise ValueError(f"bound must be positive and finite. Got bound={bound}.")
        if n_power_iterations is None:
            n_power_iterations = 3 if tolerance is None else MOST_ITERATIONS
        if n_power_iterations <= 0:
            raise ValueError(
                f"n_power_iterations must be positive. Got n_power_iterations={n_power_iterations}."
            )
        if tolerance is not None and not 0 < tolerance < 1:
            raise ValueError(f"tolerance must be between 0 and 1. Got tolerance={tolerance}.")
        self.bound = bound
        self.n_power_iterations = n_power_iterations
        self.accuracy = tolerance
        if tolerance is not None:
            self.batching = "never"  # the number of iterations depends on values
        self.compiled_iterations = (
            2 * n_power_iterations if tolerance is None else COMPILED_ITERATIONS
        )
        self.only_shrink = only_shrink

    def check(self, X: Tensor) -> None:
        """Raise if the map cannot take a weight of this shape."""
        raise NotImplementedError

    def operator(self, X: Tensor) -> Tensor:
        """The tensor that represents the linear map, in a dtype with accurate products."""
        raise NotImplementedError(f"{type(self).__name__} defines no operator().")

    def image(self, operator: Tensor, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """The linear map applied to rows `x`; `u` and `v` have the shapes of the state."""
        raise NotImplementedError

    def adjoint(self, operator: Tensor, y: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """The adjoint of the linear map applied to rows `y`."""
        raise NotImplementedError

    def rows(self, vector: Tensor) -> Tensor:
        """A tensor of the state in the shape that the iteration uses."""
        return vector

    def start(self, operator: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors that the iteration starts from."""
        raise NotImplementedError

    def norm(self, X: Tensor) -> Tensor:
        """The norm of the linear map, computed from the state: a real scalar, differentiable."""
        raise NotImplementedError

    def exact_norm(self, X: Tensor) -> Tensor:
        """The norm of the linear map, found without the state."""
        raise NotImplementedError

    def forward(self, X: Tensor) -> Tensor:
        self.follow(X)
        return self.divided(X, self.norm(X))

    def divided(self, X: Tensor, sigma: Tensor) -> Tensor:
        # up to the limit, the quotient is one
        quotient = self.bound / torch.threshold(sigma, self.limit(sigma), self.bound)
        result: Tensor = widened(X) * quotient
        return result.to(X.dtype)

    def limit(self, X: Tensor) -> float:
        """The norm up to which a weight is left unchanged."""
        if self.only_shrink:
            return self.bound
        return self.smallest_norm(X)

    def smallest_norm(self, X: Tensor) -> float:
        """The norm up to which a weight counts as zero."""
        return max(1.0, 4 * self.bound) * smallest_normal(X)  # the quotient is finite

    def right_inverse(self, Y: Tensor) -> Tensor:
        self.check(Y)
        self.admit(Y)
        return Y

    def deviation(self, Y: Tensor) -> Tensor:
        """The relative difference of the norm from the bound; with `only_shrink`, the excess."""
        self.check(Y)
        if Y.numel() == 0:
            return torch.zeros((), dtype=widened(Y).real.dtype, device=Y.device)
        excess: Tensor = self.exact_norm(Y) / self.bound - 1
        return excess.clamp_min(0) if self.only_shrink else excess.abs()

    def tolerance(self, Y: Tensor) -> float:
        """The deviation that rounding and the iteration may leave."""
        iteration = 0.01 if self.accuracy is None else self.accuracy
        return super().tolerance(Y) + (iteration if Y.ndim > 1 else 0.0)

    def guess(self, X: Tensor) -> tuple[Tensor, ...]:
        self.check(X)
        operator = self.operator(X)
        u, v = self.start(operator)
        if not is_placeholder(operator):
            u, v = self.iterate(operator, u, v, MOST_ITERATIONS, epsilon(operator))
        return u.to(X.dtype), v.to(X.dtype)

    def improve(self, operator: Tensor, u: Tensor, v: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Vectors after up to `count` more iterations, fewer if the tolerance is reached."""
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            left, right = self.rows(u), self.rows(v)
            better, inverse = first_left(self.image(operator, right, u, v), left)
            lefts = [better]
            products = [self.adjoint(operator, better, u, v) * inverse]
            for _ in range(
                min(count, self.compiled_iterations, left.shape[-1], right.shape[-1]) - 1
            ):
                image = self.image(operator, products[-1], u, v)
                better, _length = orthogonal_part(image * inverse, lefts)
                lefts.append(better)
                products.append(self.adjoint(operator, better, u, v) * inverse)
            left, right = best_pair(lefts, products, left, right)
            return left.view_as(u), right.view_as(v)
        if is_placeholder(operator) and not self.asks_nothing(operator):
            return u, v
        if is_dynamo_compiling():
            count = min(count, self.compiled_iterations)
        return self.iterate(operator, u, v, count, self.accuracy)

    @torch.jit.unused
    def asks_nothing(self, operator: Tensor) -> bool:
        """Whether a step reads no values: without a tolerance, on devices where launches count."""
        return self.accuracy is None and is_bound_by_launches(operator)

    @torch.jit.unused
    def iterate(
        self, operator: Tensor, u: Tensor, v: Tensor, count: int, accuracy: float | None
    ) -> tuple[Tensor, Tensor]:
        with without_autocast(operator):
            left, right = improve_pair_of_map(
                lambda x: self.image(operator, x, u, v),
                lambda y: self.adjoint(operator, y, u, v),
                self.rows(u),
                self.rows(v),
                count,
                accuracy,
            )
        return left.view_as(u), right.view_as(v)


def start_vector(size: int, like: Tensor) -> Tensor:
    """A fixed unit vector to start from, which is a meta or fake tensor if `like` is."""
    return like.new_empty(size) if is_placeholder(like) else some_vector(size, like)
