"""The orthogonal map of the demo, in the form that both engines take."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.base import Parametrization

__all__ = ["Cayley", "orthogonality_deviation"]


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
        return cayley(X.triu(1) - X.triu(1).mT)

    def right_inverse(self, Q: Tensor) -> Tensor:
        tolerance = torch.finfo(Q.dtype).eps ** 0.5
        deviation = orthogonality_deviation(Q)
        if not deviation <= tolerance:
            raise ValueError(
                f"the matrix is not orthogonal: max |QᵀQ - I| is {deviation:.3g}. "
                "Assign torch.linalg.qr(Q).Q."
            )
        A = cayley(Q)  # the transform is its own inverse
        if not (cayley(A) - Q).abs().max().item() <= tolerance:
            raise ValueError(
                "the matrix has the eigenvalue -1, or nearly, and no X gives that. "
                "Assign a product of rotations by less than 180 degrees."
            )
        return A.triu(1)


def cayley(A: Tensor) -> Tensor:
    """`(I + A)⁻¹ (I - A)`; no finite numbers where `I + A` is singular."""
    unit = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    result: Tensor = torch.linalg.solve_ex(unit + A, unit - A).result
    return result


def orthogonality_deviation(Q: Tensor) -> float:
    """The largest entry of `|QᵀQ - I|`."""
    unit = torch.eye(Q.shape[-1], dtype=Q.dtype, device=Q.device)
    return (Q.mT @ Q - unit).abs().max().item()
