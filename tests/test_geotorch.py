"""The constraints of geotorch, registered through paramdesc, are what they are through torch."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import paramdesc

geotorch: Any = pytest.importorskip("geotorch", reason="what is tested is to work with it")

Make = Callable[[torch.Size], Any]

TALL, SQUARE, VECTORS = (6, 4), (4, 4), (3, 5)

CONSTRAINTS: dict[str, tuple[Make, tuple[int, ...]]] = {
    "Symmetric": (lambda size: geotorch.Symmetric(), SQUARE),
    "Symmetric, upper": (lambda size: geotorch.Symmetric(lower=False), SQUARE),
    "Skew": (geotorch.Skew, SQUARE),
    "Sphere": (lambda size: geotorch.Sphere(size, radius=2.0), VECTORS),
    "SphereEmbedded": (geotorch.SphereEmbedded, VECTORS),
    "SO": (geotorch.SO, SQUARE),
    "SO, Cayley": (lambda size: geotorch.SO(size, triv="cayley"), SQUARE),
    "SO, batch": (geotorch.SO, (2, *SQUARE)),
    "Stiefel": (geotorch.Stiefel, TALL),
    "Stiefel, wide": (geotorch.Stiefel, TALL[::-1]),
    "Grassmannian": (geotorch.Grassmannian, TALL),
    "AlmostOrthogonal": (lambda size: geotorch.AlmostOrthogonal(size, lam=0.3), TALL),
    "LowRank": (lambda size: geotorch.LowRank(size, rank=2), TALL),
    "FixedRank": (lambda size: geotorch.FixedRank(size, rank=2), TALL),
    "GLp": (geotorch.GLp, SQUARE),
    "SL": (geotorch.SL, SQUARE),
    "PSD": (geotorch.PSD, SQUARE),
    "PSSD": (geotorch.PSSD, SQUARE),
    "PSSDLowRank": (lambda size: geotorch.PSSDLowRank(size, rank=2), SQUARE),
    "PSSDFixedRank": (lambda size: geotorch.PSSDFixedRank(size, rank=2), SQUARE),
    "Hurwitz": (lambda size: geotorch.Hurwitz(size, alpha=0.5), SQUARE),
    "Rn": (geotorch.Rn, TALL),
}


class Holder(nn.Module):
    weight: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape, dtype=torch.float64))


def sample(constraint: Any, like: Tensor) -> Tensor:
    """A tensor that satisfies it, as geotorch's own functions begin."""
    if isinstance(constraint, (geotorch.Symmetric, geotorch.Rn)):
        X = torch.randn_like(like)
        return X + X.mT if isinstance(constraint, geotorch.Symmetric) else X
    value: Tensor = constraint.sample()
    return value.detach()


def registered(name: str, engine: Any) -> tuple[Any, Any]:
    """A module with the constraint, as geotorch's own functions register it, and the constraint."""
    make, shape = CONSTRAINTS[name]
    torch.manual_seed(0)
    module = Holder(shape)
    constraint = make(module.weight.shape).to(torch.float64)
    with torch.no_grad():
        module.weight.copy_(sample(constraint, module.weight))
    engine.register_parametrization(module, "weight", constraint, unsafe=True)
    return module, constraint


def train(module: Any) -> None:
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        (
            module.weight * torch.arange(module.weight.numel()).view_as(module.weight)
        ).sum().backward()
        optimizer.step()


def satisfies(constraint: Any, value: Tensor) -> bool:
    if isinstance(constraint, geotorch.Hurwitz):  # it has no question of its own
        return bool((torch.linalg.eigvals(value).real < -0.5).all())
    return bool(constraint.in_manifold(value))


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_a_constraint_has_the_values_that_it_has_in_torch(name: str) -> None:
    (ours, constraint), (other, _) = (registered(name, e) for e in (paramdesc, parametrize))
    assert type(ours) is Holder
    assert list(ours.state_dict()) == list(other.state_dict())
    for _ in range(2):
        assert torch.allclose(ours.weight, other.weight, rtol=1e-12, atol=1e-12)
        assert satisfies(constraint, ours.weight)
        before = ours.weight.detach().clone()
        train(ours)
        train(other)
        assert not ours.weight.equal(before)


@pytest.mark.parametrize("name", [name for name in CONSTRAINTS if "Symmetric" not in name])
def test_a_sample_can_be_assigned_and_trained_from(name: str) -> None:
    module, constraint = registered(name, paramdesc)
    train(module)
    value = sample(constraint, module.weight)
    module.weight = value
    assert torch.allclose(module.weight, value, rtol=1e-8, atol=1e-8)
    train(module)
    assert satisfies(constraint, module.weight)


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_copies_and_files_keep_the_value(name: str) -> None:
    module, _ = registered(name, paramdesc)
    train(module)
    other, _ = registered(name, paramdesc)
    other.load_state_dict(module.state_dict())
    assert other.weight.equal(module.weight)
    assert copy.deepcopy(module).weight.equal(module.weight)
    if name != "SL":  # it holds a local function, which no module that has it can be pickled with
        assert pickle.loads(pickle.dumps(module)).weight.equal(module.weight)


def test_all_constraints_of_geotorch_are_here() -> None:
    classes = {name for name in geotorch.__all__ if name[0].isupper()}
    assert classes - {name.partition(",")[0] for name in CONSTRAINTS} == {"ProductManifold"}


def test_a_value_outside_is_refused_by_geotorch_and_changes_nothing() -> None:
    module, _ = registered("SO", paramdesc)
    before = module.weight.detach().clone()
    with pytest.raises(ValueError, match="Tensor not contained in SO"):
        module.weight = torch.zeros(4, 4, dtype=torch.float64)
    assert module.weight.equal(before)


def test_the_one_without_a_right_inverse_is_not_assigned_to() -> None:
    module, _ = registered("Symmetric", paramdesc)
    with pytest.raises(RuntimeError, match="Symmetric does not implement right_inverse"):
        module.weight = torch.eye(4, dtype=torch.float64)
