"""TorchScript: `torch.jit.script`"""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import torch
from torch import Tensor, nn

from tests.helpers import Double
from tests.worlds.case import Case, of_linear, of_loop, of_scoped_loop
from tests.worlds.checks import WrongError, check_close, check_evaluated_once
from tests.worlds.engines import Engine
from tests.worlds.maps import Exp, Product

__all__ = [
    "attention",
    "buffer",
    "chain",
    "convolution",
    "eager_model",
    "exported_method",
    "freeze",
    "layer",
    "load",
    "nested",
    "optimize_for_inference",
    "recurrent",
    "same_objects",
    "scope_around",
    "scope_around_loaded",
    "scope_inside",
    "shared",
]

jit: Any = torch.jit


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
        self.second = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
        self.third = nn.ModuleDict({"a": nn.Linear(3, 3)})

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.second:
            x = layer(x)
        for layer in self.third.values():
            x = layer(x)
        return x


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.rand(3))
        self.bias = nn.Parameter(torch.rand(3))

    scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.bias


class Outputs(nn.Module):
    """A recurrent layer, called: TorchScript compiles it inside another module only."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.layer(x)
        return outputs  # type: ignore[no-any-return]


class Exporting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)  # type: ignore[no-any-return]

    @torch.jit.export
    def predict(self, x: Tensor) -> Tensor:
        return self.layer(x)  # type: ignore[no-any-return]


def check_scripted(case: Case) -> None:
    case.check(jit.script(case.model))


def layer(engine: Engine) -> None:
    """a layer"""
    check_scripted(of_linear(engine))


def nested(engine: Engine) -> None:
    """layers in `Sequential`, `ModuleList` and `ModuleDict`"""
    names = ["first.0.weight", "second.0.weight", "second.1.bias", "third.a.weight"]
    check_scripted(Case(engine, Nested(), names))


def shared(engine: Engine) -> None:
    """one layer in two places"""
    layer = nn.Linear(3, 3)
    check_scripted(Case(engine, nn.Sequential(layer, nn.Tanh(), layer), ["0.weight"]))


def chain(engine: Engine) -> None:
    """several parametrizations of a tensor, and one with several originals"""
    check_scripted(Case(engine, nn.Linear(3, 3), ["weight", "bias"], maps=(Exp, Double)))
    check_scripted(Case(engine, nn.Linear(3, 3), ["weight"], maps=(Product, Exp)))


def buffer(engine: Engine) -> None:
    """a parametrized buffer"""
    check_scripted(Case(engine, Scaled(), ["scale"]))


def recurrent(engine: Engine) -> None:
    """`nn.RNN`, `nn.GRU` and `nn.LSTM`"""
    inputs = [torch.rand(4, 2, 3, requires_grad=True)]
    names = ["layer.weight_hh_l0", "layer.weight_ih_l0"]
    for kind in (nn.RNN, nn.GRU, nn.LSTM):
        check_scripted(Case(engine, Outputs(kind(3, 3)), names, inputs))


def attention(engine: Engine) -> None:
    """`nn.MultiheadAttention`"""
    x = torch.rand(4, 2, 6, requires_grad=True)
    names = ["in_proj_weight", "out_proj.weight"]
    check_scripted(Case(engine, nn.MultiheadAttention(6, 2), names, [x, x, x]))


def convolution(engine: Engine) -> None:
    """`nn.Conv2d` and `nn.Embedding`"""
    check_scripted(Case(engine, nn.Conv2d(2, 3, 2), ["weight"], [torch.rand(1, 2, 4, 4)]))
    check_scripted(Case(engine, nn.Embedding(4, 3), ["weight"], [torch.tensor([0, 3, 1])]))


def exported_method(engine: Engine) -> None:
    """methods with `@torch.jit.export`"""
    case = Case(engine, Exporting(), ["layer.weight"])
    case.check(jit.script(case.model).predict)


def saved_and_loaded(program: Any) -> Any:
    file = io.BytesIO()
    jit.save(program, file)
    file.seek(0)
    return jit.load(file)


def load(engine: Engine) -> None:
    """saved, loaded, and trained on"""
    case = of_loop(engine)
    loaded = saved_and_loaded(jit.script(case.model))
    case.check(loaded, loaded)


def freeze(engine: Engine) -> None:
    """`torch.jit.freeze`"""
    case = of_loop(engine)
    case.check_outputs(jit.freeze(jit.script(case.model.eval())))


def optimize_for_inference(engine: Engine) -> None:
    """`torch.jit.optimize_for_inference`"""
    case = of_loop(engine)
    case.check_outputs(jit.optimize_for_inference(jit.script(case.model.eval())))


def eager_model(engine: Engine) -> None:
    """the eager model afterwards: trains, pickles, copies, caches, scripts again"""
    case = of_loop(engine)
    kinds = [type(module) for module in case.model.modules()]
    for _ in range(2):
        jit.script(case.model)
        if [type(module) for module in case.model.modules()] != kinds:
            raise WrongError("other modules than before")
        case.check(case.model)
        for copied in (copy.deepcopy(case.model), pickle.loads(pickle.dumps(case.model))):
            case.check(copied, copied)
        with engine.cached(case.model):
            check_evaluated_once(lambda: case.model(*case.inputs))
    before = case.model(*case.inputs)
    engine.module.remove_parametrizations(case.model.layer, "weight")
    check_close(case.model(*case.inputs), before, "wrong outputs")


def same_objects(engine: Engine) -> None:
    """the eager model's own children afterwards"""
    model = of_loop(engine).model
    before = dict(model.named_modules())
    engine.script(model)
    if any(before[name] is not module for name, module in model.named_modules()):
        raise WrongError("other modules than before")


def scope_around(engine: Engine) -> None:
    """`cached` around the calls of a scripted model: evaluated once"""
    case = of_loop(engine)
    check_scope(engine, case, jit.script(case.model), case.model)


def scope_around_loaded(engine: Engine) -> None:
    """`cached` around the calls of a saved and loaded program: evaluated once"""
    case = of_loop(engine)
    loaded = saved_and_loaded(jit.script(case.model))
    check_scope(engine, case, loaded, loaded)


def check_scope(engine: Engine, case: Case, program: Any, holder: Any) -> None:
    def run(x: Tensor) -> Tensor:
        with engine.cached(program):
            program(x)
            y: Tensor = program(x)
        return y

    case.check(run, holder)
    check_evaluated_once(lambda: run(*case.inputs))


def scope_inside(engine: Engine) -> None:
    """`cached` inside a scripted `forward`: evaluated once"""
    case = of_scoped_loop(engine)
    scripted = jit.script(case.model)
    case.check(scripted)
    check_evaluated_once(lambda: scripted(*case.inputs))
