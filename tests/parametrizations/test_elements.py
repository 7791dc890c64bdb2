"""Maps that constrain entries: bounds, what is assigned, constraints of torch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import constraints as typed_constraints
from torch.distributions import transform_to

from paramdesc import register_parametrization
from paramdesc.parametrizations.entries.from_distributions import FromDistributions
from paramdesc.parametrizations.entries.interval import Interval, UnitInterval
from paramdesc.parametrizations.entries.ordered import Ordered, nearest_increasing
from paramdesc.parametrizations.entries.positive import Positive
from paramdesc.parametrizations.entries.simplex import Simplex, nearest_on_simplex
from tests.helpers import chain_of

constraints: Any = typed_constraints
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def holder(weight: Tensor, parametrization: nn.Module) -> Any:
    module = nn.Module()
    module.weight = nn.Parameter(weight.clone())
    return register_parametrization(module, "weight", parametrization)


# what torch.distributions gives

SAME: dict[str, tuple[nn.Module, Any]] = {
    "interval": (Interval(-1.0, 3.0), constraints.interval(-1.0, 3.0)),
    "unit interval": (UnitInterval(), constraints.unit_interval),
    "simplex": (Simplex(), constraints.simplex),
    "exponential": (Positive(function="exp"), constraints.positive),
}


@pytest.mark.parametrize("name", SAME)
def test_value_is_that_of_the_transform(name: str) -> None:
    parametrization, constraint = SAME[name]
    X = torch.randn(3, 4, dtype=torch.float64)
    expected = transform_to(constraint)(X)
    torch.testing.assert_close(parametrization(X), expected)
    torch.testing.assert_close(FromDistributions(constraint)(X), expected)


def test_positive_is_softplus_and_simplex_takes_any_dimension() -> None:
    X = torch.randn(3, 4)
    torch.testing.assert_close(Positive(0.5)(X), 0.5 + nn.functional.softplus(X))
    torch.testing.assert_close(Simplex(0)(X).sum(0), torch.ones(4))


# bounds are kept strictly

EXTREMES = [-1e4, -100.0, -20.0, 20.0, 100.0, 1e4]
BOUNDS = [(0.0, 1.0), (0.1, 0.3), (-0.3, -0.1), (1.0, 3.0), (-1.0, 0.0)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_no_value_touches_a_bound(low: float, high: float, dtype: torch.dtype) -> None:
    X = torch.tensor(EXTREMES, dtype=torch.float64).to(dtype)
    limits = torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)
    between: list[nn.Module] = [
        Interval(low, high),
        Interval(*limits),
        FromDistributions(constraints.interval(low, high)),
        FromDistributions(constraints.interval(*limits)),
    ]
    for parametrization in between:
        value = parametrization(X).double()
        assert (value > low).all()
        assert (value < high).all()
    larger: list[nn.Module] = [
        Positive(abs(low)),
        Positive(abs(low), function="exp"),
        FromDistributions(constraints.greater_than(abs(low))),
    ]
    for parametrization in larger:
        assert (parametrization(X).double() > abs(low)).all()


def test_gradient_goes_on_where_the_value_is_held_at_a_bound() -> None:
    for parametrization in (Positive(1.0), Interval(1.0, 2.0)):
        X = torch.tensor([-18.0], requires_grad=True)
        (gradient,) = torch.autograd.grad(parametrization(X), X)
        torch.testing.assert_close(gradient, X.detach().sigmoid())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_rows_increase_strictly(scale: float, dtype: torch.dtype) -> None:
    X = (scale * (torch.randn(20, 30) - 1)).to(dtype)
    parametrization = Ordered()
    assert (parametrization(X).diff(dim=-1) > 0).all()
    assert (parametrization(parametrization.right_inverse(X)).diff(dim=-1) > 0).all()


# assigning


@pytest.mark.parametrize(
    ("parametrization", "value"),
    [
        (Positive(), [1e-30, 1e-3, 1.0, 1e3]),
        (Positive(2.0), [2.001, 2.5, 3.0, 1e3]),
        (Interval(-1.0, 3.0), [-0.999, 0.0, 1.0, 2.999]),
        (UnitInterval(), [1e-30, 1e-3, 0.5, 0.999]),
        (Simplex(), [1e-10, 0.1, 0.4, 0.5 - 1e-10]),
        (Ordered(), [-2.0, -1.999, 0.0, 50.0]),
        (FromDistributions(constraints.less_than(2.0)), [-50.0, 0.0, 1.0, 1.999]),
        (FromDistributions(constraints.simplex, bijective=True), [0.1, 0.2, 0.3, 0.4]),
        (FromDistributions(constraints.positive), [1e-30, 1e-3, 1.0, 1e3]),
    ],
    ids=repr,
)
def test_values_inside_are_kept(parametrization: nn.Module, value: list[float]) -> None:
    expected = torch.tensor(value)
    module = holder(expected, parametrization)
    torch.testing.assert_close(module.weight.detach(), expected, rtol=2e-5, atol=0)


def test_entries_outside_are_placed_inside_where_they_learn() -> None:
    outside = torch.tensor([-5.0, 0.0, 0.5, 1.0, 5.0])
    placed = torch.tensor([0.001, 0.001, 0.5, 0.999, 0.999])
    positive = torch.tensor([0.001, 0.001, 0.5, 1.0, 5.0])
    cases: list[tuple[nn.Module, Tensor]] = [
        (UnitInterval(), placed),
        (FromDistributions(constraints.unit_interval), placed),
        (Positive(), positive),
        (FromDistributions(constraints.positive), positive),
    ]
    for parametrization, expected in cases:
        torch.testing.assert_close(holder(outside, parametrization).weight.detach(), expected)


def test_without_margin_the_nearest_number_inside_is_taken() -> None:
    module = holder(torch.tensor([-5.0, 0.0, 0.5, 1.0, 5.0]), UnitInterval(margin=0))
    torch.testing.assert_close(
        module.weight.detach(), torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]), atol=2e-7, rtol=0
    )
    assert (module.weight > 0).all()
    assert (module.weight < 1).all()


def test_nearest_point_of_the_simplex() -> None:
    torch.manual_seed(0)
    Y = torch.randn(4, 5, dtype=torch.float64)
    nearest = nearest_on_simplex(Y)
    torch.testing.assert_close(nearest.sum(-1), torch.ones(4, dtype=torch.float64))
    assert (nearest >= 0).all()
    # the difference has no larger product with any corner than with the nearest point
    difference = Y - nearest
    products = difference - (difference * nearest).sum(-1, keepdim=True)
    assert (products < 1e-12).all()
    value = holder(Y, Simplex(margin=0)).weight.detach()
    torch.testing.assert_close(value, nearest)


def pooled(row: list[float]) -> list[float]:
    """The isotonic regression of `row`, one entry at a time."""
    blocks: list[tuple[float, int]] = []
    for entry in row:
        blocks.append((entry, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, m), (b, n) = blocks.pop(-2), blocks.pop()
            blocks.append(((a * m + b * n) / (m + n), m + n))
    return [mean for mean, size in blocks for _ in range(size)]


def test_nearest_row_that_does_not_decrease() -> None:
    torch.manual_seed(0)
    Y = torch.randn(10, 40, dtype=torch.float64)
    Y[0] = Y[0].sort(descending=True).values
    Y[1] = Y[1].sort().values
    expected = torch.tensor([pooled(row) for row in Y.tolist()], dtype=torch.float64)
    torch.testing.assert_close(nearest_increasing(Y), expected)
    torch.testing.assert_close(holder(Y, Ordered(sort=False)).weight.detach(), expected)
    torch.testing.assert_close(holder(Y, Ordered()).weight.detach(), Y.sort().values)


def test_ordered_learns_from_the_default_weights_of_a_layer() -> None:
    torch.manual_seed(0)
    layer: Any = register_parametrization(nn.Linear(32, 8), "weight", Ordered())
    factor = torch.randn(8, 32)
    original = layer.parametrizations.weight.original
    (gradient,) = torch.autograd.grad((layer.weight * factor).sum(), original)
    # the first entry of a row moves all of it; the steps must learn, too
    assert gradient[:, 1:].norm() > 0.01 * factor[:, 1:].norm()
    assert gradient[:, 1:].abs().median() > 0.01 * factor.abs().median()
    target = torch.randn(8, 32).sort().values
    optimizer = torch.optim.SGD([original], lr=1.0)
    losses = []
    for _ in range(300):
        optimizer.zero_grad()
        loss = (layer.weight - target).square().sum(-1).mean() / 32
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("sort", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_ordered_keeps_rows_that_increase_to_rounding(sort: bool, dtype: torch.dtype) -> None:
    Y = torch.randn(20, 30, dtype=dtype).sort().values
    value = holder(Y, Ordered(sort=sort)).weight.detach()
    torch.testing.assert_close(value, Y, rtol=0, atol=100 * torch.finfo(dtype).eps)


STRICT: dict[str, tuple[nn.Module, list[float], list[float], str]] = {
    "positive": (Positive(strict=True), [1.0, 2.0], [1.0, -2.0], "above the lower bound"),
    "zero": (Positive(strict=True), [1.0, 2.0], [1.0, 0.0], "above the lower bound"),
    "interval": (Interval(0, 3, strict=True), [1.0, 2.0], [1.0, 5.0], "between the bounds"),
    "simplex": (Simplex(strict=True), [0.5, 0.5], [0.5, 1.5], "on the simplex: it deviates by 1,"),
    "ordered": (Ordered(strict=True), [1.0, 2.0], [2.0, 1.5], "increasing.*deviates by 0.5,"),
    "distributions": (
        FromDistributions(constraints.positive, strict=True),
        [1.0, 2.0],
        [1.0, -2.0],
        "within GreaterThan",
    ),
}


@pytest.mark.parametrize("name", STRICT)
def test_strict_refuses_what_is_outside(name: str) -> None:
    parametrization, right, wrong, message = STRICT[name]
    module = holder(torch.tensor(right), parametrization)
    torch.testing.assert_close(module.weight.detach(), torch.tensor(right))
    with pytest.raises(ValueError, match=f"the value is not {message}"):
        module.weight = torch.tensor(wrong)
    torch.testing.assert_close(module.weight.detach(), torch.tensor(right))


# constraints of torch.distributions


def cholesky_of_correlation() -> Tensor:
    C = torch.tensor([[1.0, 0.3, 0.2], [0.3, 1.0, 0.1], [0.2, 0.1, 1.0]])
    factor: Tensor = torch.linalg.cholesky(C)
    return factor


MANY: dict[str, tuple[Any, Tensor]] = {
    "corr_cholesky": (constraints.corr_cholesky, cholesky_of_correlation()),
    "lower_cholesky": (constraints.lower_cholesky, cholesky_of_correlation()),
    "positive_definite": (constraints.positive_definite, torch.eye(3) + 0.1),
    "real": (constraints.real, torch.randn(3, 3)),
    "nonnegative": (constraints.nonnegative, torch.rand(3, 3)),
    "less_than": (constraints.less_than(torch.tensor([1.0, 2.0])), -torch.rand(3, 2)),
    "half_open_interval": (constraints.half_open_interval(0.0, 2.0), torch.rand(3, 2)),
    "independent": (constraints.independent(constraints.positive, 1), torch.rand(3, 2)),
    "stack": (constraints.stack([constraints.positive, constraints.real], -1), torch.rand(3, 2)),
}


@pytest.mark.parametrize("name", MANY)
def test_constraints_of_torch_hold_while_training(name: str) -> None:
    constraint, value = MANY[name]
    module = holder(value, FromDistributions(constraint))
    torch.testing.assert_close(module.weight.detach(), value)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (module.weight - 3).square().sum().backward()
        optimizer.step()
    assert not module.weight.equal(value)
    assert constraint.check(module.weight.detach()).all()
    (map_,) = chain_of(module)
    assert map_.deviation(module.weight.detach()) <= map_.tolerance(module.weight)


def test_unconstrained_tensor_may_have_another_shape() -> None:
    module = holder(cholesky_of_correlation(), FromDistributions(constraints.corr_cholesky))
    assert chain_of(module).original0.shape == (3,)


def test_tensors_of_a_constraint_move_and_are_saved_with_the_map() -> None:
    low = torch.tensor([-1.0, 0.0])
    for parametrization in (
        FromDistributions(constraints.cat([constraints.greater_than(low)], lengths=[3])),
        Interval(low, 5.0),
    ):
        module = holder(torch.rand(3, 2), parametrization)
        moved = copy.deepcopy(module).double()
        assert moved.weight.dtype == torch.float64
        assert {x.dtype for x in moved.state_dict().values()} == {torch.float64}
        (map_,) = chain_of(module)
        bounds = dict(map_.named_buffers())
        next(iter(bounds.values())).add_(2)
        assert (module.weight > low + 2).all()


def test_own_constraints_are_known_through_the_registry() -> None:
    class Even(typed_constraints.Constraint):
        pass

    with pytest.raises(NotImplementedError, match="has no transform to"):
        FromDistributions(Even())
    registry: Any = transform_to
    registry.register(Even, lambda constraint: transform_to(constraints.positive))
    assert (FromDistributions(Even())(torch.randn(3)) > 0).all()


@pytest.mark.parametrize("constraint", [constraints.corr_cholesky, constraints.positive_definite])
def test_value_without_a_rule_and_an_inverse_is_refused(constraint: Any) -> None:
    layer = nn.Linear(3, 3)
    weight = layer.weight
    nn.init.constant_(weight, 2.0)
    with pytest.raises(ValueError, match="before registering too"):
        register_parametrization(layer, "weight", FromDistributions(constraint))
    assert layer.weight is weight


# wrong arguments


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (0.0, 0.0), (0.0, float("inf"))])
def test_bounds_out_of_order_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="the bounds must be finite, with low < high"):
        Interval(*bounds)
    with pytest.raises(ValueError, match="the bounds must be finite, with low < high"):
        Interval(torch.tensor(bounds[0]), torch.tensor(bounds[1]))


@pytest.mark.parametrize("lower", [-1.0, float("inf"), float("nan")])
def test_lower_bound_out_of_range_is_refused(lower: float) -> None:
    with pytest.raises(ValueError, match="lower must be finite and not negative"):
        Positive(lower)


def test_other_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="'softplus' or 'exp'"):
        Positive(function="square")  # type: ignore[arg-type]
    for make in (Positive, Interval, UnitInterval, Simplex):
        with pytest.raises(ValueError, match="margin must be"):
            make(margin=0.5)
    with pytest.raises(ValueError, match="without dimensions"):
        Ordered()(torch.tensor(1.0))


def test_repr_shows_the_arguments() -> None:
    assert repr(Positive()) == "Positive()"
    assert repr(Positive(1.0, function="exp")) == "Positive(lower=1.0, function='exp')"
    assert repr(Interval(0, 2, strict=True)) == "Interval(low=0.0, high=2.0, strict=True)"
    assert repr(UnitInterval()) == "UnitInterval()"
    assert repr(Simplex(0)) == "Simplex(dim=0)"
    assert repr(Ordered()) == "Ordered()"
    assert repr(Ordered(sort=False, strict=True)) == "Ordered(sort=False, strict=True)"
    expected = "FromDistributions(Interval(lower_bound=0.0, upper_bound=2.0))"
    assert repr(FromDistributions(constraints.interval(0.0, 2.0))) == expected
