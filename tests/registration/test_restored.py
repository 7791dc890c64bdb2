"""What is refused leaves every tensor as it was, also what a `right_inverse` wrote in place."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.parametrizations import SpectralNorm, Symmetric, assign_jointly, joint
from tests.helpers import Double, Sum, chain_of, linear


class Picky(nn.Module):
    """The identity, until it refuses."""

    refuse = False

    def forward(self, X: Tensor) -> Tensor:
        return X

    def right_inverse(self, Y: Tensor) -> Tensor:
        if self.refuse:
            raise ValueError("refused")
        return Y


class Base(nn.Module):
    """Writes its base point in place, as `write` does."""

    base: Tensor

    def __init__(self, write: Callable[[Tensor, Tensor], object] = Tensor.copy_) -> None:
        super().__init__()
        self.write = write
        self.register_buffer("base", torch.zeros(3, 3))

    def forward(self, X: Tensor) -> Tensor:
        return X + self.base

    def right_inverse(self, Y: Tensor) -> Tensor:
        self.write(self.base, Y)
        return torch.zeros_like(Y)


def facts(module: nn.Module) -> dict[str, list[Any]]:
    return copy.deepcopy({name: x.tolist() for name, x in module.state_dict().items()})


WRITES: dict[str, Callable[[Tensor, Tensor], object]] = {
    "copy_": Tensor.copy_,
    "through data": lambda base, Y: base.data.copy_(Y),
    "set_": lambda base, Y: base.set_(Y.clone()),  # type: ignore[call-overload]
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_refused_assignment_restores_base_points(write: Callable[..., object]) -> None:
    picky = Picky()
    layer = P.register_parametrization(linear(picky), "weight", Base(write))
    layer.weight = torch.ones(3, 3)
    before, base = facts(layer), chain_of(layer)[1].base
    picky.refuse = True
    with pytest.raises(ValueError, match="refused"):
        layer.weight = torch.full((3, 3), 9.0)
    assert facts(layer) == before
    assert chain_of(layer)[1].base is base


@pytest.mark.parametrize("depth", [1, 2])
def test_a_refused_assignment_restores_originals_that_are_parametrized(depth: int) -> None:
    layer, picky = linear(Sum()), Picky()
    chain = chain_of(layer)
    P.register_parametrization(chain, "original0", Base())
    P.register_parametrization(chain, "original1", picky)
    if depth == 2:
        P.register_parametrization(chain_of(chain, "original0"), "original", Double())
    before = facts(layer)
    originals = [*layer.parameters(), *layer.buffers()]
    picky.refuse = True
    with pytest.raises(ValueError, match="refused"):
        layer.weight = torch.full((3, 3), 8.0)
    assert facts(layer) == before
    assert all(
        x is y for x, y in zip(originals, [*layer.parameters(), *layer.buffers()], strict=True)
    )


def test_a_refused_registration_restores_the_map() -> None:
    class Refusing(Base):
        def forward(self, X: Tensor) -> Tensor:
            raise ValueError("refused")

    refusing, layer = Refusing(), nn.Linear(3, 3)
    with pytest.raises(ValueError, match="refused"):
        P.register_parametrization(layer, "weight", refusing)
    assert not refusing.base.any()
    with pytest.raises(ValueError, match="refused"):
        P.register_parametrization(linear(), "weight", refusing)
    assert not refusing.base.any()


def test_a_refused_removal_restores_the_state_of_maps() -> None:
    class Failing(Picky):
        def forward(self, X: Tensor) -> Tensor:
            if self.refuse:
                raise ValueError("refused")
            return X

    failing = Failing()
    layer = P.register_parametrization(linear(SpectralNorm()), "weight", failing)
    with torch.no_grad():
        chain_of(layer).original.add_(torch.randn(3, 3))
    failing.refuse, before = True, facts(layer)
    with pytest.raises(ValueError, match="refused"):
        P.remove_parametrizations(layer, "weight")
    assert facts(layer) == before
    assert P.is_parametrized(layer)


@pytest.mark.parametrize("initialize", ["ones_", "normal_"])
def test_a_refused_initialisation_restores_the_originals(initialize: str) -> None:
    picky = Picky()
    layer = P.register_parametrization(linear(picky), "weight", Base())
    layer.weight = torch.full((3, 3), 2.0)
    before = facts(layer)
    picky.refuse = True
    with pytest.raises(ValueError, match="refused"):
        getattr(nn.init, initialize)(layer.weight)
    assert facts(layer) == before


def test_a_strict_refusal_restores_numbers_that_are_nan() -> None:
    layer = P.register_parametrization(linear(Symmetric(strict=False)), "weight", Base())
    with torch.no_grad():
        chain_of(layer)[1].base.fill_(torch.nan)
    version = chain_of(layer)[1].base._version
    with pytest.raises(TypeError):
        layer.weight = "no tensor"  # type: ignore[assignment]
    assert chain_of(layer)[1].base._version == version, "it was not written"


def test_a_refused_joint_assignment_restores_what_came_first() -> None:
    first, second, picky = nn.Linear(3, 3), nn.Linear(3, 3), Picky()
    places = [(first, "weight"), (second, "weight")]
    joint(Double(), places)
    P.register_parametrization(first, "weight", Base())
    P.register_parametrization(second, "weight", picky)
    assign_jointly(places, [torch.ones(3, 3), torch.ones(3, 3)])
    before = facts(nn.ModuleList([first, second]))
    picky.refuse = True
    with pytest.raises(ValueError, match="refused"):
        assign_jointly(places, [torch.zeros(3, 3), torch.zeros(3, 3)])
    assert facts(nn.ModuleList([first, second])) == before
