"""How much memory a read with its backward pass takes, next to torch."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations as torchs

import paramdesc as P
from paramdesc.parametrizations import Orthogonal, SpectralNorm
from tests.gpu.device import DEVICE, cuda_only

pytestmark = cuda_only

SIZE = 1024
MATRIX = 4 * SIZE * SIZE
Make = Callable[[nn.Module], object]


def ours(make: Callable[[], nn.Module]) -> Make:
    return lambda module: P.register_parametrization(module, "weight", make())


CASES: dict[str, tuple[Make, Make]] = {
    "cayley": (
        ours(lambda: Orthogonal("cayley")),
        lambda module: torchs.orthogonal(module, orthogonal_map="cayley"),
    ),
    "matrix_exp": (
        ours(lambda: Orthogonal("matrix_exp")),
        lambda module: torchs.orthogonal(module, orthogonal_map="matrix_exp"),
    ),
    "spectral norm": (ours(SpectralNorm), torchs.spectral_norm),
}


def peak(make: Make) -> int:
    """The peak over one read and its backward pass, without the parameters and gradients."""
    layer: Any = nn.Linear(SIZE, SIZE, bias=False, device=DEVICE)
    make(layer)
    gradient = torch.randn(SIZE, SIZE, device=DEVICE)
    for _ in range(2):
        layer.weight.backward(gradient)
    gc.collect()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    layer.weight.backward(gradient)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("name", CASES)
def test_no_more_than_torch(name: str) -> None:
    mine, torchs_own = CASES[name]
    assert peak(mine) <= peak(torchs_own) + MATRIX


def test_the_end_of_a_scope_frees_the_values() -> None:
    layer: Any = nn.Linear(SIZE, SIZE, bias=False, device=DEVICE)
    P.register_parametrization(layer, "weight", Orthogonal("cayley"))
    with torch.no_grad(), P.cached(layer):
        layer.weight  # noqa: B018
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    with torch.no_grad(), P.cached(layer):
        layer.weight  # noqa: B018
        assert torch.cuda.memory_allocated() >= before + MATRIX
    assert torch.cuda.memory_allocated() == before
