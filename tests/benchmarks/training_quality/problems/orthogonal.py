"""Orthogonal matrices, rotations, orthonormal columns and subspaces."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from paramdesc.parametrizations import AlmostOrthogonal, Grassmann, Orthogonal, SpecialOrthogonal
from tests.benchmarks.training_quality.contestants import (
    by_geoopt,
    by_geotorch,
    by_hand,
    by_pogo,
    by_torch,
    ours,
)
from tests.benchmarks.training_quality.losses import matched, quadratic_form, regression
from tests.benchmarks.training_quality.problem import Contestant, Numbers, Problem

__all__ = ["PROBLEMS"]


def polar(X: Tensor) -> Tensor:
    U, _, Vh = torch.linalg.svd(X, full_matrices=False)
    value: Tensor = U @ Vh
    return value


def contestants(*, is_square: bool) -> dict[str, Contestant]:
    maps = ("cayley", "matrix_exp", "householder", "polar")
    found = {f"`Orthogonal({x!r})`": ours(partial(Orthogonal, x)) for x in maps}
    found["`Orthogonal('cayley', rebase=None)`"] = ours(lambda: Orthogonal(rebase=None))
    for x in ("matrix_exp", "cayley", "householder") if is_square else ("householder",):
        found[f"torch, {x}"] = by_torch("orthogonal", orthogonal_map=x)
    if not is_square:  # for square matrices it computes what torch does
        found["geotorch, Stiefel"] = by_geotorch(
            lambda geotorch, shape: geotorch.Stiefel(shape, triv="expm")
        )
    found["geoopt, Stiefel"] = by_geoopt(lambda geoopt: geoopt.Stiefel())
    found["POGO"] = by_pogo()
    return found


def recovered() -> Problem:
    numbers = Numbers(0)
    target = numbers.orthogonal(64, 64)
    return Problem(
        "Half the squared distance from an orthogonal 64 x 64 matrix, of the same determinant as "
        "the start.",
        numbers.orthogonal(64, 64),
        matched,
        (target,),
        Orthogonal().deviation,
        contestants(is_square=True),
        steps=400,
    )


def regressed() -> Problem:
    numbers = Numbers(1)
    inputs, solution = numbers.sample(256, 8), numbers.orthogonal(24, 8)
    return Problem(
        "Regression whose 24 x 8 weight has orthonormal columns, without noise.",
        numbers.orthogonal(24, 8),
        regression,
        (inputs, inputs @ solution.mT),
        Orthogonal().deviation,
        contestants(is_square=False),
    )


def eigenvectors() -> Problem:
    numbers = Numbers(2)
    values = torch.linspace(0.05, 2.0, 24, dtype=torch.float64)
    weights = torch.tensor([1.0, 0.75, 0.5], dtype=torch.float64)
    least = -(values[-3:].flip(0) * weights).sum() / 2
    return Problem(
        "The three leading eigenvectors of a symmetric 24 x 24 matrix, by Brockett's cost.",
        numbers.orthogonal(24, 3),
        quadratic_form,
        (numbers.spectrum(values), weights, least),
        Orthogonal().deviation,
        contestants(is_square=False),
        project=polar,
    )


def rotations() -> dict[str, Contestant]:
    return {
        "`SpecialOrthogonal()`": ours(SpecialOrthogonal),
        "`SpecialOrthogonal('matrix_exp')`": ours(lambda: SpecialOrthogonal("matrix_exp")),
        "`SpecialOrthogonal('householder')`": ours(lambda: SpecialOrthogonal("householder")),
        "`SpecialOrthogonal(rebase=None)`": ours(lambda: SpecialOrthogonal(rebase=None)),
        "geotorch, SO": by_geotorch(lambda geotorch, shape: geotorch.SO(shape, triv="expm")),
        "geoopt, Stiefel": by_geoopt(lambda geoopt: geoopt.Stiefel()),
        "POGO": by_pogo(),
    }


def rotation() -> Problem:
    numbers = Numbers(3)
    target = numbers.orthogonal(24, 24)
    return Problem(
        "Half the squared distance from a rotation of 24 dimensions.",
        numbers.orthogonal(24, 24),
        matched,
        (target,),
        SpecialOrthogonal().deviation,
        rotations(),
    )


def aligned() -> Problem:
    numbers = Numbers(4)
    points, turn = numbers.sample(64, 3), numbers.orthogonal(3, 3)
    return Problem(
        "The rotation of three dimensions that takes 64 points to 64 others (Wahba's problem).",
        torch.eye(3, dtype=torch.float64),
        regression,
        (points, points @ turn.mT),
        SpecialOrthogonal().deviation,
        rotations(),
    )


def subspaces() -> dict[str, Contestant]:
    return {
        "`Grassmann()`": ours(Grassmann),
        "`Grassmann(rebase=None)`": ours(lambda: Grassmann(rebase=None)),
        "geotorch, Grassmannian": by_geotorch(
            lambda geotorch, shape: geotorch.Grassmannian(shape, triv="expm")
        ),
        "geoopt, Stiefel": by_geoopt(lambda geoopt: geoopt.Stiefel()),
        "POGO": by_pogo(),
        "by hand, QR": by_hand(lambda X: torch.linalg.qr(X).Q, lambda Y: Y),
    }


def leading_subspace() -> Problem:
    numbers = Numbers(5)
    values = torch.cat([torch.linspace(0.05, 1.0, 28), torch.linspace(1.5, 2.0, 4)]).double()
    ones = torch.ones(4, dtype=torch.float64)
    return Problem(
        "The leading subspace, of dimension 4, of a symmetric 32 x 32 matrix.",
        numbers.orthogonal(32, 4),
        quadratic_form,
        (numbers.spectrum(values), ones, -values[-4:].sum() / 2),
        Grassmann().deviation,
        subspaces(),
        project=polar,
    )


def left_over(Y: Tensor, data: Tensor) -> Tensor:
    return (data - data @ Y @ Y.mT).square().sum() / len(data) / 2


def principal() -> Problem:
    numbers = Numbers(6)
    basis = numbers.orthogonal(24, 3)
    data = numbers.normal(128, 3) @ basis.mT
    return Problem(
        "The subspace of dimension 3 that holds 128 points of 24 dimensions.",
        numbers.orthogonal(24, 3),
        left_over,
        (data,),
        Grassmann().deviation,
        subspaces(),
    )


def near(numbers: Numbers, n: int) -> Tensor:
    """With singular values from 0.92 to 1.08."""
    stretch = numbers.spectrum(torch.linspace(0.92, 1.08, n, dtype=torch.float64))
    return numbers.orthogonal(n, n) @ stretch


def almost() -> Problem:
    numbers = Numbers(7)
    target = near(numbers, 16)
    return Problem(
        "Half the squared distance from a 16 x 16 matrix with singular values from 0.92 to 1.08.",
        near(numbers, 16),
        matched,
        (target,),
        AlmostOrthogonal(0.1).deviation,
        {
            "`AlmostOrthogonal(0.1)`": ours(lambda: AlmostOrthogonal(0.1)),
            "`AlmostOrthogonal(0.1, rebase=None)`": ours(
                lambda: AlmostOrthogonal(0.1, rebase=None)
            ),
            "geotorch, AlmostOrthogonal": by_geotorch(
                lambda geotorch, shape: geotorch.AlmostOrthogonal(shape, lam=0.1, triv="expm")
            ),
        },
    )


PROBLEMS = {
    "orthogonal 64 x 64": recovered,
    "orthonormal regression": regressed,
    "eigenvectors": eigenvectors,
    "rotation SO(24)": rotation,
    "aligned points SO(3)": aligned,
    "leading subspace": leading_subspace,
    "principal subspace": principal,
    "almost orthogonal": almost,
}
