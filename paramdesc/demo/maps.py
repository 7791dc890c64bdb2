"""The two maps of the demo, in the form that both engines take."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.base import Parametrization
from paramdesc.parametrizations import SpectralNorm

__all__ = ["Cayley", "SelfMovingSpectralNorm", "orthogonality_deviation"]


class Cayley(Parametrization):
    """`cell.weight_hh` will be orthogonal: `Q = (I + A)⁻¹ (I - A)`, `A = triu(X, 1) - triu(X, 1)ᵀ`.

    Shapes `(*, n, n) -> (*, n, n)`. The entries of `X` on and below the diagonal have no
    effect. `evaluations` counts the calls.

    Assigning keeps an orthogonal matrix as it is.

    Raises:
        ValueError: if what is assigned is not orthogonal, with the deviation, or has the
            eigenvalue -1, which no `X` gives.

    Source: K. Helfrich, D. Willmott, Q. Ye, *Orthogonal recurrent neural networks with
    scaled Cayley transform*, ICML 2018, section 3, without the scaling.
    """

    def __init__(self) -> None:
        super().__init__()
        self.evaluations = 0

    def forward(self, X: Tensor) -> Tensor:
        self.evaluations += 1
        A = X.triu(1) - X.triu(1).mT
        return cayley(A)

    def right_inverse(self, Q: Tensor) -> Tensor:
        deviation = orthogonality_deviation(Q)
        if not deviation <= torch.finfo(Q.dtype).eps ** 0.5:
            raise ValueError(
                f"the matrix is not orthogonal: max |QᵀQ - I| is {deviation:.3g}. "
                "Assign torch.linalg.qr(Q).Q, with columns negated where it has eigenvalue -1."
            )
        try:
            A = cayley(Q)  # the transform is its own inverse
        except torch.linalg.LinAlgError as error:
            raise ValueError("the matrix has the eigenvalue -1, which no X gives.") from error
        return A.triu(1)


def cayley(A: Tensor) -> Tensor:
    """`(I + A)⁻¹ (I - A)`."""
    I = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)  # noqa: E741  # as in formulas
    return torch.linalg.solve(I + A, I - A)


def orthogonality_deviation(Q: Tensor) -> float:
    """The largest entry of `|QᵀQ - I|`."""
    return (Q.mT @ Q - torch.eye(Q.shape[-1], dtype=Q.dtype)).abs().max().item()


class SelfMovingSpectralNorm(SpectralNorm):
    """`SpectralNorm` for torch's engine, which does not move the state of a map on.

    So the map does it at each evaluation in training mode, as torch's own spectral_norm
    does. In the demo the read-out is evaluated once per training step, and the two are alike.
    """

    def forward(self, X: Tensor) -> Tensor:
        if self.training:
            if not self.has_state():
                self.reset(X)
            self.advance(X)
        return super().forward(X)
