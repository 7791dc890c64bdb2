"""What fails in the middle of a model leaves it as it was, and nothing is done twice."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import paramdesc as P
from paramdesc.errors import CheckpointError, OptimizerError
from paramdesc.parametrizations import (
    SpectralNorm,
    Symmetric,
    WeightNorm,
    adapter_state_dict,
    lora,
    merge_lora,
    orthogonal,
    unmerge_lora,
    weight_norm,
)


def test_a_failure_beside_a_lazy_tensor_arrives_and_is_undone() -> None:
    model = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 4), nn.Linear(4, 4))

    def fail() -> nn.Module:
        raise ZeroDivisionError

    maps = {"0.weight": Symmetric, "1.weight": partial(lora, rank=2), "2.weight": fail}
    with pytest.raises(ZeroDivisionError):
        P.parametrize(model, maps)  # type: ignore[arg-type]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not P.get_parametrizations(model)


def test_a_lazy_tensor_cannot_be_handed_to_an_optimizer() -> None:
    model = nn.Sequential(nn.LazyLinear(4))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(OptimizerError, match="Call the module once"):
        P.parametrize(model, {"0.weight": WeightNorm}, optimizer=optimizer)


def test_a_pending_tensor_is_left_by_a_second_call() -> None:
    model = nn.Sequential(nn.LazyLinear(4))
    P.parametrize(model, {nn.Linear: SpectralNorm})
    done = P.parametrize(model, {nn.Linear: SpectralNorm, "0.bias": lambda: torch.exp})
    assert "is already parametrized" in done.left["0.weight"]


@pytest.mark.parametrize("first", [weight_norm, orthogonal])
def test_a_weight_norm_comes_first(first: Any) -> None:
    layer = first(nn.Linear(4, 4))
    before = layer.weight
    with pytest.raises(ValueError, match="so it must come first"):
        weight_norm(layer)
    assert torch.equal(layer.weight, before)


def test_merging_leaves_a_tied_tensor_as_it_is() -> None:
    model: Any = nn.ModuleDict({"embed": nn.Embedding(10, 4), "head": nn.Linear(4, 10, bias=False)})
    model.head.weight = model.embed.weight
    lora(model.head, rank=2)
    nn.init.normal_(model.head.parametrizations.weight[0].lora_B)
    embedding, head = model.embed.weight.detach().clone(), model.head.weight.detach()
    merge_lora(model)
    assert torch.equal(model.embed.weight, embedding)
    assert torch.equal(model.head.weight, head)


def test_adapters_are_taken_out_all_or_none_and_once() -> None:
    model = nn.Sequential(lora(nn.Linear(4, 4), rank=2), lora(nn.Linear(4, 4), rank=2))
    adapters = adapter_state_dict(model)
    merge_lora(model)
    name = next(name for name in adapters if name.startswith("1.") and name.endswith("lora_A"))
    with pytest.raises(CheckpointError):
        unmerge_lora(model, {**adapters, name: adapters[name][:1]})
    assert not P.get_parametrizations(model)
    with pytest.raises(CheckpointError, match="has no adapters"):
        unmerge_lora(model, {})
    unmerge_lora(model, adapters)
    with pytest.raises(CheckpointError, match="already has an adapter"):
        unmerge_lora(model, adapters)
    assert list(adapter_state_dict(model)) == list(adapters)


def test_functions_are_appended_to_a_chain() -> None:
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", Symmetric())
    chain = P.chain_of(layer, "weight")
    chain.append(torch.tanh)  # type: ignore[arg-type]
    chain.extend([torch.exp])  # type: ignore[list-item]
    assert torch.equal(layer.weight, chain[0](chain.original).tanh().exp())
    with pytest.raises(TypeError, match="pass an instance"):
        chain.append(Symmetric)  # type: ignore[arg-type]
