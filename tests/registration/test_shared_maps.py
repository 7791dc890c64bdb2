"""One map object on several tensors: what it keeps for one of them is not written for another."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.errors import SharedMapError
from paramdesc.parametrizations import (
    Compose,
    Normal,
    Orthogonal,
    Scaled,
    SpecialLinear,
    SpectralNorm,
    Symmetric,
    Symplectic,
)
from tests.helpers import Double, Shift, chain_of, linear


class Written(nn.Module):
    """Its `right_inverse` writes a base point, in a way of your choice."""

    base: Tensor

    def __init__(self, write: Callable[[Any, Tensor], object]) -> None:
        super().__init__()
        self.write = write
        self.register_buffer("base", torch.zeros(6, 6))
        self.moved = nn.Parameter(torch.zeros(6, 6))
        self.norm = 0.0

    def forward(self, X: Tensor) -> Tensor:
        return X + self.base + self.moved + self.norm

    def right_inverse(self, Y: Tensor) -> Tensor:
        self.write(self, Y)
        return Y - self.base - self.moved.detach() - self.norm


WRITES: dict[str, tuple[Callable[[Any, Tensor], object], str]] = {
    "a new buffer": (lambda m, Y: setattr(m, "base", Y.clone()), "base"),
    "a buffer in place": (lambda m, Y: m.base.copy_(Y), "base"),
    "a buffer through data": (lambda m, Y: m.base.data.copy_(Y), "base"),
    "a Parameter in place": (lambda m, Y: m.moved.copy_(Y), "moved"),
    "a number": (lambda m, Y: setattr(m, "norm", Y.norm().item()), "norm"),
}

STATEFUL: dict[str, Callable[[], nn.Module]] = {
    **{cls.__name__: cls for cls in (Normal, Orthogonal, SpecialLinear, SpectralNorm, Symplectic)},
    "one inside of another": lambda: Compose(Orthogonal(), Double()),
    **{name: lambda write=write: Written(write) for name, (write, _) in WRITES.items()},  # type: ignore[misc]
}


@pytest.mark.parametrize("make", STATEFUL.values(), ids=STATEFUL)
def test_a_map_with_a_state_is_refused_on_a_second_tensor(make: Callable[[], nn.Module]) -> None:
    shared = make()
    first, second = linear(shared, 6), nn.Linear(6, 6)
    before, state = first.weight.detach().clone(), copy.deepcopy(first.state_dict())
    weight, numbers = second.weight, second.weight.detach().clone()
    with pytest.raises(SharedMapError, match=r"copy\.deepcopy\(parametrization\)"):
        P.register_parametrization(second, "weight", shared)
    assert first.weight.equal(before)
    torch.testing.assert_close(first.state_dict(), state, rtol=0, atol=0)
    assert second.weight is weight
    assert weight.equal(numbers)
    P.register_parametrization(second, "weight", copy.deepcopy(shared))
    assert first.weight.equal(before)


@pytest.mark.parametrize("name", WRITES)
def test_the_refusal_names_what_is_written(name: str) -> None:
    write, written = WRITES[name]
    layer = linear(Written(write), 6)
    with pytest.raises(
        SharedMapError, match=f"already parametrizes 'weight' of Linear.*'{written}'"
    ):
        P.register_parametrization(nn.Linear(6, 6), "weight", chain_of(layer)[0])


@pytest.mark.parametrize("make", [Symmetric, Double, Shift, Scaled])
def test_a_map_without_a_state_may_be_shared(make: Callable[[], nn.Module]) -> None:
    shared = make()
    first = linear(shared)
    before = first.weight.detach().clone()
    second = linear(shared)
    assert chain_of(first)[0] is chain_of(second)[0] is shared
    assert first.weight.equal(before)


def test_a_map_that_makes_weights_by_a_network_may_be_shared() -> None:
    class Generated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))

        def forward(self, X: Tensor) -> Tensor:
            generated: Tensor = self.network(X)
            return generated

    shared = Generated()
    first, second = linear(shared), linear(shared)
    torch.autograd.backward(first.weight.sum() + second.weight.square().sum())
    assert all(x.grad is not None for x in shared.parameters())


def test_the_mode_of_a_shared_map_stays() -> None:
    shared = Double()
    first = linear(shared)
    P.register_parametrization(nn.Linear(3, 3).eval(), "weight", shared)
    assert shared.training
    assert chain_of(first).training


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"]
)
def test_copies_know_their_maps(copied: Callable[[Any], Any]) -> None:
    first = copied(linear(Orthogonal(), 6))
    with pytest.raises(SharedMapError):
        P.register_parametrization(nn.Linear(6, 6), "weight", chain_of(first)[0])


def test_a_map_is_free_when_its_tensor_is_no_longer_parametrized() -> None:
    layer = linear(Orthogonal(), 6)
    chain = chain_of(layer)
    P.remove_parametrizations(layer, "weight")
    P.register_parametrization(nn.Linear(6, 6), "weight", chain[0])
    gone = Orthogonal()
    linear(gone, 6)
    linear(gone, 6)


def test_the_same_map_twice_on_one_tensor() -> None:
    layer = linear(SpectralNorm())
    with pytest.raises(SharedMapError):
        P.register_parametrization(layer, "weight", chain_of(layer)[0])
    doubled = linear(Double())
    before = doubled.weight.detach().clone()
    P.register_parametrization(doubled, "weight", chain_of(doubled)[0])
    torch.testing.assert_close(doubled.weight, 2 * before)


# transferred


@pytest.mark.parametrize("make", STATEFUL.values(), ids=STATEFUL)
def test_a_transfer_writes_nothing_to_its_source(make: Callable[[], nn.Module]) -> None:
    source: Any = linear(make(), 6)
    before, state = source.weight.detach().clone(), copy.deepcopy(source.state_dict())
    target = P.transfer_parametrizations_and_params(source, nn.Linear(6, 6).eval())
    assert source.weight.equal(before)
    torch.testing.assert_close(source.state_dict(), state, rtol=0, atol=0)
    assert all(module.training for module in source.modules())
    torch.testing.assert_close(target.weight, before)
    assert chain_of(target)[0] is chain_of(source)[0]


@pytest.mark.parametrize("leave_parametrized", [True, False])
@pytest.mark.parametrize("removed", ["source", "target"])
def test_removal_after_a_transfer_leaves_the_other_alone(
    removed: str, leave_parametrized: bool
) -> None:
    source = linear(SpectralNorm())
    modules = {"source": source}
    modules["target"] = P.transfer_parametrizations_and_params(source, nn.Linear(3, 3))
    one = modules.pop(removed)
    other = modules.popitem()[1]
    before, original = other.weight.detach().clone(), chain_of(other).original
    P.remove_parametrizations(one, "weight", leave_parametrized)
    assert other.weight.equal(before)
    assert chain_of(other).original is original
    assert one.weight is not original
    assert one.weight.equal(before if leave_parametrized else original)
    assert chain_of(other)[0].is_led
    P.remove_parametrizations(other, "weight")
    assert other.weight is original, "nobody shares it any more"


def test_removal_of_copies_that_share_leaves_the_other_alone() -> None:
    source = linear(Double())
    pair = nn.ModuleList([source, P.transfer_parametrizations_and_params(source, nn.Linear(3, 3))])
    copies: Any = copy.deepcopy(pair)
    first, second = copies
    before = first.weight.detach().clone()
    P.remove_parametrizations(second, "weight")
    assert first.weight.equal(before)


def test_a_transfer_replaces_tensors_only() -> None:
    target: Any = nn.Module()
    target.weight = "not a tensor"
    with pytest.raises(ValueError, match="'weight'"):
        P.transfer_parametrizations_and_params(linear(), target)
    assert target.weight == "not a tensor"
