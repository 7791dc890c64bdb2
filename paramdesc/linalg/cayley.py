"""The Cayley transform, and the inverse that it needs, on a CPU mostly in matrix products.

A matrix whose Hermitian part is positive definite can be inverted by blocks, without exchanging
rows. That is one matrix product's worth of operations, and most of them are products of blocks,
where LAPACK's inverse and triangular solves take several times as long as a product.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.compiler import is_compiling

from paramdesc.linalg.algorithms import by
from paramdesc.linalg.cayley_on_gpu import Turn
from paramdesc.linalg.devices import is_bound_by_launches, takes_algorithms
from paramdesc.linalg.precision import matmul, widened, without_autocast
from paramdesc.linalg.shapes import check_square
from paramdesc.linalg.solving import invert
from paramdesc.torch_internals.mode import is_tracing

__all__ = ["cayley", "divide", "inverse"]

BLOCK = 64
"""Up to this size LAPACK inverts on a CPU, and autograd knows how."""


def cayley(A: Tensor) -> Tensor:
    """`(I + A / 2) (I - A / 2)⁻¹`, unitary for skew-Hermitian `A`: `(*, n, n) -> (*, n, n)`.

    Half precision is computed in float32. Cost: an inverse, about one product of `n x n`
    matrices; backward two products.

    >>> from paramdesc.linalg.cayley import cayley
    >>> cayley(torch.tensor([[0.0, -2.0], [2.0, 0.0]]))
    tensor([[ 0., -1.],
            [ 1.,  0.]])
    """
    check_square(A, "skew-Hermitian")
    W = widened(A)
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        pass
    elif takes_algorithms(W):
        return by(Turn, None, W, True).to(A.dtype)
    identity = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)
    Y = 2 * inverse(identity - W / 2) - identity
    return Y.to(A.dtype)


def inverse(T: Tensor) -> Tensor:
    """`T⁻¹` of a matrix whose Hermitian part is at least the identity.

    As accurate as with exchanges of rows while the norm of the other part stays below about
    50. Single or double precision.
    """
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return invert(T)
    if is_compiling() or is_tracing() or is_small(T):
        return invert(T)
    M: Tensor = Inverse.apply(T)  # type: ignore[no-untyped-call]
    return M


def divide(B: Tensor, T: Tensor) -> Tensor:
    """`B T⁻¹`, for `T` as in `inverse`: `(*, m, n), (*, n, n) -> (*, m, n)`.

    Backward takes two products, where the inverse and a product by themselves take three
    and one for the gradient of `B`.
    """
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return matmul(B, invert(T))
    if is_compiling() or is_tracing() or is_small(T):
        return matmul(B, invert(T))
    Z: Tensor = Division.apply(B, T)[0]  # type: ignore[no-untyped-call]
    return Z


def is_small(T: Tensor) -> bool:
    """Whether a function of Python takes longer than it saves."""
    return T.shape[-1] <= BLOCK and not is_bound_by_launches(T)


def inverse_by_blocks(T: Tensor) -> Tensor:
    """`T⁻¹`, from the inverses of the leading block and of its Schur complement."""
    n = T.shape[-1]
    if n <= BLOCK or is_bound_by_launches(T):
        return invert(T)
    k = (n // 2 + 31) // 32 * 32  # products of such sizes are the fastest
    leading = inverse_by_blocks(T[..., :k, :k])
    right = leading @ T[..., :k, k:]
    below = T[..., k:, :k] @ leading
    schur = inverse_by_blocks(T[..., k:, k:] - T[..., k:, :k] @ right)
    corner = (schur @ below).neg_()
    M = torch.empty_like(T)
    M[..., k:, k:] = schur
    M[..., k:, :k] = corner
    M[..., :k, k:] = (right @ schur).neg_()
    M[..., :k, :k] = leading - right @ corner
    return M


class Inverse(Function):
    """`inverse`, with the derivative `-M dT M` of `M = T⁻¹`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(T: Tensor) -> Tensor:
        with without_autocast(T):
            return inverse_by_blocks(T)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (M,) = ctx.saved_tensors
        return -matmul(matmul(M.mH, gradient), M.mH)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        (M,) = ctx.saved_tensors
        return -matmul(matmul(M, tangent), M)


class Division(Function):
    """`Z = B M` and `M = T⁻¹`, with the derivative `dZ = (dB - Z dT) M`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(B: Tensor, T: Tensor) -> tuple[Tensor, Tensor]:
        with without_autocast(T):
            M = inverse_by_blocks(T)
            return B @ M, M

    @staticmethod
    def setup_context(
        ctx: Any,
        inputs: tuple[Tensor, Tensor],  # noqa: ARG004
        output: tuple[Tensor, Tensor],
    ) -> None:
        ctx.save_for_backward(*output)
        ctx.save_for_forward(*output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(
        ctx: Any, of_quotient: Tensor | None, of_inverse: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        Z, M = ctx.saved_tensors
        of_B, of_T = None, None
        with without_autocast(M):
            if of_quotient is not None:
                of_B = of_quotient @ M.mH
                of_T = -(Z.mH @ of_B)
            if of_inverse is not None:  # in second derivatives only
                more = M.mH @ of_inverse @ M.mH
                of_T = -more if of_T is None else of_T - more
        return of_B, of_T

    @staticmethod
    def jvp(ctx: Any, of_B: Tensor | None, of_T: Tensor | None) -> tuple[Tensor, Tensor]:
        Z, M = ctx.saved_tensors
        change = torch.zeros_like(Z) if of_B is None else matmul(of_B, M)
        if of_T is None:
            return change, torch.zeros_like(M)
        step = matmul(of_T, M)
        return change - matmul(Z, step), -matmul(M, step)
