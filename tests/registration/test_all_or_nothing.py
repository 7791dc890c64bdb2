"""A failure at any line of register, remove, transfer, assign and adopt changes nothing."""

from __future__ import annotations

import linecache
import pathlib
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize as torch_engine

import paramdesc as P
from paramdesc.parametrizations import SpectralNorm

PACKAGE = str(pathlib.Path(P.__file__).parent)


class InjectedError(Exception):
    """Raised where the package is at a chosen line."""


class Injector:
    """Raises at the n-th line that the package executes, once."""

    def __init__(self, countdown: int) -> None:
        self.countdown = countdown
        self.place = ""

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        source = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        # Python comes back to a `with` line to leave the block, and an exception that a tracer
        # raises there, as none of ours could, leaves it without __exit__
        if event == "line" and not source.lstrip().startswith("with "):
            self.countdown -= 1
            if self.countdown == 0:
                self.place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                sys.settrace(None)
                raise InjectedError(self.place)
        return self

    def run(self, action: Callable[[], object]) -> bool:
        """Run `action`; whether it was interrupted."""
        before = sys.gettrace()
        sys.settrace(self)
        try:
            action()
        except InjectedError:
            return True
        finally:
            sys.settrace(before)
        return False


class Half(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X / 2

    def right_inverse(self, X: Tensor) -> Tensor:
        return 2 * X


class Sum(nn.Module):
    def forward(self, X: Tensor, Y: Tensor) -> Tensor:
        return X + Y

    def right_inverse(self, X: Tensor) -> tuple[Tensor, Tensor]:
        return X / 4, 3 * X / 4


def describe(root: nn.Module) -> list[Any]:
    """Everything that must be as it was, comparable with `==`."""
    description: list[Any] = []
    for path, module in root.named_modules():
        state = vars(module)
        attributes = {
            name: list(value) if isinstance(value, (dict, set)) else id(value)
            for name, value in state.items()
        }
        hooks = {name: list(value.items()) for name, value in state.items() if "hooks" in name}
        tensors = [
            (name, id(tensor), tensor.data_ptr(), tensor.dtype, tensor.requires_grad)
            for name, tensor in (*module.named_parameters(), *module.named_buffers())
        ]
        values = [tensor.detach().tolist() for tensor in module.state_dict().values()]
        buffers = type(state["_buffers"])
        description.append(
            (path, type(module), attributes, hooks, tensors, values, buffers, module.training)
        )
    return description


def plain() -> nn.Module:
    return nn.Linear(2, 2)


def buffered() -> nn.Module:
    module = nn.Module()
    module.register_buffer("weight", torch.ones(2, 2), persistent=False)
    return module


def halved() -> nn.Module:
    return P.register_parametrization(nn.Linear(2, 2), "weight", Half())


def summed() -> nn.Module:
    return P.register_parametrization(nn.Linear(2, 2), "weight", Sum())


def by_torch() -> nn.Module:
    linear = torch_engine.register_parametrization(nn.Linear(2, 2), "weight", Half())
    weight_norm: Any = torch.nn.utils.parametrizations.weight_norm
    return weight_norm(linear, "bias", dim=None)  # type: ignore[no-any-return]


def assign(module: nn.Module) -> None:
    module.weight = torch.ones(2, 2)


ACTIONS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], object]]] = {
    "register a map": (plain, lambda m: P.register_parametrization(m, "weight", Half())),
    "register on a buffer": (buffered, lambda m: P.register_parametrization(m, "weight", Half())),
    "register a function": (plain, lambda m: P.register_parametrization(m, "bias", torch.exp)),
    "register two originals": (plain, lambda m: P.register_parametrization(m, "weight", Sum())),
    "register with state": (
        plain,
        lambda m: P.register_parametrization(m, "weight", SpectralNorm()),
    ),
    "append": (halved, lambda m: P.register_parametrization(m, "weight", Half())),
    "append with state": (
        halved,
        lambda m: P.register_parametrization(m, "weight", SpectralNorm()),
    ),
    "register another": (halved, lambda m: P.register_parametrization(m, "bias", Half())),
    "remove": (halved, lambda m: P.remove_parametrizations(m, "weight")),
    "remove, original": (halved, lambda m: P.remove_parametrizations(m, "weight", False)),
    "remove two originals": (summed, lambda m: P.remove_parametrizations(m, "weight")),
    "transfer": (plain, lambda m: P.transfer_parametrizations_and_params(halved(), m)),
    "transfer onto": (halved, lambda m: P.transfer_parametrizations_and_params(halved(), m)),
    "transfer a new one": (
        nn.Module,
        lambda m: P.transfer_parametrizations_and_params(halved(), m),
    ),
    "assign": (halved, assign),
    "assign two originals": (summed, assign),
    "adopt": (by_torch, P.adopt),
    "adopt and register": (by_torch, lambda m: P.register_parametrization(m, "weight", Half())),
    "adopt and remove": (by_torch, lambda m: P.remove_parametrizations(m, "bias")),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_a_failure_at_any_line_leaves_the_module_as_it_was(name: str) -> None:
    make, action = ACTIONS[name]
    steps = 0
    while True:
        torch.manual_seed(0)
        module = make()
        before = describe(module)
        injector = Injector(steps + 1)
        if not injector.run(lambda module=module: action(module)):  # type: ignore[misc]
            break
        assert torch.is_grad_enabled()
        assert describe(module) == before, f"after a failure at {injector.place}"
        steps += 1
    assert steps > 5
    assert describe(module) != before


def test_a_map_that_fails_on_trial_leaves_the_module_as_it_was() -> None:
    class Broken(Half):
        def forward(self, X: Tensor) -> Tensor:
            raise InjectedError

    linear = nn.Linear(2, 2)
    before = describe(linear)
    with pytest.raises(InjectedError):
        P.register_parametrization(linear, "weight", Broken())
    assert describe(linear) == before
