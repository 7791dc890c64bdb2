"""Assigning to a parametrized tensor goes through every right inverse, or changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import paramdesc as P
from tests.helpers import Double, original_of
from tests.registration.maps import Product


def test_assignment_accepts_any_tensor_and_refuses_the_rest() -> None:
    linear: Any = P.register_parametrization(nn.Linear(2, 2), "weight", Double())
    original = original_of(linear)
    linear.weight = torch.ones(2, 2)
    assert original_of(linear) is original
    for wrong, message in [
        (nn.Parameter(torch.ones(2, 2)), r"`module\.weight = value\.detach\(\)`"),
        (nn.Identity(), "cannot assign an nn.Parameter or nn.Module"),
        (None, "cannot assign None to 'weight'"),
        (3, "cannot assign 'int'"),
    ]:
        with pytest.raises(TypeError, match=message):
            linear.weight = wrong
    with pytest.raises(TypeError, match=r"remove_parametrizations\(module, \"weight\"\), then"):
        del linear.weight
    torch.testing.assert_close(linear.weight, torch.ones(2, 2))


def test_an_assigned_tensor_is_not_shared_with_the_original() -> None:
    linear = P.register_parametrization(
        nn.Linear(2, 2), "weight", lambda X: X, right_inverse=lambda X: X
    )
    value = torch.ones(2, 2)
    linear.weight = value
    value.zero_()
    torch.testing.assert_close(linear.weight.detach(), torch.ones(2, 2))


def test_assignment_needs_every_right_inverse() -> None:
    linear = P.register_parametrization(nn.Linear(2, 2), "weight", torch.exp)
    with pytest.raises(
        RuntimeError, match=r"exp does not implement right_inverse\. .*right_inverse=function"
    ):
        linear.weight = torch.ones(2, 2)


@pytest.mark.parametrize(
    ("inverse", "message"),
    [
        (lambda X: X.double(), "has dtype torch.float64 while `original` has dtype"),
        (lambda X: (X, X), "should return a tensor. Got tuple"),
    ],
)
def test_an_inverse_that_fits_no_more_changes_nothing(inverse: Any, message: str) -> None:
    given: list[Any] = [lambda X: X]
    linear = P.register_parametrization(
        nn.Linear(2, 2), "weight", lambda X: X, right_inverse=lambda X: given[-1](X)
    )
    before = linear.weight.detach().clone()
    given.append(inverse)
    with pytest.raises(ValueError, match=message):
        linear.weight = torch.ones(2, 2)
    torch.testing.assert_close(linear.weight.detach(), before)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda X: X, "must return a sequence of tensors. Got Tensor"),
        (lambda X: (X,), "of length 2. Got a sequence of length 1"),
        (lambda X: (X, 1), "Got element 1 of type int"),
        (lambda X: (X, X.double()), "Tensor 1 returned by `right_inverse` has dtype"),
    ],
)
def test_several_originals_are_assigned_all_or_none(result: Any, message: str) -> None:
    product = Product()
    linear = P.register_parametrization(nn.Linear(2, 2), "weight", product)
    before = linear.weight.detach().clone()
    product.right_inverse = result  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=message):
        linear.weight = torch.ones(2, 2)
    torch.testing.assert_close(linear.weight.detach(), before)
