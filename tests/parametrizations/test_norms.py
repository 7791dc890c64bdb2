"""`FrobeniusNorm`, `MaxNorm`, `Centered` and `WeightStandardization`: what the formulas say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paramdesc import register_parametrization
from paramdesc.parametrizations.norms.centered import Centered
from paramdesc.parametrizations.norms.frobenius_norm import FrobeniusNorm
from paramdesc.parametrizations.norms.max_norm import MaxNorm
from paramdesc.parametrizations.norms.weight_standardization import WeightStandardization

pytestmark = pytest.mark.usefixtures("algorithms")

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64]

Reference = Callable[[Tensor], Tensor]


def standardized(X: Tensor) -> Tensor:
    rows = X.flatten(1)
    mean, deviation = rows.mean(1, keepdim=True), rows.std(1, correction=0, keepdim=True)
    return ((rows - mean) / deviation).view(X.shape)


REFERENCES: dict[str, tuple[nn.Module, Reference]] = {
    "Frobenius norm": (FrobeniusNorm(2.0), lambda X: 2 * X / X.norm()),
    "Frobenius norm of rows": (
        FrobeniusNorm(dim=-1),
        lambda X: nn.functional.normalize(X, dim=-1),
    ),
    "max norm": (MaxNorm(1.5), lambda X: X.reshape(6, 4).renorm(2, 0, 1.5).view(X.shape)),
    "centered": (Centered(), lambda X: X - X.mean(-1, keepdim=True)),
    "standardized": (WeightStandardization(), standardized),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", REFERENCES)
def test_value_is_that_of_the_formula(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    parametrization, reference = REFERENCES[name]
    X = torch.randn(2, 3, 4, dtype=dtype)
    value = parametrization(X)
    assert value.dtype == dtype
    wide = X.to(torch.complex128 if dtype.is_complex else torch.float64)
    allowed = max(4 * torch.finfo(dtype).eps, 2e-7 if name == "max norm" else 1e-9)
    torch.testing.assert_close(value.to(wide.dtype), reference(wide), rtol=allowed, atol=allowed)


@pytest.mark.parametrize(
    "parametrization",
    [FrobeniusNorm(2.0), FrobeniusNorm(dim=-1), MaxNorm(0.5), Centered(), Centered(0)],
    ids=repr,
)
def test_value_of_any_tensor_is_the_nearest_that_satisfies_the_constraint(
    parametrization: Any,
) -> None:
    torch.manual_seed(0)
    X = torch.randn(5, 4, dtype=torch.float64)
    nearest = parametrization(X)
    torch.testing.assert_close(parametrization(nearest), nearest)
    distance = (nearest - X).norm()
    for _ in range(50):
        other = parametrization(nearest + 0.1 * torch.randn_like(X))
        assert (other - X).norm() >= distance


def test_short_enough_rows_are_kept_exactly() -> None:
    X = 0.1 * torch.randn(5, 4)
    assert MaxNorm()(X).equal(X)
    assert FrobeniusNorm(9.0, only_shrink=True)(X).equal(X)


@pytest.mark.parametrize("only_shrink", [False, True])
def test_zero_rows_stay_zero_with_finite_gradients(only_shrink: bool) -> None:
    X = torch.zeros(3, 4, requires_grad=True)
    value = FrobeniusNorm(2.0, dim=-1, only_shrink=only_shrink)(X)
    value.sum().backward()
    assert not value.any()
    assert X.grad is not None
    assert X.grad.equal(torch.ones(3, 4))


def test_equal_weights_standardize_to_zero_with_finite_gradient() -> None:
    X = torch.full((3, 4), 0.25, requires_grad=True)
    value = WeightStandardization()(X)
    value.square().sum().backward()
    assert not value.any()
    assert X.grad is not None
    assert X.grad.isfinite().all()


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_each_output_is_standardized(dim: int) -> None:
    value = WeightStandardization(dim)(torch.randn(3, 4, 5)).movedim(dim, 0).flatten(1)
    torch.testing.assert_close(value.mean(1), torch.zeros(len(value)), atol=1e-6, rtol=0)
    torch.testing.assert_close(value.var(1, correction=0), torch.ones(len(value)))


def test_eps_is_added_to_the_variance() -> None:
    X = torch.tensor([[-1.0, 1.0]])
    torch.testing.assert_close(WeightStandardization(eps=3.0)(X), X / 2)


@pytest.mark.parametrize(
    ("parametrization", "right", "wrong", "deviation"),
    [
        (FrobeniusNorm(5.0, strict=True), [[3.0, 4.0]], [[6.0, 8.0]], 5),
        (MaxNorm(5.0, strict=True), [[0.0, 4.0]], [[6.0, 8.0]], 5),
        (Centered(strict=True), [[-1.0, 1.0]], [[0.0, 1.0]], 0.5),
        (WeightStandardization(strict=True), [[-1.0, 1.0]], [[-2.0, 2.0]], 3),
    ],
    ids=repr,
)
def test_strict_refuses_with_the_deviation(
    parametrization: nn.Module, right: Any, wrong: Any, deviation: float
) -> None:
    module: Any = nn.Module()
    module.weight = nn.Parameter(torch.tensor(right))
    register_parametrization(module, "weight", parametrization)
    torch.testing.assert_close(module.weight.detach(), torch.tensor(right))
    with pytest.raises(ValueError, match=f"deviates by {deviation}, "):
        module.weight = torch.tensor(wrong)


@pytest.mark.parametrize("make", [FrobeniusNorm, MaxNorm])
@pytest.mark.parametrize("bound", [0.0, -1.0, float("inf"), float("nan")])
def test_bound_out_of_range_is_refused(make: Any, bound: float) -> None:
    with pytest.raises(ValueError, match="bound must be positive and finite"):
        make(bound)


def test_no_dimension_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="Write dim=None"):
        Centered(())
    assert not Centered(None)(torch.ones(2, 2)).any()


def test_what_cannot_be_standardized_is_refused() -> None:
    with pytest.raises(ValueError, match="a single number has no variance"):
        WeightStandardization()(torch.randn(3, 1))
    with pytest.raises(ValueError, match=r"Got shape \[3\]"):
        WeightStandardization()(torch.randn(3))
    with pytest.raises(ValueError, match="eps must be positive"):
        WeightStandardization(eps=0)
    assert WeightStandardization()(torch.randn(3, 2)).shape == (3, 2)


def test_repr_shows_the_arguments() -> None:
    assert repr(FrobeniusNorm(2.0, dim=-1)) == "FrobeniusNorm(bound=2.0, dim=(-1,))"
    assert repr(FrobeniusNorm(only_shrink=True)) == "FrobeniusNorm(bound=1.0, only_shrink=True)"
    assert repr(MaxNorm(strict=True)) == "MaxNorm(bound=1.0, dim=(-1,), strict=True)"
    assert repr(Centered((1, 2))) == "Centered(dim=(1, 2))"
    assert repr(WeightStandardization()) == "WeightStandardization(dim=0, eps=1e-10)"
