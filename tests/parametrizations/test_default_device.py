"""Registering a map under a default device that is not that of the weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paramdesc import register_parametrization
from paramdesc.parametrizations import orthogonal, spectral_norm
from tests.parametrizations.all_cases import CASES
from tests.parametrizations.cases.case import Case


class LikeCuda(torch.overrides.TorchFunctionMode):
    """Refuses to make tensors from a generator of the CPU without the name of a device, as
    `torch.device("cuda")` does, or to make any and fill them from one.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        is_factory = func in torch.utils._device._device_constructors()
        if is_factory and kwargs.get("device") is None and kwargs.get("generator") is not None:
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        return func(*args, **kwargs)


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "meta": lambda: torch.device("meta"),
    "like CUDA": LikeCuda,
}


class Holder(nn.Module):
    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())


def tensors_of_use(case: Case, parametrization: nn.Module, weight: Tensor) -> list[Tensor]:
    """What there is after registration, evaluation, a question for the deviation, assignment."""
    module: Any = register_parametrization(
        Holder(weight), "weight", parametrization, unsafe=case.declared.get("unsafe", False)
    )
    found = [module.weight.detach().clone()]
    chain = module.parametrizations.weight
    if getattr(chain[-1], "constraint", ""):
        found.append(chain[-1].deviation(found[0]))
        chain[-1].tolerance(found[0])
    if case.declared.get("right_inverse") != "none":
        module.weight = weight * 0.5
        found.append(module.weight.detach().clone())
    return found + named(module.named_parameters()) + named(module.named_buffers())


def named(pairs: Iterable[tuple[str, Tensor]]) -> list[Tensor]:
    return [x.detach() for _, x in pairs]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_everything_is_on_the_device_of_the_weight(name: str, mode: str) -> None:
    torch.manual_seed(0)
    case = CASES[name]
    weight = case.weight()
    first, second = case.make(), case.make()
    expected = tensors_of_use(case, first, weight)
    with MODES[mode]():
        found = tensors_of_use(case, second, weight)
    assert [x.device for x in found] == [x.device for x in expected]
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("function", [orthogonal, spectral_norm])
def test_functions_in_the_style_of_torch(function: Any, mode: str) -> None:
    layer = nn.Linear(4, 6)
    with MODES[mode]():
        function(layer)
        value = layer.weight
    assert value.device.type == "cpu"
    assert {x.device.type for x in layer.state_dict().values()} == {"cpu"}
