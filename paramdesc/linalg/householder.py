"""Products of reflections, in blocks: the compact WY form."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.linalg.algorithms import by
from paramdesc.linalg.devices import takes_algorithms
from paramdesc.linalg.householder_on_gpu import Reflection, Reflections
from paramdesc.linalg.precision import matmul, widened
from paramdesc.linalg.shapes import check_matrix
from paramdesc.linalg.solving import solve_upper

__all__ = ["householder", "householder_like", "reflect", "reflectors"]


def householder(V: Tensor) -> Tensor:
    """The first `k` columns of the product of `k` reflections: `(*, n, k) -> (*, n, k)`, `n >= k`.

    The `j`-th reflection is `I - 2 v vᴴ / vᴴ v`. Its vector `v` holds zeros, a one at `j`, and
    below it what column `j` of `V` holds there; the rest of `V` has no effect. Of zero the
    product is `-I`. Half precision is computed in float32.

    With the vectors as columns of `V` and `S = triu(Vᴴ V, 1) + diag(Vᴴ V) / 2`, the product
    is `I - V S⁻¹ Vᴴ`. Cost: two products of `n x k` and `k x k` matrices and a triangular solve.

    Source: R. Schreiber, C. Van Loan, *A storage-efficient WY representation for products of
    Householder transformations*, SIAM J. Sci. Stat. Comput. 10 (1989); the form of `S`:
    H. Walker, *Implementation of the GMRES method using Householder transformations*, SIAM
    J. Sci. Stat. Comput. 9 (1988).

    >>> from paramdesc.linalg.householder import householder
    >>> householder(torch.zeros(3, 2))
    tensor([[-1.,  0.],
            [ 0., -1.],
            [ 0.,  0.]])
    """
    check_matrix(V, "Householder")
    W = widened(V)
    n, k = V.shape[-2], V.shape[-1]
    if n < k:
        raise ValueError(
            f"{k} reflections of {n} dimensions are too many. Got shape {list(V.shape)}: "
            "pass the transpose."
        )
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        pass
    elif takes_algorithms(W):
        return by(Reflections, W).to(V.dtype)
    columns = torch.eye(n, k, dtype=W.dtype, device=W.device)
    W = W.tril(-1) + columns
    factor = solve_upper(triangle(W), W[..., :k, :].mH)
    Y = columns - matmul(W, factor)
    return Y.to(V.dtype)


def reflect(V: Tensor, Y: Tensor) -> Tensor:
    """The product of the reflections of `V`, as in `householder`, times `Y`.

    Shapes `(*, n, k), (*, n, m) -> (*, n, m)`. Cost: three products of `n x k` matrices with `k`
    or `m` columns, and a triangular solve.
    """
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        pass
    elif takes_algorithms(Y) and not V.requires_grad:
        return by(Reflection, V, Y)
    W = V.tril(-1) + torch.eye(V.shape[-2], V.shape[-1], dtype=V.dtype, device=V.device)
    factor = solve_upper(triangle(W), matmul(W.mH, Y))
    return Y - matmul(W, factor)


def triangle(W: Tensor) -> Tensor:
    """`S`, for the vectors in the columns of `W`."""
    inner = matmul(W.mH, W)
    half_diagonal = torch.diag_embed(torch.diagonal(inner, dim1=-2, dim2=-1) / 2)
    return inner.triu(1) + half_diagonal


def householder_like(V: Tensor) -> Tensor:
    """`householder`, and for a wide `V` the conjugate transpose of that of its own."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        pass
    elif takes_algorithms(V):
        return by(Reflections, widened(V)).to(V.dtype)
    if V.shape[-2] < V.shape[-1]:
        return householder(V.mH).mH.resolve_conj()
    return householder(V)


@torch.no_grad()
def reflectors(Q: Tensor) -> tuple[Tensor, Tensor]:
    """`V` and signs with `householder(V) * signs = Q`, for orthonormal columns.

    Shapes `(*, n, k) -> (*, n, k), (*, 1, k)`. `V` is zero on and above its diagonal; the signs
    are numbers of absolute value one. Takes `k` steps.
    """
    rest, V = widened(Q).clone(), torch.zeros_like(widened(Q))
    for j in range(Q.shape[-1]):
        x = rest[..., j:, j]
        length = torch.linalg.vector_norm(x, dim=-1)
        v = x.clone()
        v[..., 0] = x[..., 0] + sign(x[..., 0]) * torch.where(length > 0, length, 1.0)
        v = v / v[..., :1]
        V[..., j + 1 :, j] = v[..., 1:]
        factor = 2 / v.abs().square().sum(-1)[..., None, None]
        row = matmul(v[..., None, :].conj(), rest[..., j:, j:])
        rest[..., j:, j:] -= factor * v[..., :, None] * row
    return V.to(Q.dtype), sign(torch.diagonal(rest, dim1=-2, dim2=-1)).unsqueeze(-2).to(Q.dtype)


def sign(x: Tensor) -> Tensor:
    """`x / |x|`, and one for zero."""
    size = x.abs()
    return torch.where(size > 0, x / torch.where(size > 0, size, 1.0), 1.0)
