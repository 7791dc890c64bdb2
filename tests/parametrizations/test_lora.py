"""`LoRA`, `lora` and `merge_lora`."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from paramdesc import is_parametrized, register_parametrization
from paramdesc.parametrizations.functions.adapters import lora, merge_lora
from paramdesc.parametrizations.norms.spectral_norm import SpectralNorm
from paramdesc.parametrizations.spectra.lora import LoRA
from paramdesc.parametrizations.structure.symmetric import Symmetric
from tests.helpers import Double, chain_of, saved_and_loaded, torch_linear


def trained(model: Any, x: torch.Tensor) -> Any:
    """The model after steps with the parameters that require a gradient."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    return model


def test_registering_changes_nothing_and_training_only_the_factors() -> None:
    layer: Any = nn.Linear(5, 4, bias=False)
    before = layer.weight.detach().clone()
    lora(layer, rank=2, alpha=6)
    assert layer.weight.equal(before)
    trained(layer, torch.randn(3, 5))
    chain = chain_of(layer)
    assert chain.original.equal(before)
    assert not chain.original.requires_grad
    added = layer.weight - before
    torch.testing.assert_close(added, 3 * chain[0].lora_B @ chain[0].lora_A)
    assert torch.linalg.matrix_rank(added) == 2


def test_factor_is_initialised_by_the_seed_without_using_it_up() -> None:
    first = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        adapter = LoRA(3)
        register_parametrization(nn.Linear(16, 4), "weight", adapter)
        assert adapter.lora_A is not None
        first.append(adapter.lora_A.detach())
    assert first[0].equal(first[1])
    assert not first[0].equal(first[2])
    assert 0.2 < first[0].abs().max() <= 0.25


def test_assigning_sets_the_value_and_keeps_the_factors() -> None:
    layer = trained(lora(nn.Linear(5, 4, bias=False), rank=2), torch.randn(3, 5))
    before = chain_of(layer)[0].lora_B.clone()
    layer.weight = torch.ones(4, 5)
    torch.testing.assert_close(layer.weight, torch.ones(4, 5))
    assert chain_of(layer)[0].lora_B.equal(before)


def test_each_expert_has_factors_of_its_own() -> None:
    module: Any = nn.Module()
    module.weight = nn.Parameter(torch.randn(3, 4, 5))
    lora(module, rank=2)
    adapter = chain_of(module)[0]
    assert adapter.lora_A.shape == (3, 2, 5)
    assert adapter.lora_B.shape == (3, 4, 2)
    assert not adapter.lora_A[0].equal(adapter.lora_A[1])


@pytest.mark.parametrize("conv", [nn.Conv1d(3, 4, 5), nn.Conv2d(3, 4, 5), nn.Conv3d(3, 4, 2)])
def test_convolutions_are_flattened(conv: Any) -> None:
    before = conv.weight.detach().clone()
    lora(conv, rank=2)
    adapter = chain_of(conv)[0]
    assert adapter.lora_A.shape == (2, before[0].numel())
    with torch.no_grad():
        adapter.lora_B.fill_(1)
    added = (adapter.lora_B @ adapter.lora_A).view_as(before)
    torch.testing.assert_close(conv.weight, before + added)


def test_half_precision_weight_may_have_factors_in_single() -> None:
    layer: Any = lora(nn.Linear(5, 4, dtype=torch.bfloat16), rank=2)
    chain_of(layer)[0].float()
    assert layer.weight.dtype == torch.bfloat16
    layer.weight = torch.ones(4, 5, dtype=torch.bfloat16)
    assert layer.weight.equal(torch.ones(4, 5, dtype=torch.bfloat16))


def test_merged_model_is_plain_and_computes_the_same() -> None:
    x = torch.randn(3, 5)
    model = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5))
    for layer in (model[0], model[2]):
        lora(layer, rank=2)
        lora(layer, rank=1)  # on top
    expected = trained(model, x)(x)
    assert merge_lora(model) is model
    assert not any(is_parametrized(layer) for layer in model)
    assert sorted(model.state_dict()) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("first", [True, False])
def test_merging_keeps_the_other_maps(first: bool) -> None:
    x = torch.randn(3, 5)
    layer: Any = nn.Linear(5, 5, bias=False)
    for parametrization in (LoRA(2), Double()) if first else (Double(), LoRA(2), Double()):
        register_parametrization(layer, "weight", parametrization)
    expected = trained(layer, x).weight
    original = chain_of(layer).original
    merge_lora(layer)
    chain = chain_of(layer)
    assert [type(part) for part in chain.maps()] == [Double] * (1 if first else 2)
    assert [name for name, _ in layer.named_parameters()] == ["parametrizations.weight.original"]
    assert chain.original is original
    torch.testing.assert_close(layer.weight, expected)
    layer.weight = torch.ones(5, 5)
    assert layer.weight.equal(torch.ones(5, 5))


def test_merging_leaves_the_state_of_a_map_after_it_alone() -> None:
    layer: Any = lora(nn.Linear(5, 5, bias=False), rank=2)
    register_parametrization(layer, "weight", SpectralNorm())
    expected = trained(layer, torch.randn(3, 5)).eval().weight
    merge_lora(layer)
    torch.testing.assert_close(layer.weight, expected)
    assert [name for name, _ in layer.parametrizations.named_buffers()] == [
        "weight.0._u",
        "weight.0._v",
    ]


def test_merging_what_the_other_maps_cannot_hold_is_refused() -> None:
    layer: Any = register_parametrization(nn.Linear(5, 5), "weight", Symmetric())
    trained(lora(layer, rank=2), torch.randn(3, 5))
    before = layer.weight
    state = copy.deepcopy(layer.state_dict())
    with pytest.raises(ValueError, match="cannot merge the LoRA of 'weight': .* differs by"):
        merge_lora(layer)
    assert layer.weight.equal(before)
    assert list(layer.state_dict()) == list(state)
    assert len(chain_of(layer)) == 2


def test_merging_leaves_other_layers_alone() -> None:
    model: Any = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    register_parametrization(model[0], "weight", Symmetric())
    lora(model[1])
    merge_lora(model)
    assert is_parametrized(model[0], "weight")
    assert not is_parametrized(model[1])


def test_lora_after_other_maps_freezes_what_they_start_from() -> None:
    layer: Any = register_parametrization(nn.Linear(5, 5, bias=False), "weight", Symmetric())
    lora(layer, rank=2)
    names = [name for name, x in layer.named_parameters() if x.requires_grad]
    assert names == [f"parametrizations.weight.1.lora_{x}" for x in "AB"]


def test_checkpoint_is_loaded_into_a_fresh_model() -> None:
    layer = trained(lora(nn.Linear(5, 4), rank=2), torch.randn(3, 5))
    fresh: Any = lora(nn.Linear(5, 4), rank=2)
    fresh.load_state_dict(layer.state_dict())
    assert fresh.weight.equal(layer.weight)
    assert saved_and_loaded(layer).weight.equal(layer.weight)


def test_torchs_engine_takes_it() -> None:
    layer = torch_linear(LoRA(2), 4)
    names = [name for name, _ in layer.parametrizations.weight[0].named_parameters()]
    assert names == ["lora_A", "lora_B"]


def test_one_map_is_for_one_shape_of_weight() -> None:
    adapter = LoRA(2)
    register_parametrization(nn.Linear(5, 4), "weight", adapter)
    with pytest.raises(ValueError, match=r"do not fit a weight of shape \[4, 6\]. Register one"):
        register_parametrization(nn.Linear(6, 4), "weight", adapter)


def test_lazy_weights_are_refused_until_they_have_a_shape() -> None:
    layer: Any = nn.LazyLinear(4)
    with pytest.raises(ValueError, match="'weight' of LazyLinear has no shape yet"):
        lora(layer)
    layer(torch.ones(1, 3))
    assert lora(layer, rank=1).weight.shape == (4, 3)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="rank must be positive. Got rank=0"):
        LoRA(0)
    with pytest.raises(ValueError, match="alpha must be finite. Got alpha=inf"):
        LoRA(1, float("inf"))
    layer = nn.Linear(5, 4)
    with pytest.raises(ValueError, match=r"Got shape \[4\]"):
        lora(layer, "bias")
    assert layer.bias.requires_grad
    assert repr(LoRA(2, 3.0, flatten=True)) == "LoRA(rank=2, alpha=3, flatten=True)"


def test_adapters_of_two_layers_start_with_other_numbers() -> None:
    first, second = (lora(nn.Linear(5, 5), rank=2) for _ in range(2))
    factors = [chain_of(layer)[0].lora_A for layer in (first, second)]
    assert not factors[0].equal(factors[1])
