"""Tensors that several modules hold: registering on one never overwrites them for the others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import paramdesc as P
from paramdesc.errors import TiedParameterError
from paramdesc.parametrizations import Orthogonal, WeightNorm, orthogonal, tie
from tests.helpers import Double, chain_of


def tied() -> tuple[nn.Embedding, nn.Linear]:
    embedding, head = nn.Embedding(4, 4), nn.Linear(4, 4, bias=False)
    head.weight = embedding.weight
    return embedding, head


@pytest.mark.parametrize("make", [Orthogonal, Double])
def test_a_tied_parameter_is_not_overwritten(make: type[nn.Module]) -> None:
    embedding, head = tied()
    before = embedding.weight.detach().clone()
    with pytest.raises(TiedParameterError, match="'weight' of Embedding.*detach"):
        P.register_parametrization(head, "weight", make())
    assert embedding.weight.equal(before)
    assert head.weight is embedding.weight
    assert not P.is_parametrized(head)


def test_the_advice_of_the_refusal_works() -> None:
    embedding, module = tied()
    module.weight = torch.nn.Parameter(module.weight.detach().clone())
    P.register_parametrization(module, "weight", Orthogonal())
    P.transfer_parametrizations_and_params(module, embedding)
    assert embedding.weight.equal(module.weight)
    assert chain_of(embedding).original is chain_of(module).original


def test_a_tied_buffer_is_not_overwritten() -> None:
    first, second = nn.Module(), nn.Module()
    first.register_buffer("mask", torch.ones(2))
    second.register_buffer("mask", first.get_buffer("mask"))
    with pytest.raises(TiedParameterError):
        P.register_parametrization(second, "mask", Double())
    assert first.get_buffer("mask").equal(torch.ones(2))


def test_a_tensor_under_two_names_of_one_module_is_not_overwritten() -> None:
    layer: Any = nn.Linear(2, 2)
    layer.twin = layer.weight
    with pytest.raises(TiedParameterError, match="'twin' of the same module"):
        P.register_parametrization(layer, "weight", Double())


def test_the_original_of_another_chain_is_not_overwritten() -> None:
    encoder, decoder = nn.Linear(4, 2), nn.Linear(2, 4)
    tie((decoder, "weight"), to=(encoder, "weight"))
    before = decoder.weight.detach().clone()
    with pytest.raises(TiedParameterError, match="'original' of ParametrizationList"):
        P.register_parametrization(encoder, "weight", Double())
    assert decoder.weight.equal(before)


def test_a_map_that_keeps_the_numbers_ties_the_value() -> None:
    embedding, head = tied()
    before = embedding.weight.detach().clone()
    P.register_parametrization(head, "weight", torch.exp)
    assert chain_of(head).original is embedding.weight
    assert embedding.weight.equal(before)


def test_several_originals_untie_with_a_warning() -> None:
    embedding, head = tied()
    before = embedding.weight.detach().clone()
    with pytest.warns(UserWarning, match="'weight' of Embedding.*trained separately"):
        P.register_parametrization(head, "weight", WeightNorm())
    assert embedding.weight.equal(before)


def test_an_optimizer_a_list_and_a_variable_are_no_ties() -> None:
    layer = nn.Linear(3, 3)
    weight = layer.weight
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    kept = [dict(layer.named_parameters()), list(layer.parameters()), vars(layer).copy()]
    P.register_parametrization(layer, "weight", Double())
    assert chain_of(layer).original is weight
    assert kept


def test_a_module_that_is_garbage_is_no_tie() -> None:
    embedding, head = tied()
    embedding.itself = [embedding]  # type: ignore[assignment]  # only the collector frees it
    del embedding
    P.register_parametrization(head, "weight", Double())
    assert P.is_parametrized(head)


def test_nothing_is_looked_up_for_a_tensor_that_nobody_else_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[Any] = []
    monkeypatch.setattr("gc.get_referrers", looked.extend)
    P.register_parametrization(nn.Linear(3, 3), "weight", Orthogonal())
    orthogonal(nn.Linear(3, 3))
    assert not looked


def test_a_shared_module_is_no_tie() -> None:
    shared = nn.Linear(3, 3)
    model = nn.ModuleDict({"a": shared, "b": shared})
    P.register_parametrization(model["a"], "weight", Double())
    assert P.is_parametrized(model["b"])
