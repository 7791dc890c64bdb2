"""Base points that follow the training in several processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Adam, Optimizer

from paramdesc import register_parametrization
from paramdesc.parametrizations import AlmostOrthogonal, Orthogonal
from tests.processes import results_of

STEPS = 11


def model_of(rebase: int | None) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Tanh(), nn.Linear(5, 3, bias=False))
    model.double()
    register_parametrization(model[0], "weight", Orthogonal(rebase=rebase))
    register_parametrization(model[2], "weight", AlmostOrthogonal(0.3, rebase=rebase))
    return model


def adam(model: Any) -> Optimizer:
    return Adam(model.parameters(), lr=0.05)


def zero(model: Any) -> Optimizer:
    from torch.distributed.optim import ZeroRedundancyOptimizer  # it warns of TorchScript

    return ZeroRedundancyOptimizer(model.parameters(), optimizer_class=Adam, lr=0.05)


def replicated(model: nn.Module) -> nn.Module:
    return DistributedDataParallel(model)


def sharded(model: Any) -> nn.Module:
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    for part in (model[0], model[2], model):
        fully_shard(part, mesh=mesh)
    return model  # type: ignore[no-any-return]


def flattened(model: nn.Module) -> nn.Module:
    return FullyShardedDataParallel(model, device_id=torch.device("cpu"), use_orig_params=True)


WAYS: dict[str, Any] = {
    "DDP": (replicated, adam),
    "DDP, ZeRO": (replicated, zero),
    "FSDP2": (sharded, adam),
    "FSDP1": (flattened, adam),
}


def train(model: Any, optimizer: Optimizer, part: slice) -> Tensor:
    """The output of the trained model, for the same inputs on all ranks."""
    inputs = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    goals = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss: Any = nn.functional.mse_loss(model(inputs[part]), goals[part])
        loss.backward()
        optimizer.step()
    output: Tensor = model(inputs).detach()
    return output


def trained(rank: int, ways: list[str]) -> dict[str, Any]:
    """For each way: the output, the base points, and how often they moved."""
    found = {}
    for name in ways:
        wrap, optimize = WAYS[name]
        model = model_of(3)
        wrapped = wrap(model)
        versions = [x._version for x in model.buffers()]
        output = train(wrapped, optimize(wrapped), slice(rank, None, 2))
        moves = [x._version - old for x, old in zip(model.buffers(), versions, strict=True)]
        found[name] = output, [x.clone() for x in model.buffers()], moves
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return results_of(trained, list(WAYS), folder=tmp_path_factory.mktemp("group"))


@pytest.mark.parametrize("name", WAYS)
def test_all_ranks_agree_with_one_process(found: list[Any], name: str) -> None:
    model = model_of(None if name == "FSDP1" else 3)
    expected = train(model, adam(model), slice(None))
    for output, bases, _ in (results[name] for results in found):
        torch.testing.assert_close(output, expected, rtol=0, atol=1e-10)
        for base, other in zip(bases, model.buffers(), strict=True):
            torch.testing.assert_close(base, other, rtol=0, atol=1e-10)
    for base, other in zip(found[0][name][1], found[1][name][1], strict=True):
        assert torch.equal(base, other)


def test_flattened_originals_are_left_alone(found: list[Any]) -> None:
    assert [moves for *_, moves in (results["FSDP1"] for results in found)] == [[0, 0]] * 2


def locally(rank: int) -> Any:
    from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
    from torch.distributed.optim import PostLocalSGDOptimizer  # it warns of TorchScript

    model = model_of(2)
    averager = PeriodicModelAverager(period=4, warmup_steps=0)
    optimizer = PostLocalSGDOptimizer(adam(model), averager)
    versions = [x._version for x in model.buffers()]
    with pytest.warns(UserWarning, match="PostLocalSGDOptimizer keeps a copy"):
        train(model, optimizer, slice(rank, None, 2))
    return [x._version for x in model.buffers()] == versions


def test_local_sgd_does_not_move(tmp_path: Path) -> None:
    assert results_of(locally, folder=tmp_path) == [True, True]
