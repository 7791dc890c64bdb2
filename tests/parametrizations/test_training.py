"""Every map of the library can be trained from the weight that a layer starts with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paramdesc import parametrizations as maps
from paramdesc import register_parametrization
from paramdesc.testing.subject import Holder
from paramdesc.testing.training import gradient_ratio
from tests.parametrizations.test_conformance import CASES

LEAST = 0.01
"""How small the gradient may be, beside that of a plain weight."""

LEFT_OUT = {
    "orthogonal, a number": "the value is constant",
    "special linear, 1 x 1": "the value is constant",
    "cayley without base": "not every weight can be assigned",
    "exponential without base": "not every weight can be assigned",
}


def default_weight(like: Tensor) -> Tensor:
    """What `nn.Linear` and the convolutions start with, in the shape and dtype of a tensor."""
    bound = 1 / math.sqrt(max(like[0].numel(), 1))
    real = torch.view_as_real(like) if like.is_complex() else like
    weight = torch.empty_like(real).uniform_(-bound, bound)
    return torch.view_as_complex(weight) if like.is_complex() else weight


@pytest.mark.parametrize("name", [name for name in CASES if name not in LEFT_OUT])
def test_the_gradient_does_not_vanish_at_a_default_weight(name: str) -> None:
    torch.manual_seed(0)
    case = CASES[name]
    unsafe = case.declared.get("unsafe", False)
    module: Any = Holder(default_weight(case.weight()))
    register_parametrization(module, "weight", case.make(), unsafe=unsafe)
    assert gradient_ratio(module) >= LEAST


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "square": lambda: nn.Linear(64, 64),
    "tall": lambda: nn.Linear(32, 64),
    "wide": lambda: nn.Linear(64, 32),
}

ANY_SHAPE: list[Callable[[], nn.Module]] = [
    lambda: maps.AlmostOrthogonal(0.5),
    lambda: maps.Centered(),
    lambda: maps.FixedRank(4),
    lambda: maps.FrobeniusNorm(),
    lambda: maps.Interval(-1.0, 1.0),
    lambda: maps.LoRA(4),
    lambda: maps.LowRank(4),
    lambda: maps.MaxNorm(),
    lambda: maps.Oblique(),
    lambda: maps.Ordered(),
    lambda: maps.Ordered(sort=False),
    lambda: maps.Orthogonal(),
    lambda: maps.Orthogonal("householder"),
    lambda: maps.Orthogonal("matrix_exp"),
    lambda: maps.Orthogonal("polar"),
    lambda: maps.Positive(),
    lambda: maps.Positive(function="exp"),
    lambda: maps.RankOne(),
    lambda: maps.ReZero(),
    lambda: maps.Simplex(),
    lambda: maps.SpectralNorm(),
    lambda: maps.Sphere(),
    lambda: maps.Toeplitz(),
    lambda: maps.UnitInterval(),
    lambda: maps.WeightNorm(),
    lambda: maps.WeightStandardization(),
]

SQUARE: list[Callable[[], nn.Module]] = [
    lambda: maps.Circulant(),
    lambda: maps.Correlation(),
    lambda: maps.Gram(),
    lambda: maps.Hamiltonian(),
    lambda: maps.HurwitzStable(),
    lambda: maps.Normal(),
    lambda: maps.PermutationEquivariant(),
    lambda: maps.PositiveDefinite(),
    lambda: maps.PositiveDeterminant(),
    lambda: maps.PositiveSemidefinite(),
    lambda: maps.PositiveSemidefinite(4, fixed=True),
    lambda: maps.SchurStable(),
    lambda: maps.Skew(),
    lambda: maps.SpecialLinear(),
    lambda: maps.SpecialOrthogonal(),
    lambda: maps.Symmetric(),
    lambda: maps.Symplectic(),
]


@pytest.mark.parametrize(
    ("layer", "make"),
    [(layer, make) for layer in LAYERS for make in ANY_SHAPE]
    + [("square", make) for make in SQUARE],
    ids=lambda x: x if isinstance(x, str) else repr(x()),
)
def test_the_gradient_does_not_vanish_in_a_layer(layer: str, make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    linear = register_parametrization(LAYERS[layer](), "weight", make())
    assert gradient_ratio(linear) >= LEAST


@pytest.mark.parametrize(
    "name", ["Positive", "Simplex", "MaxNorm", "FrobeniusNorm", "SpectralNorm"]
)
def test_the_gradient_does_not_vanish_in_a_convolution(name: str) -> None:
    torch.manual_seed(0)
    convolution: Any = nn.Conv2d(16, 32, 3)
    register_parametrization(convolution, "weight", getattr(maps, name)())
    assert gradient_ratio(convolution) >= LEAST
