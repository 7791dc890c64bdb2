"""Maps on tensors without numbers: on meta and fake, nothing is iterated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import Module
from torch.utils._python_dispatch import TorchDispatchMode

from paramdesc import register_parametrization
from paramdesc.parametrizations import (
    ConvolutionSpectralNorm,
    Correlation,
    HurwitzStable,
    Orthogonal,
    SchurStable,
    SpecialOrthogonal,
    SpectralNorm,
    Symplectic,
)
from paramdesc.torch_internals.placeholders import is_placeholder
from tests.helpers import chain_of

MAPS: dict[str, Callable[[], Module]] = {
    "spectral norm": SpectralNorm,
    "spectral norm, to a tolerance": lambda: SpectralNorm(tolerance=1e-4),
    "householder": lambda: Orthogonal("householder"),
    "special orthogonal": lambda: SpecialOrthogonal("householder"),
    "correlation": Correlation,
    "hurwitz stable": HurwitzStable,
    "schur stable": SchurStable,
    "symplectic": Symplectic,
}
MOST = 120
"""Operations to register and evaluate once; with numbers, each of these maps takes more."""


class Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations on tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return func(*args, **(kwargs or {}))


def operations_to_register(make: Callable[[], Module], layer: nn.Module) -> int:
    count = Count()
    with count:
        register_parametrization(layer, "weight", make())
    return count.operations


@pytest.mark.parametrize("size", [8, 40])
@pytest.mark.parametrize("name", MAPS)
def test_registering_on_meta_iterates_nothing(name: str, size: int) -> None:
    layer = nn.Linear(size, size, device="meta")
    assert operations_to_register(MAPS[name], layer) < MOST


@pytest.mark.parametrize("name", MAPS)
def test_registering_on_fake_tensors_iterates_nothing(name: str) -> None:
    with FakeTensorMode():
        assert operations_to_register(MAPS[name], nn.Linear(8, 8)) < MOST


@pytest.mark.parametrize("name", MAPS)
def test_with_numbers_each_of_these_maps_iterates(name: str) -> None:
    assert operations_to_register(MAPS[name], nn.Linear(40, 40)) > MOST


@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
def test_norms_of_convolutions_iterate_nothing_on_meta(padding_mode: Any) -> None:
    def make() -> Module:
        return ConvolutionSpectralNorm(16, padding=1, padding_mode=padding_mode)

    with torch.device("meta"):
        layer = nn.Conv1d(8, 8, 3, padding=1, padding_mode=padding_mode)
    assert operations_to_register(make, layer) < MOST
    assert operations_to_register(make, nn.Conv1d(8, 8, 3, padding=1)) > MOST


@pytest.mark.parametrize("name", MAPS)
def test_the_state_on_meta_has_the_shapes_and_dtypes_that_it_has_with_numbers(name: str) -> None:
    def states(device: str) -> dict[str, Any]:
        layer = register_parametrization(nn.Linear(6, 6, device=device), "weight", MAPS[name]())
        return {key: (x.shape, x.dtype) for key, x in layer.state_dict().items()}

    assert states("meta") == states("cpu")


@pytest.mark.parametrize("name", MAPS)
def test_assigning_on_meta_iterates_nothing(name: str) -> None:
    layer = register_parametrization(nn.Linear(8, 8, device="meta"), "weight", MAPS[name]())
    count = Count()
    with count:
        layer.weight = torch.empty(8, 8, device="meta")
    assert count.operations < MOST


def test_a_training_step_on_meta_leaves_the_state_alone() -> None:
    layer = register_parametrization(nn.Linear(8, 8, device="meta"), "weight", SpectralNorm())
    with torch.no_grad():
        chain_of(layer).original.add_(1)
    count = Count()
    with count:
        layer.weight  # noqa: B018
    assert count.operations < 30


def test_a_graph_recorded_on_fake_tensors_iterates() -> None:
    parametrization = SpectralNorm()
    u, v = parametrization.guess(torch.randn(8, 8))

    def refine(X: Tensor) -> tuple[Tensor, Tensor]:
        assert not is_placeholder(X)
        return parametrization.refine(X, u, v)

    X = torch.randn(8, 8)
    recorded = make_fx(refine, tracing_mode="fake", _allow_non_fake_inputs=True)(torch.randn(8, 8))
    for found, expected in zip(recorded(X), refine(X), strict=True):
        torch.testing.assert_close(found, expected)
