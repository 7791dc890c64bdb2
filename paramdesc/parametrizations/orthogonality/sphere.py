"""Vectors with a given length."""

import math

import torch
from torch import Tensor

from paramdesc.chain.cuts import Cuts, cuts_across
from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.precision import all_above, epsilon, widened
from paramdesc.linalg.scaled import EXACT_OR_EVEN, scaled_to_norm
from paramdesc.parametrizations.base_point import check_rebase, shown_rebase

__all__ = ["Sphere"]


class Sphere(Parametrization):
    """Give the rows of `layer.weight` length `radius`: `Y = radius X / |X|`.

    Shapes `(*) -> (*)`. The vectors lie along `dim`; by default, they are the rows of a matrix.
    Real and complex; half precision is computed in float32. A vector of length zero, or so short
    that its square underflows (below 1e-15 in single and 1e-145 in double precision), gives the
    vector with equal entries, with zero gradient.

    Assignment and registration keep vectors of this length and replace any other with the nearest
    one, which is the rescaled vector.

    The gradient is orthogonal to `X`, so each optimizer step makes `X` longer, and the following
    steps of the value smaller. Therefore the original is reset to the value every `rebase` steps.

    Cost: one pass for the lengths, and one for the quotient.

    Args:
        radius: the length, positive.
        dim: the dimension or dimensions that the vectors lie along; None for the whole tensor as
            one vector.
        rebase: the number of training steps after which the original is reset to the value; None
            for never.
        strict: whether to reject vectors of another length instead of rescaling them.

    Raises:
        ValueError: if the radius is out of its range, or the weight has no such dimension; with
            `strict`, if a length differs; the error's `deviation` is the largest relative
            difference.

    >>> linear = register_parametrization(torch.nn.Linear(3, 2), "weight", Sphere(2.0))
    >>> torch.allclose(linear.weight.norm(dim=-1), torch.tensor(2.0))
    True
    """

    constraint = "of the given length"
    dim: list[int]

    def __init__(
        self,
        radius: float = 1.0,
        dim: int | tuple[int, ...] | None = -1,
        *,
        rebase: int | None = 50,
        strict: bool = False,
    ) -> None:
        super().__init__(strict=strict)
        check_rebase(rebase)
        self.rebase = rebase
        if not 0 < radius < math.inf:
            raise ValueError(f"radius must be positive and finite. Got radius={radius}.")
        self.radius = float(radius)
        self.dim = [dim] if isinstance(dim, int) else list(dim or ())
        self.is_whole = dim is None

    def forward(self, X: Tensor) -> Tensor:
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            value = None
            if not torch.compiler.is_compiling():
                dims, least = self.dims(X), shortest(X)
                value = scaled_to_norm(self.formula, X, dims, self.radius, EXACT_OR_EVEN, least)
            if value is not None:
                return value
        return self.formula(X)

    def formula(self, X: Tensor) -> Tensor:
        """The value, in operations whose derivatives of any order are correct."""
        dims = self.dims(X)
        if X.is_complex():  # to real vectors: TorchScript's gradients of complex products are wrong
            real_dims = [d % X.dim() for d in dims] + [X.dim()]
            return torch.view_as_complex(self.normalized(torch.view_as_real(X), real_dims))
        return self.normalized(widened(X), dims).to(X.dtype)

    def normalized(self, X: Tensor, dims: list[int]) -> Tensor:
        length = torch.linalg.vector_norm(X, dim=dims, keepdim=True)
        least = shortest(X)
        if all_above(length, least):  # with fewer operations
            scaled: Tensor = X * (self.radius / length)
            return scaled
        is_long = length > least
        count = 1
        for d in dims:
            count *= X.shape[d]
        inverse = torch.where(is_long, length, math.inf).reciprocal()  # zero for short vectors
        other = torch.where(is_long, 0.0, self.radius / math.sqrt(max(count, 1)))
        return torch.addcmul(other.to(X.dtype), X, inverse, value=self.radius)

    def cuts(self, dim: int, ndim: int) -> Cuts | None:
        return cuts_across(None if self.is_whole else self.dim, dim, ndim)

    def dims(self, X: Tensor) -> list[int]:
        """The dimensions that vectors lie along."""
        if self.is_whole:
            return list(range(X.dim()))
        for d in self.dim:
            if not -X.dim() <= d < X.dim():
                raise ValueError(f"a weight of shape {list(X.shape)} has no dimension {d}.")
        return self.dim

    @torch.no_grad()
    def right_inverse(self, Y: Tensor) -> Tensor:
        self.dims(Y)
        self.admit(Y)
        return self.forward(Y)

    def recenter(self, X: Tensor) -> tuple[Tensor, ...]:
        """The value itself, which is also an original that gives it."""
        return (self.forward(X),)

    def deviation(self, Y: Tensor) -> Tensor:
        """The largest difference of a length from the radius, divided by the radius."""
        if Y.numel() == 0:
            return torch.zeros((), device=Y.device)
        length = torch.linalg.vector_norm(widened(Y), dim=self.dims(Y))
        error: Tensor = (length / self.radius - 1).abs().max()
        return error

    def tolerance(self, Y: Tensor) -> float:
        return 8 * epsilon(Y)

    def extra_repr(self) -> str:
        dim = None if self.is_whole else self.dim[0] if len(self.dim) == 1 else tuple(self.dim)
        shown = [f"radius={self.radius}", f"dim={dim}", *shown_rebase(self)]
        return ", ".join(shown + ["strict=True"] * self.strict)


def shortest(X: Tensor) -> float:
    """The length up to which a vector counts as zero."""
    return 1e-145 if X.dtype == torch.float64 else 1e-15
