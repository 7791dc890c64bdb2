"""Hamiltonian matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.linalg.precision import widened
from paramdesc.parametrizations.structure.linear_structure import LinearStructure

__all__ = ["Hamiltonian", "check_even", "symplectic_adjoint"]


class Hamiltonian(LinearStructure):
    """Make `layer.weight` Hamiltonian, with `J Y` symmetric: `Y = (X + J Xᵀ J) / 2`.

    Here `J = [[0, I], [-I, 0]]`, so that `Y = [[A, B], [C, -Aᵀ]]` with symmetric `B` and `C`.
    Hamiltonian matrices generate symplectic matrices and linear Hamiltonian flows.

    Shapes `(*, 2n, 2n) -> (*, 2n, 2n)`, floating point or complex; the transpose is not
    conjugated. Every entry of `X` has an effect. Half precision is computed in float32. Cost:
    three passes over the matrix.

    Assignment and registration keep a Hamiltonian matrix as it is and replace any other with the
    nearest one in the Frobenius norm, which the formula also gives.

    Args:
        strict: whether to reject a matrix that is not Hamiltonian instead of replacing it.

    Raises:
        ValueError: if the matrices are not square of even size; with `strict`, if an assigned
            matrix is not Hamiltonian; the error's `deviation` is half the largest entry of
            `J Y - (J Y)ᵀ`.

    Source: C. Paige, C. Van Loan, *A Schur decomposition for Hamiltonian matrices*, Linear
    Algebra Appl. 41 (1981), section 1.

    >>> linear = register_parametrization(torch.nn.Linear(2, 2), "weight", Hamiltonian())
    >>> linear.weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> linear.weight.tolist()
    [[-1.5, 2.0], [3.0, 1.5]]
    """

    constraint = "Hamiltonian"

    def project(self, X: Tensor) -> Tensor:
        check_even(X, "Hamiltonian")
        wide = widened(X)
        return torch.lerp(wide, -symplectic_adjoint(wide), 0.5).to(X.dtype)


def symplectic_adjoint(X: Tensor) -> Tensor:
    """`J⁻¹ Xᵀ J`: the inverse of a symplectic matrix, and the negative of a Hamiltonian one."""
    n = X.shape[-1] // 2
    top = torch.cat([X[..., n:, n:].mT, -X[..., :n, n:].mT], -1)
    bottom = torch.cat([-X[..., n:, :n].mT, X[..., :n, :n].mT], -1)
    return torch.cat([top, bottom], -2)


def check_even(X: Tensor, kind: str) -> None:
    """Raise an error unless `X` is square of even size; `kind` names the map in the message."""
    if X.ndim < 2 or X.shape[-2] != X.shape[-1] or X.shape[-1] % 2 == 1:
        raise ValueError(
            f"{kind} matrices are square of even size, (*, 2n, 2n). Got shape {list(X.shape)}."
        )
