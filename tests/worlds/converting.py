"""Quantization and pruning"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils import prune

from tests.worlds.case import Case
from tests.worlds.checks import WrongError, check_close
from tests.worlds.engines import Engine

__all__ = ["dynamic", "graph_mode", "pruned", "pt2e"]

quantization: Any = torch.ao.quantization


def network(engine: Engine) -> Case:
    plain = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    inputs = [torch.rand(64, 8)]
    case = Case(engine, plain, ["0.weight", "2.weight"], inputs)
    case.model.eval()
    return case


def check_near(case: Case, quantized: Any) -> None:
    """The outputs are those of the float model but for the rounding to eight bits."""
    with torch.no_grad():
        expected = case.expected(case.model, *case.inputs)
        actual = quantized(*case.inputs)
    scale = expected.abs().max()
    check_close(actual / scale, expected / scale, "wrong outputs", 0.03)


def check_kinds(model: nn.Module, kind: str) -> None:
    """Every linear layer has become one of `kind`."""
    names = [type(module).__module__ for module in model.modules() if hasattr(module, "weight")]
    if len(names) != 2 or any(kind not in name for name in names):
        raise WrongError("the layers are not quantized")


def dynamic(engine: Engine) -> None:
    """`torch.ao.quantization.quantize_dynamic`"""
    case = network(engine)
    quantized = quantization.quantize_dynamic(case.model, {nn.Linear})
    check_near(case, quantized)
    check_kinds(quantized, "quantized.dynamic")


def graph_mode(engine: Engine) -> None:
    """FX graph mode: `prepare_fx`, `convert_fx`"""
    functions: Any = importlib.import_module("torch.ao.quantization.quantize_fx")
    case = network(engine)
    mapping = quantization.get_default_qconfig_mapping("fbgemm")
    prepared = functions.prepare_fx(case.model, mapping, tuple(case.inputs))
    prepared(*case.inputs)
    quantized = functions.convert_fx(prepared)
    check_near(case, quantized)
    check_kinds(quantized, "quantized")


def pt2e(engine: Engine) -> None:
    """PT2E: `prepare_pt2e`, `convert_pt2e` of torchao"""
    functions: Any = importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
    case = network(engine)
    program = torch.export.export(case.model, tuple(case.inputs)).module()
    prepared = functions.prepare_pt2e(program, linear_quantizer())
    prepared(*case.inputs)
    quantized = functions.convert_pt2e(prepared)
    check_near(case, quantized)
    text = str(quantized.graph)
    if text.count("target=_frozen_param") != 2 or "aten.exp" in text:
        raise WrongError("the layers are not quantized")


def linear_quantizer() -> Any:
    """Weights and inputs of every linear layer in eight bits, whatever the weights come from."""
    quantizers: Any = importlib.import_module("torchao.quantization.pt2e.quantizer")
    observer = importlib.import_module("torchao.quantization.pt2e").MinMaxObserver
    spec = quantizers.QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=observer,
    )

    class LinearQuantizer(quantizers.Quantizer):  # type: ignore[misc]
        def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
            for node in model.graph.nodes:
                if node.target is torch.ops.aten.linear.default:
                    node.meta["quantization_annotation"] = quantizers.QuantizationAnnotation(
                        input_qspec_map=dict.fromkeys(node.args[:2], spec), _annotated=True
                    )
            return model

        def validate(self, model: fx.GraphModule) -> None:
            pass

    return LinearQuantizer()


def pruned(engine: Engine) -> None:
    """`torch.nn.utils.prune` of an original"""
    case = Case(engine, nn.Linear(4, 4), ["weight"], [torch.rand(2, 4)])
    chain: Any = case.model.parametrizations.weight
    utils: Any = prune
    utils.l1_unstructured(chain, "original", amount=0.5)
    for _ in range(2):
        masked = chain.original_orig * chain.original_mask
        assert (masked == 0).sum() == 8
        (x,) = case.inputs
        expected = nn.functional.linear(x, masked.exp(), case.model.bias)
        outputs = case.model(*case.inputs)
        check_close(outputs, expected, "wrong outputs")
        actual, gradient = (
            torch.autograd.grad(y.square().sum(), chain.original_orig)[0]
            for y in (outputs, expected)
        )
        check_close(actual, gradient, "wrong gradients")
        with torch.no_grad():
            chain.original_orig.add_(0.1)
    utils.remove(chain, "original")
    case.check(case.model)
