"""Tensors divided by their norms, in few operations: the derivatives are those of the formula."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from paramdesc.parametrizations import FrobeniusNorm, MaxNorm, Oblique, Sphere
from paramdesc.parametrizations.norms.length import Length
from tests.linalg.operations import operations

pytestmark = pytest.mark.usefixtures("few_launches")

MAPS: dict[str, tuple[Callable[[], Any], int]] = {
    "Frobenius norm": (lambda: FrobeniusNorm(), 6),
    "Frobenius norm 2": (lambda: FrobeniusNorm(2.0), 7),
    "Frobenius norm of rows": (lambda: FrobeniusNorm(2.0, dim=-1), 8),
    "Frobenius norm, only shrink": (lambda: FrobeniusNorm(2.0, only_shrink=True), 9),
    "max norm": (lambda: MaxNorm(), 9),
    "max norm 2": (lambda: MaxNorm(2.0, dim=(0, 2)), 10),
    "sphere": (lambda: Sphere(), 10),
    "sphere, whole": (lambda: Sphere(3.0, dim=None), 11),
    "oblique": (lambda: Oblique(0.5), 11),
}
"""Maps, with the operations that a value and its gradient take."""


def formula(parametrization: Any) -> Callable[[Tensor], Tensor]:
    if isinstance(parametrization, Length):
        only_shrink = bool(getattr(parametrization, "only_shrink", True))
        return partial(parametrization.formula, only_shrink=only_shrink)
    found: Callable[[Tensor], Tensor] = parametrization.formula
    return found


def tensor(*, zero: bool = False) -> Tensor:
    torch.manual_seed(0)
    X = torch.randn(3, 4, 2, dtype=torch.float64)
    X[0] *= 0.2  # shorter than some bounds
    if zero:
        X[1], X[:, 1] = 0, 0
    return X.requires_grad_()


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("name", MAPS)
def test_value_and_gradient_are_those_of_the_formula(name: str, zero: bool) -> None:
    parametrization = MAPS[name][0]()
    X = tensor(zero=zero)
    gradient = torch.randn_like(X)
    value, expected = parametrization(X), formula(parametrization)(X)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(
        torch.autograd.grad(value, X, gradient), torch.autograd.grad(expected, X, gradient)
    )


@pytest.mark.parametrize("name", MAPS)
def test_second_derivatives_are_right(name: str) -> None:
    parametrization = MAPS[name][0]()
    assert torch.autograd.gradcheck(parametrization, tensor())
    assert torch.autograd.gradgradcheck(parametrization, tensor())


@pytest.mark.parametrize("name", MAPS)
def test_few_operations_start_a_kernel(name: str) -> None:
    make, most = MAPS[name]
    parametrization, X = make(), tensor()
    gradient = torch.ones_like(X)
    with operations() as counted:
        parametrization(X).backward(gradient)
    assert len(counted) <= most
    assert "_local_scalar_dense" not in counted
