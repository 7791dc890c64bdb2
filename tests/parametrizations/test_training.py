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
from tests.helpers import chain_of, original_of, train_step
from tests.parametrizations.all_cases import CASES

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


# originals whose length has no effect


SCALE_INVARIANT: list[Callable[[], nn.Module]] = [
    lambda: maps.Sphere(),
    lambda: maps.Sphere(2.0, None),
    lambda: maps.Oblique(),
    lambda: maps.FrobeniusNorm(3.0),
    lambda: maps.Correlation(),
]


@pytest.mark.parametrize("make", SCALE_INVARIANT, ids=lambda make: repr(make()))
def test_moving_the_original_to_the_value_keeps_the_value(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    module: Any = register_parametrization(nn.Linear(5, 5).double(), "weight", make())
    train_step(module, scale=3.0)
    before = module.weight.detach()
    chain_of(module).move_base()
    torch.testing.assert_close(module.weight, before)


@pytest.mark.parametrize("rebase", [None, 50])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_vector_on_the_sphere_becomes_the_leading_eigenvector(
    momentum: float, rebase: int | None
) -> None:
    torch.manual_seed(0)
    A = torch.randn(50, 50, dtype=torch.float64)
    A = A @ A.mT / 50
    leading = torch.linalg.eigvalsh(A)[-1]
    module: Any = nn.Module()
    module.weight = nn.Parameter(torch.randn(50, dtype=torch.float64))
    register_parametrization(module, "weight", maps.Sphere(rebase=rebase))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=momentum)
    for _ in range(400):
        optimizer.zero_grad()
        loss = leading - module.weight @ A @ module.weight
        loss.backward()
        optimizer.step()
    if rebase:
        assert loss.item() < 1e-8
    elif momentum:
        assert original_of(module).norm() > 2
        assert loss.item() > 1e-5
