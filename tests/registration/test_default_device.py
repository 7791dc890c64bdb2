"""Under another default device, everything that registration makes is on the tensor's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.parametrizations import Orthogonal, Symmetric, WeightNorm, tie
from tests.helpers import Double, Sum, chain_of, linear


class Base(nn.Module):
    """A map with a base point, and no factory function in it."""

    base: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("base", None)

    def forward(self, X: Tensor) -> Tensor:
        return X if self.base is None else X + self.base

    def right_inverse(self, Y: Tensor) -> Tensor:
        self.base = Y.clone()
        return Y - Y


@pytest.fixture(params=["with", "set_default_device"], autouse=True)
def _meta(request: pytest.FixtureRequest) -> Iterator[None]:
    """`meta` is the default device."""
    if request.param == "with":
        with torch.device("meta"):
            yield
        return
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


def on_cpu() -> nn.Linear:
    return nn.Linear(4, 4, device="cpu")


def parametrized_on_cpu() -> nn.Linear:
    return P.register_parametrization(on_cpu(), "weight", Base())


def buffered() -> nn.Module:
    module = nn.Module()
    module.register_buffer("weight", torch.ones(4, 4, device="cpu"))
    return P.register_parametrization(module, "weight", Double())


def assigned() -> nn.Module:
    layer = parametrized_on_cpu()
    layer.weight = torch.ones(4, 4, device="cpu")
    return layer


def tied() -> nn.Module:
    layer = on_cpu()
    tie((layer, "weight"), to=(on_cpu(), "weight"))
    return layer


ACTIONS: dict[str, Callable[[], nn.Module]] = {
    **{
        make.__name__: lambda make=make: P.register_parametrization(on_cpu(), "weight", make())  # type: ignore[misc]
        for make in (Base, Double, Orthogonal, Sum, Symmetric, WeightNorm)
    },
    "a buffer": buffered,
    "append": lambda: P.register_parametrization(parametrized_on_cpu(), "weight", Base()),
    "assign": assigned,
    "transfer": lambda: P.transfer_parametrizations_and_params(parametrized_on_cpu(), on_cpu()),
    "transfer a new one": lambda: P.transfer_parametrizations_and_params(
        parametrized_on_cpu(), nn.Module()
    ),
    "remove": lambda: P.remove_parametrizations(parametrized_on_cpu(), "weight"),
    "remove two": lambda: P.remove_parametrizations(
        P.register_parametrization(on_cpu(), "weight", Sum()), "weight"
    ),
    "tie": tied,
}


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
def test_all_is_where_the_tensor_was(action: Callable[[], Any]) -> None:
    module = action()
    tensors = [module.weight, *module.parameters(), *module.buffers()]
    assert {x.device.type for x in tensors} == {"cpu"}
    assert module.weight.isfinite().all()


def test_a_layer_on_the_default_device_stays_there() -> None:
    layer = linear()
    assert {x.device.type for x in (layer.weight, chain_of(layer).original)} == {"meta"}
