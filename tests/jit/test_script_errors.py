"""What cannot be scripted is told by its map, tensor and line.

Without postponed annotations: TorchScript takes those of a class as they are.
"""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.errors import ScriptingError
from paramdesc.parametrizations import SpectralNorm
from tests.helpers import linear
from tests.jit.models import DEPRECATED, X

pytestmark = DEPRECATED


class Exotic(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X * next(len(c) for c in globals())


def test_an_error_names_the_map_the_tensor_and_the_line(script: Any) -> None:
    layer = linear()
    P.register_parametrization(layer, "weight", Exotic())
    model = nn.Sequential(nn.ReLU(), layer)
    for _ in range(2):
        with pytest.raises(ScriptingError, match="map 1, Exotic, of '1.weight'") as caught:
            script(model)
        assert "for c in globals()" in str(caught.value)
        assert "torch.export" in str(caught.value)
    assert model[1] is layer
    assert model(X).shape == X.shape


def test_an_error_in_a_module_that_is_shared_is_told_alike() -> None:
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", Exotic())
    with pytest.raises(ScriptingError, match="map 0, Exotic, of '0.weight'"):
        P.jit.script(nn.Sequential(layer, layer))


class Halved(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, X: Tensor) -> Tensor:
        Y: Tensor = self.inner(X) / 2
        return Y

    def right_inverse(self, Y: Tensor) -> Tensor:
        return 2 * Y


def test_a_state_in_a_map_inside_of_another_follows_the_steps() -> None:
    torch.manual_seed(0)
    layer: Any = linear(Halved(SpectralNorm()))
    twin = copy.deepcopy(layer)
    program: Any = P.jit.script(twin)
    for _ in range(3):
        for module in (layer, program):
            with torch.no_grad():
                module.parametrizations.weight.original.add_(torch.eye(3), alpha=0.3)
        for _ in range(2):
            torch.testing.assert_close(program(X), layer(X))
    torch.testing.assert_close(twin.state_dict(), layer.state_dict())


def test_a_state_that_cannot_be_scripted_is_told_of_its_map() -> None:
    class Kept(P.Parametrization):
        warm_start = ("last",)

        def guess(self, X: Tensor) -> tuple[Tensor, ...]:
            return (X.clone(),)

        def refine(self, X: Tensor, last: Tensor) -> tuple[Tensor, ...]:  # of any length
            return (X + last,)

        def forward(self, X: Tensor) -> Tensor:
            self.follow(X)
            return X

    with pytest.raises(ScriptingError, match="map 0, Kept, of 'weight'"):
        P.jit.script(linear(Kept()))


def test_an_error_elsewhere_is_torchs_own(script: Any) -> None:
    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear()

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + globals()["nothing"]  # type: ignore[no-any-return]

    with pytest.raises(Exception, match="globals") as caught:
        script(Wrong())
    assert not isinstance(caught.value, ScriptingError)
