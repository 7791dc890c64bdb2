"""The constraints of geotorch, registered through paramdesc and through torch."""

from __future__ import annotations

import copy
import importlib
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import paramdesc

geotorch: Any = importlib.import_module("geotorch")

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


def has_torchs_values(name: str) -> bool:
    """Whether its value is what it is under torch's engine, also after training."""
    (ours, constraint), (other, _) = (registered(name, e) for e in (paramdesc, parametrize))
    same = type(ours) is Holder and list(ours.state_dict()) == list(other.state_dict())
    for _ in range(2):
        same &= torch.allclose(ours.weight, other.weight, rtol=1e-12, atol=1e-12)
        same &= satisfies(constraint, ours.weight)
        before = ours.weight.detach().clone()
        train(ours)
        train(other)
        same &= not ours.weight.equal(before)
    return same


def takes_a_sample(name: str) -> bool:
    """Whether a value of it can be assigned, and trained from there."""
    module, constraint = registered(name, paramdesc)
    if not hasattr(constraint, "right_inverse"):
        return False
    train(module)
    value = sample(constraint, module.weight)
    module.weight = value
    same = torch.allclose(module.weight, value, rtol=1e-8, atol=1e-8)
    train(module)
    return same and satisfies(constraint, module.weight)


def keeps_its_value_in_copies(name: str) -> bool:
    module, _ = registered(name, paramdesc)
    train(module)
    other, _ = registered(name, paramdesc)
    other.load_state_dict(module.state_dict())
    return bool(
        other.weight.equal(module.weight) and copy.deepcopy(module).weight.equal(module.weight)
    )


def pickles(name: str) -> bool:
    module, _ = registered(name, paramdesc)
    try:
        return bool(pickle.loads(pickle.dumps(module)).weight.equal(module.weight))
    except (AttributeError, pickle.PicklingError):  # it holds a local function
        return False


QUESTIONS = {
    "values and training as in torch": has_torchs_values,
    "assignment": takes_a_sample,
    "deepcopy, state_dict": keeps_its_value_in_copies,
    "pickle": pickles,
}


def answers(name: str) -> list[str]:
    """The line of the table for a constraint."""
    return ["yes" if question(name) else "no" for question in QUESTIONS.values()]
