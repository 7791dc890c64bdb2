"""`Symmetric`: what it gives, what it keeps, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paramdesc import register_parametrization
from paramdesc.parametrizations import Symmetric
from tests.helpers import chain_of, linear

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64]


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, dtype=dtype)


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (2, 3, 3), (2, 1, 5, 5)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_value_equals_its_transpose(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    X = random(*shape, dtype=dtype)
    Y = Symmetric()(X)
    assert Y.dtype == dtype
    assert Y.equal(Y.mT)
    assert Y.triu().equal(X.triu())


def test_integer_buffers_are_symmetric_too() -> None:
    module: Any = nn.Module()
    module.register_buffer("adjacency", torch.arange(9).view(3, 3))
    register_parametrization(module, "adjacency", Symmetric())
    assert module.adjacency.tolist() == [[0, 1, 2], [1, 4, 5], [2, 5, 8]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_symmetric_matrix_is_kept_exactly(dtype: torch.dtype) -> None:
    X = random(4, 4, dtype=dtype)
    symmetric = X.triu() + X.triu(1).mT
    layer: Any = nn.Linear(4, 4, dtype=dtype)
    register_parametrization(layer, "weight", Symmetric())
    layer.weight = symmetric
    assert layer.weight.equal(symmetric)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
def test_other_matrices_are_replaced_by_the_nearest_symmetric_one(dtype: torch.dtype) -> None:
    A = random(2, 4, 4, dtype=dtype)
    module: Any = nn.Module()
    module.weight = nn.Parameter(A.clone())
    register_parametrization(module, "weight", Symmetric())
    torch.testing.assert_close(module.weight, (A + A.mT) / 2)


def test_projection_of_large_halves_does_not_overflow() -> None:
    A = torch.full((2, 2), 60000.0, dtype=torch.float16)
    assert Symmetric().right_inverse(A).triu().equal(A.triu())


def test_registration_projects_once_and_registering_again_changes_nothing() -> None:
    layer = linear(Symmetric())
    before = layer.weight
    register_parametrization(layer, "weight", Symmetric())
    assert layer.weight.equal(before)
    layer.weight = before.detach()
    assert layer.weight.equal(before)


def test_strict_refuses_what_is_not_symmetric_and_tells_by_how_much() -> None:
    layer = linear(Symmetric())
    register_parametrization(layer, "weight", Symmetric(strict=True))
    before = layer.weight
    with pytest.raises(ValueError, match="is not symmetric: it deviates by 2,"):
        layer.weight = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert layer.weight.equal(before)
    layer.weight = torch.eye(3)
    assert layer.weight.equal(torch.eye(3))


def test_strict_registration_on_an_asymmetric_weight_leaves_it_alone() -> None:
    layer = nn.Linear(3, 3)
    weight, before = layer.weight, layer.weight.detach().clone()
    with pytest.raises(ValueError, match="not symmetric"):
        register_parametrization(layer, "weight", Symmetric(strict=True))
    assert layer.weight is weight
    assert weight.equal(before)


@pytest.mark.parametrize("shape", [(3, 4), (3,), (), (2, 4, 3)])
def test_shapes_that_are_not_square_are_refused_with_the_shape(shape: tuple[int, ...]) -> None:
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(shape))
    with pytest.raises(ValueError, match="square") as caught:
        register_parametrization(module, "weight", Symmetric())
    assert str(list(shape)) in str(caught.value)
    assert isinstance(module.weight, nn.Parameter)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradients_are_those_of_the_formula(dtype: torch.dtype) -> None:
    X = random(2, 3, 3, dtype=dtype).requires_grad_()
    assert torch.autograd.gradcheck(Symmetric(), X)
    assert torch.autograd.gradgradcheck(Symmetric(), X)


def test_entries_below_the_diagonal_get_no_gradient() -> None:
    layer = linear(Symmetric())
    layer(torch.randn(4, 3)).square().sum().backward()
    gradient = chain_of(layer).original.grad
    assert not gradient.tril(-1).any()
    assert gradient[torch.ones(3, 3).triu().bool()].all()


def test_value_stays_symmetric_while_it_is_trained() -> None:
    layer = linear(Symmetric())
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    before = layer.weight
    for _ in range(5):
        optimizer.zero_grad()
        layer(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
    assert layer.weight.equal(layer.weight.mT)
    assert not layer.weight.equal(before)


def test_repr_tells_whether_it_is_strict() -> None:
    assert repr(Symmetric()) == "Symmetric()"
    assert repr(Symmetric(strict=True)) == "Symmetric(strict=True)"
