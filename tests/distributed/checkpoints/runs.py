"""Runs that are saved by torch.distributed.checkpoint on some processes, and resumed on others."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as typed_distributed
from torch.distributed import checkpoint as typed_checkpoint
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_module
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.testing import assert_close

import paramdesc as P
from paramdesc.parametrizations import Positive, orthogonal, weight_norm
from tests.distributed.tensor_parallel.maps import Host, in_shards, whole
from tests.parametrizations.all_cases import CASES

__all__ = ["KINDS", "PLAIN_KINDS", "STATES", "resumed", "saved", "with_plain"]

checkpoint: Any = typed_checkpoint
distributed: Any = typed_distributed

STATES = [
    *("orthogonal, wide", "householder, wide", "torch's cayley, tall", "grassmann, tall"),
    *("weight norm", "low rank, tall", "fixed rank, tall", "lora", "frozen", "scaled rows"),
    *("flattened", "spectral norm", "spectral norm, transposed", "convolution norm"),
]
"""Cases of maps that have tensors besides one original."""


class Loss(Host):
    def forward(self) -> Tensor:
        return (self.weight - 0.3).square().sum()


def model_of(seed: int) -> nn.Sequential:
    """A module for each case, with other numbers for each seed."""
    hosts = []
    for name in STATES:
        torch.manual_seed(seed)
        new, weight = CASES[name].make(), CASES[name].weight()
        unsafe = CASES[name].declared.get("unsafe", False)
        hosts.append(P.register_parametrization(Loss(weight), "weight", new, unsafe=unsafe))
    return nn.Sequential(*hosts)


def fully_sharded(model: Any, mesh: Any) -> Any:
    for layer in model:
        if next(layer.parameters(), None) is not None:
            fully_shard(layer, mesh=mesh)
    return model


def in_rows(model: Any, mesh: Any) -> Any:
    for layer in model:
        distribute_module(layer, mesh, in_shards(0))
    return model


KINDS: dict[str, Callable[[Any, Any], Any]] = {"fully_shard": fully_sharded, "rows": in_rows}


class Run:
    """A model with its optimizer."""

    def __init__(self, kind: str, seed: int) -> None:
        mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
        self.model = KINDS[kind](model_of(seed), mesh)
        self.optimizer = torch.optim.Adam(
            [x for x in self.model.parameters() if x.requires_grad], lr=0.01
        )

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.optimizer.zero_grad()
            for layer in self.model:
                loss: Any = whole(layer())
                loss.backward()
            self.optimizer.step()

    def numbers(self) -> dict[str, Tensor]:
        """The state_dict, and the values."""
        states = {name: whole(x).clone() for name, x in self.model.state_dict().items()}
        values = {
            case: whole(layer.weight).detach().clone()
            for case, layer in zip(STATES, self.model, strict=True)
        }
        return {**states, **values}

    def state(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer}


def saved(folder: str, kind: str) -> list[dict[str, Tensor]]:
    """Train, save, and train on: the numbers then, and at the end."""
    run = Run(kind, seed=0)
    run.train(3)
    checkpoint.save(run.state(), checkpoint_id=f"{folder}/{kind}")
    then = run.numbers()
    run.train(2)
    return [then, run.numbers()]


def resumed(folder: str, kind: str) -> list[dict[str, Tensor]]:
    """Load into another model, and train on."""
    run = Run(kind, seed=1)
    state = run.state()
    checkpoint.load(state, checkpoint_id=f"{folder}/{kind}")
    set_state_dict(
        run.model,
        run.optimizer,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
    )
    then = run.numbers()
    run.train(2)
    return [then, run.numbers()]


def plain_model(seed: int) -> Any:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 8))


def parametrized(model: Any) -> Any:
    weight_norm(model[0])
    P.register_parametrization(model[0], "bias", Positive())
    orthogonal(model[2])
    return model


def styled(model: Any, mesh: Any) -> Any:
    return parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})


PLAIN_KINDS: dict[str, Callable[[Any, Any], Any]] = {
    "replicated": lambda model, mesh: model,
    "fully_shard": fully_sharded,
    "styles": styled,
}


def with_plain(folder: str, kind: str) -> None:
    """A checkpoint of a plain model is loaded into a parametrized one, and the other way round."""
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    wrap = PLAIN_KINDS[kind]
    inputs = torch.randn(4, 8, generator=torch.Generator().manual_seed(5))
    source = parametrized(plain_model(3))
    expected = source(inputs).detach()
    P.bake(source)
    there, back = f"{folder}/{kind}, plain", f"{folder}/{kind}, back"
    checkpoint.save({"model": get_model_state_dict(wrap(source, mesh))}, checkpoint_id=there)

    model = wrap(parametrized(plain_model(1)), mesh)
    state: Any = P.plain_state_dict(model)
    checkpoint.load({"model": state}, checkpoint_id=there)
    twin = copy.copy(state)
    model.load_state_dict(state)
    assert_close(model(inputs), expected, atol=1e-5, rtol=1e-5)
    set_model_state_dict(model, twin)
    assert_close(model(inputs), expected, atol=1e-5, rtol=1e-5)

    checkpoint.save({"model": P.plain_state_dict(model)}, checkpoint_id=back)
    for other in PLAIN_KINDS.values():
        plain = other(plain_model(7), mesh)
        state = get_model_state_dict(plain)
        checkpoint.load({"model": state}, checkpoint_id=back)
        set_model_state_dict(plain, state)
        assert_close(plain(inputs), expected, atol=1e-5, rtol=1e-5)
