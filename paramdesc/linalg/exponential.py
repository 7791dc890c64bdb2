"""The matrix exponential, in few products that can be differentiated one by one.

`torch.matrix_exp` takes the gradient from an exponential of twice the size, which is eight times
the work of its forward pass. Here the series is written out in products, and autograd
takes two products for each.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.compiler import is_compiling

from paramdesc.linalg.algorithms import by
from paramdesc.linalg.devices import is_bound_by_launches, takes_algorithms
from paramdesc.linalg.exponential_on_gpu import Exponential, squared_where_asked
from paramdesc.linalg.orthogonality import renewed
from paramdesc.linalg.precision import widened, without_autocast
from paramdesc.linalg.shapes import check_square
from paramdesc.linalg.taylor import FACTORS, RADIUS
from paramdesc.torch_internals.mode import is_plain
from paramdesc.torch_internals.onnx import is_exporting_to_onnx

__all__ = ["exponential", "skew_exp"]


def skew_exp(A: Tensor) -> Tensor:
    """`exp(A)`, unitary to rounding for skew-Hermitian `A`: `(*, n, n) -> (*, n, n)`.

    Each squaring doubles the rounding error. So a Newton step leads back to the nearest unitary
    matrix. It changes nothing to first order, and is left out of the gradient. Cost: that of
    `exponential` and two products.

    >>> from paramdesc.linalg.exponential import skew_exp
    >>> J = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    >>> torch.allclose(skew_exp(torch.pi / 2 * J), J, atol=1e-6)
    True
    """
    return renewed(exponential(widened(A), True)).to(A.dtype)


def exponential(A: Tensor, is_skew: bool = False) -> Tensor:
    """`exp(A)`, by a Taylor polynomial and squarings: `(*, n, n) -> (*, n, n)`.

    Cost: five products, and a squaring for each doubling of the norm beyond 3 (beyond 1.1 in
    double precision); twice as much backward. Their number is a Python number, so
    compiled, traced and scripted code and function transforms call `torch.matrix_exp`
    instead. On other devices than CPUs, it is decided on the device, so that the host does not
    wait: ten squarings, of which each matrix takes part in what it needs. There the
    exponential of a matrix whose norm is above 3000, or 1100 in double precision, is NaN. The same
    holds for graphs that are exported to ONNX. Half
    precision is computed in float32.

    Args:
        A: the matrices.
        is_skew: whether they are skew-Hermitian. Then their norm is known closely from a power,
            which saves squarings.

    Source: P. Bader, S. Blanes, F. Casas, *Computing the matrix exponential with an optimized
    Taylor polynomial approximation*, Mathematics 7 (2019), 1174, equation for degree 18.

    >>> from paramdesc.linalg.exponential import exponential
    >>> exponential(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    tensor([[1., 1.],
            [0., 1.]])
    """
    check_square(A, "exponentiable")
    W = widened(A)
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return torch.matrix_exp(W).to(A.dtype)
    with without_autocast(A):
        if is_exporting_to_onnx():
            return squared_where_asked(W, is_skew).to(A.dtype)
        if is_bound_by_launches(W) and W.numel() > 0:
            if takes_algorithms(W):
                return by(Exponential, W, is_skew).to(A.dtype)
            return squared_where_asked(W, is_skew).to(A.dtype)
        if A.is_meta or A.numel() == 0 or is_compiling() or not is_plain():
            return torch.matrix_exp(W).to(A.dtype)
        return squared_series(W, is_skew).to(A.dtype)


def squared_series(A: Tensor, is_skew: bool) -> Tensor:
    # the powers are those of a matrix with norm at most one, so that they do not overflow
    size = largest_norm(A)
    if not math.isfinite(size):
        return torch.matrix_exp(A)
    first = max(0, binary_exponent(size))
    A = A * 2.0**-first
    A2 = A @ A
    A3 = A2 @ A
    A6 = A3 @ A3
    bound = largest_norm(A6) ** (1 / 6)
    if not is_skew:  # the powers of others may be small before they are large
        bound = max(largest_norm(A2) ** (1 / 2), largest_norm(A3) ** (1 / 3))
    radius = RADIUS[A.dtype in (torch.float64, torch.complex128)]
    squarings = max(0, first + binary_exponent(bound / radius))
    Y = series((A, A2, A3, A6), 2.0 ** (first - squarings))
    for _ in range(squarings):
        Y = Y @ Y
    return Y


def series(powers: tuple[Tensor, Tensor, Tensor, Tensor], scale: float) -> Tensor:
    """The Taylor polynomial of degree 18 of `exp(scale A)`, from `A`, `A²`, `A³` and `A⁶`."""
    units = (scale, scale**2, scale**3, scale**6)
    B1, B2, B3, B4, B5 = (combined(factors, powers, units) for factors in FACTORS)
    A9 = (B1 @ B5).add_(B4)
    return (B3.add_(A9) @ A9).add_(B2)


def combined(
    factors: tuple[float, ...], powers: tuple[Tensor, ...], units: tuple[float, ...]
) -> Tensor:
    """The sum of the powers, each times its factor and its unit, and of a multiple of `I`."""
    terms = [
        (power, factor * unit)
        for power, factor, unit in zip(powers, factors[1:], units, strict=True)
        if factor
    ]
    (power, factor), *others = terms
    total = power * factor
    for power, factor in others:
        total.add_(power, alpha=factor)
    if factors[0]:
        total.diagonal(dim1=-2, dim2=-1).add_(factors[0])
    return total


def largest_norm(A: Tensor) -> float:
    """The largest Frobenius norm of the matrices."""
    return float(torch.linalg.matrix_norm(A.detach()).max())


def binary_exponent(size: float) -> int:
    """The smallest integer `e` with `size <= 2 ** e`; zero for zero."""
    return math.ceil(math.log2(size)) if size > 0 else 0
