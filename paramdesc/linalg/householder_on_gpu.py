"""Products of reflections in few operations, for devices where each costs the host time."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.linalg.algorithms import plus_product

__all__ = ["Reflection", "Reflections"]


class Reflections:
    """`householder`, with `W` the vectors, `S` the triangle and `F = S⁻¹ Wᴴ`, of its first rows.

    If there are fewer rows than columns, `V`, `W` and the value are the conjugate transposes.
    """

    @staticmethod
    def value(V: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        wide, k = is_wide(V), min(V.shape[-2:])
        W = V.triu(1) if wide else V.tril(-1)
        W.diagonal(dim1=-2, dim2=-1).fill_(1)
        S = (W @ W.mH if wide else W.mH @ W).triu_()
        S.diagonal(dim1=-2, dim2=-1).mul_(0.5)
        first = W[..., :k] if wide else W[..., :k, :].mH
        F = torch.linalg.solve_triangular(S, first, upper=True)
        left, right = (F.mH, W) if wide else (W, F)
        return plus_product(eye_like(V), left, right, alpha=-1.0), (W, S, F)

    @staticmethod
    def gradient(
        inputs: tuple[Tensor],
        value: Tensor,  # noqa: ARG004
        kept: tuple[Tensor, Tensor, Tensor],
        G: Tensor,
        needed: tuple[bool],  # noqa: ARG004
    ) -> tuple[Tensor]:
        wide, k = is_wide(inputs[0]), min(G.shape[-2:])
        W, S, F = kept
        # minus the gradients of the first rows, conjugate transposed, and of S
        of_F = W @ G.mH if wide else W.mH @ G
        of_first = torch.linalg.solve_triangular(S.mH, of_F, upper=False)
        adjoint = F.mH
        of_S = (of_first @ adjoint).triu()
        of_S.diagonal(dim1=-2, dim2=-1).mul_(0.5)
        of_gram = of_S + of_S.mH
        if wide:
            of_W = plus_product(F @ G, of_gram, W, -1.0)
            of_W.narrow(-1, 0, k).sub_(of_first)
            return (of_W.triu(1),)
        of_W = plus_product(G @ adjoint, W, of_gram, -1.0)
        of_W.narrow(-2, 0, k).sub_(of_first.mH)
        return (of_W.tril(-1),)

    @staticmethod
    def formula(V: Tensor) -> Tensor:
        if is_wide(V):
            return Reflections.formula(V.mH).mH
        columns = eye_like(V)
        W = V.tril(-1) + columns
        inner = W.mH @ W
        half_diagonal = torch.diag_embed(torch.diagonal(inner, dim1=-2, dim2=-1) / 2)
        F = torch.linalg.solve_triangular(
            inner.triu(1) + half_diagonal, W[..., : V.shape[-1], :].mH, upper=True
        )
        Y: Tensor = columns - W @ F
        return Y


class Reflection:
    """`reflect`, with `W` and `S` as in `Reflections`. The vectors are constants."""

    @staticmethod
    def value(V: Tensor, Y: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        W = V.tril(-1)
        W.diagonal(dim1=-2, dim2=-1).fill_(1)
        S = (W.mH @ W).triu_()
        S.diagonal(dim1=-2, dim2=-1).mul_(0.5)
        factor = torch.linalg.solve_triangular(S, W.mH @ Y, upper=True)
        return plus_product(Y, W, factor, alpha=-1.0), (W, S)

    @staticmethod
    def gradient(
        inputs: tuple[Tensor, Tensor],  # noqa: ARG004
        value: Tensor,  # noqa: ARG004
        kept: tuple[Tensor, Tensor],
        G: Tensor,
        needed: tuple[bool, bool],  # noqa: ARG004
    ) -> tuple[None, Tensor]:
        W, S = kept
        factor = torch.linalg.solve_triangular(S.mH, W.mH @ G, upper=False)
        return None, plus_product(G, W, factor, alpha=-1.0)

    @staticmethod
    def formula(V: Tensor, Y: Tensor) -> Tensor:
        W = V.tril(-1) + eye_like(V)
        inner = W.mH @ W
        half_diagonal = torch.diag_embed(torch.diagonal(inner, dim1=-2, dim2=-1) / 2)
        factor = torch.linalg.solve_triangular(inner.triu(1) + half_diagonal, W.mH @ Y, upper=True)
        product: Tensor = Y - W @ factor
        return product


def is_wide(V: Tensor) -> bool:
    return V.shape[-2] < V.shape[-1]


def eye_like(V: Tensor) -> Tensor:
    return torch.eye(V.shape[-2], V.shape[-1], dtype=V.dtype, device=V.device)
