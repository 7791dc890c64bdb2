"""What `parallelize_module` gives with both engines, for the table of the guide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.utils import parametrizations as torch_maps
from torch.nn.utils import parametrize as torch_engine

import paramdesc as P
from paramdesc import parametrizations as maps
from tests.distributed.table import ENGINES, Rows

__all__ = ["measure", "work"]


class Symmetric(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X.triu() + X.triu(1).mT


def symmetric(layer: nn.Module) -> Any:
    return torch_engine.register_parametrization(layer, "weight", Symmetric())


def with_map(new: Callable[[], nn.Module]) -> Callable[[nn.Module], Any]:
    return lambda layer: P.register_parametrization(layer, "weight", new())


PAIRS: dict[str, dict[str, Callable[[nn.Module], Any]]] = {
    "`orthogonal`": {"torch": torch_maps.orthogonal, "paramdesc": maps.orthogonal},
    "`spectral_norm`": {"torch": torch_maps.spectral_norm, "paramdesc": maps.spectral_norm},
    "`weight_norm`": {"torch": torch_maps.weight_norm, "paramdesc": maps.weight_norm},
    "`Symmetric`": {"torch": symmetric, "paramdesc": with_map(maps.Symmetric)},
    "`lora`": {"paramdesc": lambda layer: maps.lora(layer, rank=2)},
    "`PositiveDefinite`": {"paramdesc": with_map(maps.PositiveDefinite)},
}


def model_of() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))


def outcome(put: Callable[[nn.Module], Any], registers_first: bool, mesh: Any) -> str:
    """The gradients of the inputs and all Parameters, compared with those of one process."""

    def register(model: Any) -> None:
        for place in (0, 2):
            put(model[place])

    plain, model = model_of(), model_of()
    register(plain)
    try:
        if registers_first:
            register(model)
        parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
        if not registers_first:
            register(model)
        found, expected = results_of(model), results_of(plain)
    except Exception:
        return "error"
    is_equal = all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))
    return "equal to one process" if is_equal else "other numbers"


def results_of(model: Any) -> list[Tensor]:
    inputs = torch.ones(4, 8, requires_grad=True)
    loss = model(inputs).square().mean()
    loss.backward()
    gradients = [x.grad for x in (inputs, *model.parameters()) if x.grad is not None]
    return [loss.detach(), *(x.full_tensor() if isinstance(x, DTensor) else x for x in gradients)]


def measure(mesh: Any) -> Rows:
    """The rows of the table."""
    rows: Rows = {}
    for first, title in (
        (True, "{}, then `parallelize_module`"),
        (False, "`parallelize_module`, then {}"),
    ):
        for name, puts in PAIRS.items():
            rows[title.format(name)] = {
                engine: outcome(puts[engine], first, mesh) if engine in puts else "-"
                for engine in ENGINES
            }
    return rows


def work(rank: int) -> Rows:
    return measure(init_device_mesh("cpu", (2,)))
