"""The maps of a chain changed by hand: it can be evaluated afterwards, or nothing has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.errors import ArgumentError, ChainError, SharedMapError
from paramdesc.parametrizations import Orthogonal, SpectralNorm
from tests.helpers import Double, Shift, Sum, chain_of, linear


def chained() -> Any:
    return P.register_parametrization(linear(Double()), "weight", torch.exp)


def clear(chain: Any) -> None:
    del chain[:]


EMPTYING: dict[str, Callable[[Any], object]] = {
    "del": lambda chain: chain.__delitem__(0),
    "del slice": clear,
    "pop": lambda chain: chain.pop(0),
    "empty slice": lambda chain: chain.__setitem__(slice(None), []),
}


@pytest.mark.parametrize("empty", EMPTYING.values(), ids=EMPTYING)
def test_the_last_map_is_not_taken_away_by_hand(empty: Callable[[Any], object]) -> None:
    layer = linear()
    before = layer.weight.detach().clone()
    with pytest.raises(ChainError, match=r"remove_parametrizations\(module, \"weight\"\)"):
        empty(chain_of(layer))
    assert layer.weight.equal(before)


EDITS: dict[str, tuple[Callable[[Any], object], Callable[[Tensor], Tensor]]] = {
    "delete the first": (lambda chain: chain.__delitem__(0), torch.exp),
    "delete the last": (lambda chain: chain.__delitem__(-1), lambda X: 2 * X),
    "delete a slice": (lambda chain: chain.__delitem__(slice(1, None)), lambda X: 2 * X),
    "pop": (lambda chain: chain.pop(0), torch.exp),
    "insert": (lambda chain: chain.insert(1, Double(), keep_value=False), lambda X: (4 * X).exp()),
    "insert before": (
        lambda chain: chain.insert(0, Double(), keep_value=False),
        lambda X: (4 * X).exp(),
    ),
    "replace": (lambda chain: chain.__setitem__(1, Double()), lambda X: 4 * X),
    "replace a slice": (lambda chain: chain.__setitem__(slice(0, 2), [Double()]), lambda X: 2 * X),
    "extend": (lambda chain: chain.extend([Double(), Double()]), lambda X: 4 * (2 * X).exp()),
    "add": (lambda chain: chain.__iadd__([Double()]), lambda X: 2 * (2 * X).exp()),
}


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("in_scope", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_an_edit_by_hand_shows_in_the_value(name: str, in_scope: bool, nested: bool) -> None:
    edit, expected = EDITS[name]
    layer = chained()
    chain = chain_of(layer)
    if nested:
        P.register_parametrization(chain, "original", torch.sinh)
    with P.cached(layer) if in_scope else torch.enable_grad():
        assert layer.weight.shape == (3, 3)
        edit(chain)
        torch.testing.assert_close(layer.weight, expected(chain.original))
    assert [name for name, _ in chain.named_children() if name.isdigit()] == [
        str(i) for i in range(len(list(chain.maps())))
    ]


def test_a_slice_is_a_plain_list_of_the_maps() -> None:
    chain = chain_of(chained())
    assert type(chain[:1]) is nn.ModuleList
    assert chain[:1][0] is chain[0]


def test_an_edit_that_does_not_fit_changes_nothing() -> None:
    layer = chained()
    before, maps = layer.weight.detach().clone(), list(chain_of(layer).maps())
    with pytest.raises(ChainError, match="shape of 'weight'"):
        chain_of(layer)[0] = nn.Flatten(0)
    summed = P.register_parametrization(linear(Sum()), "weight", Double())
    with pytest.raises(TypeError):  # two originals, of which Double takes one
        del chain_of(summed)[0]
    assert list(chain_of(layer).maps()) == maps
    assert layer.weight.equal(before)
    assert summed.weight.shape == (3, 3)


def test_a_map_with_a_state_belongs_to_its_tensor_here_too() -> None:
    shared, layer = Orthogonal(), linear()
    first = linear(shared)
    edits: list[Callable[[Any], object]] = [
        lambda chain: chain.append(shared),
        lambda chain: chain.insert(0, shared),
        lambda chain: chain.__setitem__(0, shared),
    ]
    for edit in edits:
        with pytest.raises(SharedMapError):
            edit(chain_of(layer))
    assert len(chain_of(layer)) == 1
    assert chain_of(first)[0] is shared


def test_a_state_starts_anew_for_what_it_is_applied_to_now() -> None:
    layer = linear(SpectralNorm(), 6)
    chain_of(layer).insert(0, Shift())
    fresh = SpectralNorm()
    fresh(chain_of(layer)[0](chain_of(layer).original))
    torch.testing.assert_close(chain_of(layer)[1]._u.abs(), fresh._u.abs(), rtol=0.1, atol=0.1)
    gone = chain_of(layer)[1]
    del chain_of(layer)[1]
    assert not gone.is_led


@pytest.mark.parametrize("index", ["Shift", Shift, 1.0, None])
def test_maps_are_indexed_by_integers(index: Any) -> None:
    chain = chain_of(P.register_parametrization(linear(Double()), "weight", Shift()))
    place = 0 if index in (1.0, None) else 1
    uses: list[Callable[[Any], object]] = [
        lambda chain: chain[index],
        lambda chain: chain.__setitem__(index, Double()),
        lambda chain: chain.__delitem__(index),
    ]
    for use in uses:
        with pytest.raises(ArgumentError) as caught:
            use(chain)
        for part in ("'0: Double()', '1: Shift()'", f"module.parametrizations.weight[{place}]"):
            assert part in str(caught.value)
    integer: Any = torch.tensor(1)
    assert chain[integer] is chain[1]
    assert chain.remove("Shift") is not None
