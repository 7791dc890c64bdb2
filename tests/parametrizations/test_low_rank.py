"""`LowRank` and `RankOne`: the nearest such matrix, and factors that can be trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paramdesc import register_parametrization
from paramdesc.parametrizations.spectra.fixed_rank import FixedRank
from paramdesc.parametrizations.spectra.low_rank import LowRank
from paramdesc.parametrizations.spectra.positive_definite import PositiveDefinite
from paramdesc.parametrizations.spectra.positive_semidefinite import PositiveSemidefinite
from paramdesc.parametrizations.spectra.rank_one import RankOne
from tests.helpers import chain_of


def with_singular_values(values: Tensor, m: int, n: int) -> Tensor:
    """An `m x n` matrix of these singular values, with random singular vectors."""
    U = torch.linalg.qr(torch.randn(m, len(values), dtype=values.dtype)).Q
    V = torch.linalg.qr(torch.randn(n, len(values), dtype=values.dtype)).Q
    X: Tensor = U @ values.diag() @ V.T
    return X


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (2, 5, 5)])
def test_other_matrices_are_replaced_by_the_nearest_of_that_rank(shape: tuple[int, ...]) -> None:
    X = torch.randn(shape, dtype=torch.float64)
    module: Any = nn.Module()
    module.weight = nn.Parameter(X.clone())
    register_parametrization(module, "weight", LowRank(2))
    S = torch.linalg.svdvals(X)
    left_out = S[..., 2:].square().sum(-1).sqrt()
    torch.testing.assert_close(torch.linalg.matrix_norm(X - module.weight), left_out)
    assert (torch.linalg.matrix_rank(module.weight) == 2).all()


def test_factors_share_the_singular_values() -> None:
    A, B = LowRank(3).right_inverse(torch.randn(5, 4, dtype=torch.float64))
    torch.testing.assert_close(A.mT @ A, B @ B.mT)


@pytest.mark.parametrize("start", [torch.zeros(4, 4), torch.ones(4, 4)])
def test_rank_grows_again_in_training(start: Tensor) -> None:
    layer: Any = nn.Linear(4, 4, bias=False)
    register_parametrization(layer, "weight", LowRank(3))
    layer.weight = start
    torch.testing.assert_close(layer.weight, start)
    target = with_singular_values(torch.tensor([3.0, 2.0, 1.0]), 4, 4)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(600):
        optimizer.zero_grad()
        (layer.weight - target).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(layer.weight, target, atol=0.02, rtol=0)


def test_strict_refuses_a_higher_rank_with_the_next_singular_value() -> None:
    layer: Any = nn.Linear(4, 5)
    register_parametrization(layer, "weight", LowRank(2))
    chain_of(layer)[0].strict = True
    with pytest.raises(ValueError, match="not of the given rank or less: it deviates by 0.5,"):
        layer.weight = with_singular_values(torch.tensor([3.0, 2.0, 0.5]), 5, 4)
    value = with_singular_values(torch.tensor([3.0, 2.0]), 5, 4)
    layer.weight = value
    torch.testing.assert_close(layer.weight, value)


@pytest.mark.parametrize(
    "parametrization",
    [LowRank(2), RankOne(), FixedRank(2), PositiveSemidefinite(2, fixed=True), PositiveDefinite()],
)
def test_originals_are_contiguous(parametrization: nn.Module) -> None:
    # torch.optim.LBFGS reads gradients by `view`, and they have the strides of the parameters
    layer: Any = register_parametrization(nn.Linear(4, 4), "weight", parametrization)
    assert all(original.is_contiguous() for original in chain_of(layer).originals())


def test_rank_must_fit_the_matrix() -> None:
    with pytest.raises(ValueError, match="rank must be positive. Got rank=0"):
        LowRank(0)
    with pytest.raises(ValueError, match=r"rank=4 is more .* \[5, 3\] .* Write rank=3, or less"):
        register_parametrization(nn.Linear(3, 5), "weight", LowRank(4))
    with pytest.raises(ValueError, match=r"\(\*, m, n\). Got shape \[5\]"):
        register_parametrization(nn.Linear(3, 5), "bias", LowRank(1))
    register_parametrization(nn.Linear(3, 5), "weight", LowRank(3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_rank_one_is_the_outer_product_without_conjugation(dtype: torch.dtype) -> None:
    u, v = torch.randn(2, 4, dtype=dtype), torch.randn(2, 3, dtype=dtype)
    torch.testing.assert_close(RankOne()(u, v), torch.einsum("bi,bj->bij", u, v))


def test_vectors_of_an_outer_product_are_of_equal_length() -> None:
    Y = torch.outer(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0, 2.0]))
    u, v = RankOne().right_inverse(Y)
    torch.testing.assert_close(u.norm() * v.norm(), torch.tensor(15.0))
    torch.testing.assert_close(u.norm(), v.norm())
    torch.testing.assert_close(RankOne()(u, v), Y)
