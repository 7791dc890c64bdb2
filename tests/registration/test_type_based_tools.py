"""Tools that ask for the class of a module: quantization, pruning, fusion, averaging."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao import quantization
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
from torch.nn.utils import parameters_to_vector, prune, vector_to_parameters
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from torch.optim.swa_utils import AveragedModel

import paramdesc as P
from paramdesc.parametrizations import SpectralNorm, Symmetric
from tests.helpers import Double, chain_of, linear, train_step

Q: Any = quantization  # untyped

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch.ao"),
]

torch.manual_seed(0)
INPUT = torch.randn(16, 8)


@pytest.fixture
def model() -> Iterator[nn.Sequential]:
    """A model that a test must leave parametrized."""
    model = nn.Sequential(linear(Symmetric(), 8), nn.ReLU(), linear(SpectralNorm(), 8)).eval()
    yield model
    assert all(P.is_parametrized(model[i], "weight") for i in (0, 2))


def assert_near(quantized: nn.Module, model: nn.Module) -> None:
    """Within a few steps of an eight bit number, and not equal by chance of being the model."""
    expected, found = model(INPUT), quantized(INPUT)
    assert not torch.equal(found, expected)
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


def test_dynamic_quantization(model: nn.Sequential) -> None:
    quantized: Any = Q.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    assert type(quantized[0]).__module__.startswith("torch.ao.nn.quantized.dynamic")
    assert not list(quantized.parameters())
    assert_near(quantized, model)


def test_dynamic_quantization_of_a_recurrent_module() -> None:
    lstm = P.register_parametrization(nn.LSTM(8, 8), "weight_hh_l0", torch.tanh)
    model = nn.Sequential(lstm).eval()
    quantized: Any = Q.quantize_dynamic(model, {nn.LSTM}, dtype=torch.qint8)
    steps = INPUT[:, None]
    expected, found = model(steps)[0], quantized(steps)[0]
    assert not torch.equal(found, expected)
    assert (found - expected).abs().max() < 0.05


def test_static_quantization(model: nn.Sequential) -> None:
    full: Any = nn.Sequential(Q.QuantStub(), *model, Q.DeQuantStub()).eval()
    full.qconfig = Q.get_default_qconfig("fbgemm")
    prepared = Q.prepare(full)
    prepared(INPUT)
    quantized: Any = Q.convert(prepared)
    assert type(quantized[1]).__module__.startswith("torch.ao.nn.quantized")
    assert_near(quantized, model)


def test_quantization_aware_training(model: nn.Sequential) -> None:
    full: Any = nn.Sequential(Q.QuantStub(), *copy.deepcopy(model), Q.DeQuantStub()).train()
    full.qconfig = Q.get_default_qat_qconfig("fbgemm")
    prepared: Any = Q.prepare_qat(full)
    torch.autograd.backward(prepared(INPUT).sum())
    gradients = {name: p.grad for name, p in prepared.named_parameters()}
    assert gradients["1.parametrizations.weight.original"] is not None
    with torch.no_grad():
        chain_of(prepared[1]).original.add_(torch.randn(8, 8))
    prepared(INPUT)
    torch.testing.assert_close(prepared[1].weight, prepared[1].weight.mT)
    quantized: Any = Q.convert(prepared.eval())
    assert not list(quantized.parameters())
    assert torch.isfinite(quantized(INPUT)).all()


def test_quantization_of_a_graph(model: nn.Sequential) -> None:
    prepared = prepare_fx(model, Q.get_default_qconfig_mapping("fbgemm"), (INPUT,))
    prepared(INPUT)
    quantized = convert_fx(prepared)
    assert not list(quantized.parameters())
    assert_near(quantized, model)


@pytest.mark.filterwarnings("ignore")  # torchao's
def test_quantization_of_an_exported_program(model: nn.Sequential) -> None:
    pt2e: Any = pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e", reason="has it now")
    x86: Any = import_module("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    program = torch.export.export(model, (INPUT,)).module()
    prepared = pt2e.prepare_pt2e(program, quantizer)
    prepared(INPUT)
    quantized = pt2e.convert_pt2e(prepared)
    assert_near(quantized, model)


# pruning


def zeros(tensor: Tensor) -> int:
    return int((tensor == 0).sum())


def test_pruning_of_a_plain_name() -> None:
    layer = linear(Symmetric(), 8)
    prune.l1_unstructured(layer, "bias", 0.5)  # type: ignore[no-untyped-call]
    torch.autograd.backward(layer(INPUT).sum())
    assert zeros(layer.bias) == 4
    prune.remove(layer, "bias")  # type: ignore[no-untyped-call]
    assert dict(layer.named_parameters()).keys() == {"bias", "parametrizations.weight.original"}
    assert zeros(layer.bias) == 4


@pytest.mark.parametrize("is_scoped", [True, False], ids=["in a scope", "no scope"])
def test_pruning_of_the_original(is_scoped: bool) -> None:
    layer = linear(Double(), 8)
    chain = chain_of(layer)
    with P.cached(layer if is_scoped else []):
        before = layer.weight.detach().clone()
        prune.l1_unstructured(chain, "original", 0.5)  # type: ignore[no-untyped-call]
        mask = chain.original_mask
        assert zeros(mask) == 32
        torch.testing.assert_close(layer.weight, before * mask)
        torch.autograd.backward(layer(INPUT).sum())
        assert zeros(chain.original_orig.grad) == 32
        with torch.no_grad():
            chain.original_orig.add_(1)
        torch.testing.assert_close(layer.weight, (before + 2) * mask)
        after = layer.weight.detach().clone()
        prune.remove(chain, "original")  # type: ignore[no-untyped-call]
        torch.testing.assert_close(layer.weight, after)
    assert dict(layer.named_parameters()).keys() == {"bias", "parametrizations.weight.original"}
    layer.weight = before
    torch.testing.assert_close(layer.weight, before)


def test_pruning_of_many_at_once(model: nn.Sequential) -> None:
    originals = [(chain_of(model[i]), "original") for i in (0, 2)]
    prune.global_unstructured(
        [*originals, (model[0], "bias")], pruning_method=prune.L1Unstructured, amount=0.5
    )
    model(INPUT)
    pruned = [*(chain.original_mask for chain, _ in originals), model[0].bias_mask]
    assert sum(map(zeros, pruned)) == 68
    torch.testing.assert_close(model[0].weight, model[0].weight.mT)


def test_pruning_of_the_parametrized_name_changes_nothing() -> None:
    layer = linear(Symmetric(), 8)
    state, before = layer.state_dict(), layer.weight.detach().clone()
    names = set(vars(layer)), set(dir(layer))
    with pytest.raises(TypeError, match="weight_orig"):
        prune.l1_unstructured(layer, "weight", 0.5)  # type: ignore[no-untyped-call]
    assert (set(vars(layer)), set(dir(layer))) == names
    assert layer.state_dict().keys() == state.keys()
    assert not layer._forward_pre_hooks
    torch.testing.assert_close(layer.weight, before, rtol=0, atol=0)


# fusion


@pytest.mark.parametrize("removed", [True, False])
def test_fusion_takes_plain_weights(removed: bool) -> None:
    """The fused weight is no value of the maps, so they are removed first, from a copy."""
    pairs: list[Any] = [
        (nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), fuse_conv_bn_eval, torch.randn(2, 3, 6, 6)),
        (nn.Linear(3, 3), nn.BatchNorm1d(3), fuse_linear_bn_eval, torch.randn(2, 3)),
    ]
    for layer, norm, fuse, x in pairs:
        P.register_parametrization(layer, "weight", SpectralNorm())
        norm.running_var.uniform_(0.5, 2)
        norm.running_mean.normal_()
        layer.eval()
        norm.eval()
        before = norm(layer(x))
        if removed:
            plain = P.remove_parametrizations(copy.deepcopy(layer), "weight")
            torch.testing.assert_close(fuse(plain, norm)(x), before)
        else:
            with pytest.raises(TypeError, match="remove_parametrizations"):
                fuse(layer, norm)
        torch.testing.assert_close(norm(layer(x)), before)


# what goes over parameters


def test_parameters_as_one_vector(model: nn.Sequential) -> None:
    vector = parameters_to_vector(model.parameters())
    assert vector.numel() == 2 * 72
    with P.cached():
        layer: Any = model[0]
        before = layer.weight.detach().clone()
        vector_to_parameters(vector * 2, model.parameters())
        torch.testing.assert_close(layer.weight, 2 * before)


def test_an_averaged_model(model: nn.Sequential) -> None:
    average: Any = AveragedModel(model)
    average.update_parameters(model)
    first = [p.detach().clone() for p in model.parameters()]
    train_step(model[0])
    average.update_parameters(model)
    expected = [(a + b) / 2 for a, b in zip(first, model.parameters(), strict=True)]
    torch.testing.assert_close(list(average.module.parameters()), expected)
    weight = average.module[0].weight
    torch.testing.assert_close(weight, weight.mT)
    assert type(average.module[0]) is nn.Linear
