"""Typical mistakes are told with the fact, the cause and the line to write; beside each, its right
neighbor.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc import errors
from paramdesc.parametrizations import (
    Compose,
    SpectralNorm,
    Symmetric,
    orthogonal,
    spectral_norm,
)
from paramdesc.testing import check_parametrization
from tests.helpers import ROOT, chain_of


class WithoutSuper(nn.Module):
    def __init__(self) -> None:
        self.power = 2

    def forward(self, X: Tensor) -> Tensor:
        return X**self.power


class Misspelt(nn.Module):
    def foward(self, X: Tensor) -> Tensor:
        return X


class Inverse(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X

    def right_invers(self, Y: Tensor) -> Tensor:
        return Y


class ShortForward(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X[:2]


class ShortInverse(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X

    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y[:2]


class NumberInverse(Inverse):
    def right_inverse(self, Y: Tensor) -> int:
        return 1


class RaisingInverse(Inverse):
    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y @ torch.ones(7, 7)


class TwoOriginals(Inverse):
    def right_inverse(self, Y: Tensor) -> tuple[Tensor, Tensor]:
        return Y, Y


class Sum(nn.Module):
    def forward(self, X0: Tensor, X1: Tensor) -> Tensor:
        return X0 + X1

    def right_inverse(self, Y: Tensor) -> tuple[Tensor, Tensor]:
        return Y / 2, Y / 2


class Exp(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X.exp()

    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y.log()


def layer() -> Any:
    return nn.Linear(3, 3)


def register(*arguments: Any) -> Any:
    return P.register_parametrization(*arguments)


def quantized() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but in use
        quantize: Any = torch.ao.quantization.quantize_dynamic
        model = quantize(nn.Sequential(layer()), {nn.Linear})
    return model[0]


def assign(map_: Any, value: Tensor | None = None, *, unsafe: bool = False) -> None:
    module = P.register_parametrization(layer(), "weight", map_, unsafe=unsafe)
    module.weight = torch.eye(3) if value is None else value


def with_attribute(tensor: Tensor) -> Any:
    module: Any = layer()
    module.mask = tensor
    return module


def eye() -> Any:
    module = layer()
    nn.init.eye_(module.weight)
    return module


def ramp() -> dict[str, Tensor]:
    return {"weight": torch.arange(9.0).view(3, 3), "bias": torch.zeros(3)}


Action = Callable[[], Any]
MISTAKES: dict[str, tuple[Action, type[Exception], list[str], Action]] = {
    "a misspelt tensor": (
        lambda: register(layer(), "wieght", Symmetric()),
        ValueError,
        ["'wieght'", "Did you mean 'weight'?"],
        lambda: register(layer(), "weight", Symmetric()),
    ),
    "a constructor without super()": (
        lambda: register(layer(), "weight", WithoutSuper()),
        TypeError,
        ["WithoutSuper.__init__ does not call", "super().__init__()"],
        lambda: register(layer(), "weight", Inverse()),
    ),
    "a misspelt forward": (
        lambda: register(layer(), "weight", Misspelt()),
        TypeError,
        ["without a forward method", "did you mean forward?"],
        lambda: register(layer(), "weight", Inverse()),
    ),
    "a misspelt right_inverse": (
        lambda: assign(Inverse()),
        RuntimeError,
        ["does not implement right_inverse", "did you mean right_inverse?"],
        lambda: assign(Symmetric()),
    ),
    "a list of maps": (
        lambda: register(layer(), "weight", [Symmetric(), SpectralNorm()]),
        TypeError,
        ["Not a parametrization: [Symmetric()", "Compose(first, second)"],
        lambda: register(layer(), "weight", Compose(Symmetric(), SpectralNorm())),
    ),
    "a list of names": (
        lambda: register(layer(), ["weight"], Symmetric()),
        TypeError,
        ["the name of one tensor. Got ['weight']", "paramdesc.parametrize(model"],
        lambda: P.parametrize(layer(), {"weight": Symmetric}),
    ),
    "arguments in another order": (
        lambda: register(layer(), Symmetric(), "weight"),
        TypeError,
        ["(module, tensor_name, parametrization), in this order"],
        lambda: register(layer(), "weight", Symmetric()),
    ),
    "a tensor instead of its module": (
        lambda: register(layer().weight, "weight", Symmetric()),
        TypeError,
        ["got a tensor", 'register_parametrization(module, "weight", ...)'],
        lambda: register(layer(), "weight", Symmetric()),
    ),
    "a tensor to remove from": (
        lambda: P.remove_parametrizations(layer().weight, "weight"),
        TypeError,
        ["got a tensor", 'remove_parametrizations(module, "weight", ...)'],
        lambda: P.remove_parametrizations(register(layer(), "weight", Symmetric()), "weight"),
    ),
    "a forward that changes the shape": (
        lambda: register(layer(), "weight", ShortForward()),
        ValueError,
        ["may not change the shape", "ShortForward.forward was called", "'weight' of Linear"],
        lambda: P.register_parametrization(layer(), "weight", ShortForward(), unsafe=True),
    ),
    "a right_inverse that changes the shape": (
        lambda: register(layer(), "weight", ShortInverse()),
        ValueError,
        ["may not change the shape", "ShortInverse.right_inverse was called"],
        lambda: register(layer(), "weight", Symmetric()),
    ),
    "a right_inverse that returns no tensor": (
        lambda: register(layer(), "weight", NumberInverse()),
        ValueError,
        ["Got int", "NumberInverse.right_inverse was called", "'weight' of Linear"],
        lambda: register(layer(), "weight", Symmetric()),
    ),
    "a right_inverse that raises": (
        lambda: register(layer(), "weight", RaisingInverse()),
        RuntimeError,
        ["cannot be multiplied", "RaisingInverse.right_inverse was called", "'weight' of Linear"],
        lambda: register(layer(), "weight", Symmetric()),
    ),
    "a strict map that refuses the weight": (
        lambda: register(layer(), "weight", Symmetric(strict=True)),
        ValueError,
        ["not symmetric", "Symmetric.right_inverse was called"],
        lambda: register(layer(), "weight", Symmetric()),
    ),
    "a forward for one original of two": (
        lambda: register(layer(), "weight", TwoOriginals()),
        TypeError,
        ["positional argument", "right_inverse returns 2 tensors, so forward(self, X0, X1)"],
        lambda: register(layer(), "weight", Sum()),
    ),
    "a value of another shape": (
        lambda: assign(Symmetric(), torch.eye(4)),
        ValueError,
        ["shape [4, 4] to 'weight' of Linear", "shape [3, 3]", "remove_parametrizations(module, "],
        lambda: assign(Symmetric(), torch.eye(4), unsafe=True),
    ),
    "a quantized module": (
        lambda: register(quantized(), "weight", Symmetric()),
        ValueError,
        ["'weight' is a method there", "Parametrize the module before quantizing it"],
        lambda: register(layer(), "weight", Symmetric()),
    ),
    "a plain attribute": (
        lambda: register(with_attribute(torch.eye(3)), "mask", Symmetric()),
        ValueError,
        ["'mask' is a plain attribute. Make it a Parameter", 'module.register_buffer("mask"'],
        lambda: register(with_attribute(nn.Parameter(torch.eye(3))), "mask", Symmetric()),
    ),
    "a tensor of a submodule": (
        lambda: orthogonal(nn.Sequential(layer(), layer())),
        ValueError,
        ["'weight'. Its tensors", "Did you mean '1.weight' or '0.weight'?", "parametrize(model"],
        lambda: orthogonal(nn.Sequential(layer(), layer()), "1.weight"),
    ),
    "an argument in the place of the name": (
        lambda: spectral_norm(layer(), 0.9),  # type: ignore[arg-type]
        TypeError,
        ["Got 0.9. It is a string", 'spectral_norm(module, "weight", ...)'],
        lambda: spectral_norm(layer(), "weight", 2),
    ),
    "a map in the place of the name": (
        lambda: orthogonal(layer(), "cayley"),
        ValueError,
        ["'cayley' is a map", 'orthogonal(module, "weight", "cayley")'],
        lambda: orthogonal(layer(), "weight", "cayley"),
    ),
    "a map inserted that cannot keep the value": (
        lambda: chain_of(register(layer(), "weight", Symmetric())).insert(0, torch.relu),
        RuntimeError,
        ["parametrization relu does not implement right_inverse", "Add the argument keep_value"],
        lambda: chain_of(register(layer(), "weight", Symmetric())).insert(
            0, torch.relu, keep_value=False
        ),
    ),
    "a plain checkpoint for a strict map": (
        lambda: register(eye(), "weight", Symmetric(strict=True)).load_state_dict(ramp()),
        RuntimeError,
        ["without strict=True to replace it with a nearby one. To load originals"],
        lambda: register(eye(), "weight", Symmetric()).load_state_dict(ramp()),
    ),
    "a scope over a name": (
        lambda: P.cached("weight"),
        TypeError,
        ["Got 'weight' of type str", "get_parametrizations(model)['weight']"],
        lambda: P.cached(P.get_parametrizations(layer())),
    ),
    "a scope over a tensor": (
        lambda: P.cached(torch.ones(3, 3)),
        TypeError,
        ["a tensor of shape [3, 3]", "Write cached(module)"],
        lambda: P.cached(layer()),
    ),
    "a map looked for at the top": (
        lambda: P.Orthogonal,
        AttributeError,
        ["It is paramdesc.parametrizations.Orthogonal"],
        lambda: P.parametrizations.Orthogonal,
    ),
}


@pytest.mark.filterwarnings("ignore:Inverse.right_invers is not used:UserWarning")
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_what_to_write(name: str) -> None:
    mistake, error, parts, neighbor = MISTAKES[name]
    with pytest.raises(error) as caught:
        mistake()
    message = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    for part in parts:
        assert part in message
    neighbor()


def test_a_right_inverse_that_gives_nan_is_not_told_as_a_forward() -> None:
    module = layer()
    nn.init.constant_(module.weight, -1.0)
    with pytest.raises(errors.NonFiniteError, match="Exp.right_inverse returns NaN") as caught:
        register(module, "weight", Exp())
    assert not any("forward" in note for note in caught.value.__notes__)


def test_the_report_on_a_map_tells_of_nan_once() -> None:
    report = check_parametrization(Exp(), torch.randn(3, 3), raises=False)
    assert report.failed[0].check == "finite"
    assert not [x.check for x in report.failed if "NonFiniteError" in x.detail]
    assert report["shape"].status == "left out"


def test_the_guide_lists_every_error() -> None:
    page = (ROOT / "docs" / "guide" / "errors.md").read_text(encoding="utf-8")
    missing = [name for name in errors.__all__ if f"| `{name}` |" not in page]
    assert not missing
