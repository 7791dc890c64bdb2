"""Models that are trained on two processes by the styles of torch, and on one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import paramdesc as P
from paramdesc.parametrizations import (
    LowRank,
    MaxNorm,
    Orthogonal,
    Positive,
    Scaled,
    SpectralNorm,
    Symmetric,
    WeightNorm,
    lora,
    orthogonal,
    spectral_norm,
    weight_norm,
)
from paramdesc.parametrizations.norms import spectral_norm as spectral_norms
from tests.distributed.tensor_parallel.maps import in_shards, whole

__all__ = [
    "MODELS",
    "SCOPES",
    "TIES",
    "compare",
    "compare_tied",
    "count_messages",
    "largest_messages",
    "others",
]


def on(*maps: Callable[[], nn.Module]) -> Callable[[nn.Module], Any]:
    def put(layer: nn.Module) -> nn.Module:
        for new in maps:
            P.register_parametrization(layer, "weight", new())
        return layer

    return put


MODELS: dict[str, Callable[[nn.Module], Any]] = {
    "orthogonal": orthogonal,
    "Orthogonal that moves its base": on(lambda: Orthogonal(rebase=2)),
    "SpectralNorm": on(SpectralNorm),
    "spectral_norm": spectral_norm,
    "weight_norm": weight_norm,
    "lora": lambda layer: lora(layer, rank=2),
    "LowRank": on(lambda: LowRank(3)),
    "Scaled": on(lambda: Scaled(0)),
    "a chain": on(WeightNorm, SpectralNorm),
}
SCOPES: dict[str, Callable[[nn.Module], Any]] = {
    "none": lambda model: nullcontext(),
    "cached": P.cached,
    "batched": lambda model: P.cached(model, batched=True),
    "deferred": lambda model: P.cached(model, deferred=True),
}
PLANS: dict[str, Callable[[], dict[str, Any]]] = {
    "linear": lambda: {"1": ColwiseParallel(), "3": RowwiseParallel()},
    "embedding": lambda: {
        "0": ColwiseParallel(output_layouts=Replicate()),
        "1": ColwiseParallel(),
        "3": RowwiseParallel(),
    },
    "embedding by rows": lambda: {
        "0": RowwiseParallel(input_layouts=Replicate()),
        "1": ColwiseParallel(),
        "3": RowwiseParallel(),
    },
}


def model_of() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 6))


def parametrized(model: Any, name: str) -> Any:
    for layer in (model[0], model[1], model[3]):
        MODELS[name](layer)
    return model


def train(model: nn.Module, scope: str) -> list[float]:
    optimizer = torch.optim.Adam([x for x in model.parameters() if x.requires_grad], lr=0.05)
    generator = torch.Generator().manual_seed(3)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        with SCOPES[scope](model):
            for _ in range(2):
                batch = torch.randint(10, (4,), generator=generator)
                loss = (model(batch) - 1).square().mean()
                loss.backward()
                losses.append(loss.item())
        optimizer.step()
    return losses


def compare(name: str, plan: str, registers_first: bool, scope: str, mesh: Any) -> None:
    """Train in one process and in all, and compare everything."""
    plain = parametrized(model_of(), name)
    model = model_of()
    if registers_first:
        parametrized(model, name)
        if mesh.get_rank():  # the numbers of the first process count
            with torch.no_grad():
                for x in (*model[1:].parameters(), *model[1:].buffers()):
                    x.add_(1)
    parallelize_module(model, mesh, PLANS[plan]())
    if not registers_first:
        parametrized(model, name)
    losses = torch.tensor(train(model, scope))
    assert_close(losses, torch.tensor(train(plain, scope)), atol=1e-5, rtol=1e-4)
    for (key, x), (other, y) in zip(
        plain.state_dict().items(), model.state_dict().items(), strict=True
    ):
        assert key == other
        assert_close(whole(y), x, atol=1e-4, rtol=1e-3)
    check_afterwards(plain, model)


TIES: dict[str, Callable[[Any], Any]] = {
    "tie_weights": lambda model: P.tie_weights(model, "0.weight", "2.weight"),
    "transfer": lambda model: P.transfer_parametrizations_and_params(model[0], model[2], "weight"),
}


def compare_tied(name: str, tie: str, scope: str, mesh: Any) -> None:
    """Tied weights, of which one is cut in rows and the other one in columns."""
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        model: Any = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
        MODELS[name](model[0])
        TIES[tie](model)
        models.append(model)
    plain, model = models
    parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
    inputs = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    for each in models:
        optimizer = torch.optim.SGD(each.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            with SCOPES[scope](each):
                each(inputs).square().mean().backward()
            optimizer.step()
    assert_close(whole(model[0].weight), whole(model[2].weight))
    assert_close(model(inputs), plain(inputs), atol=1e-5, rtol=1e-4)
    for x, y in zip(model.parameters(), plain.parameters(), strict=True):
        assert_close(whole(x), y, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def check_afterwards(plain: Any, model: Any) -> None:
    """Copies, states, and values in the place of maps."""
    batch = torch.arange(4)
    assert_close(model(batch), plain(batch), atol=1e-4, rtol=1e-4)
    assert torch.equal(copy.deepcopy(model)(batch), model(batch))
    model.load_state_dict(model.state_dict())
    plain.eval()
    model.eval()
    assert_close(model(batch), plain(batch), atol=1e-4, rtol=1e-4)
    P.bake(model)
    assert isinstance(model[1].weight, nn.Parameter)
    assert isinstance(model[1].weight, DTensor)
    assert_close(model(batch), plain(batch), atol=1e-4, rtol=1e-4)


def count_messages(mesh: Any) -> dict[str, list[int]]:
    """How many collectives a read takes, for weights in rows and in columns."""
    maps: dict[str, Callable[[], nn.Module]] = {
        "Positive": Positive,
        "MaxNorm": MaxNorm,
        "WeightNorm": WeightNorm,
        "LowRank": lambda: LowRank(2),
        "Symmetric": Symmetric,
    }
    debugging: Any = CommDebugMode  # its stub has no types
    found = {}
    for name, new in maps.items():
        counts = []
        for style in (ColwiseParallel(), RowwiseParallel()):
            layer = P.register_parametrization(nn.Linear(6, 6), "weight", new())
            parallelize_module(layer, mesh, style)
            with debugging() as messages:
                assert layer.weight.ndim == 2
            counts.append(messages.get_total_counts())
        found[name] = counts
    return found


def largest_messages(mesh: Any) -> dict[str, int]:
    """How many entries the largest message of a training step has, by what is cut."""
    found = {}
    gathers_below = spectral_norms.LEAST_IN_PARTS
    spectral_norms.LEAST_IN_PARTS = 0
    styles = {"rows": ColwiseParallel(), "columns": RowwiseParallel()}
    for name, style in styles.items():
        layer = P.register_parametrization(nn.Linear(24, 40), "weight", SpectralNorm())
        parallelize_module(layer, mesh, style)
        with Sizes() as sizes:
            for _ in range(2):
                value: Any = layer.weight
                value.to_local().sum().backward()
                torch.optim.SGD(layer.parameters(), 0.1).step()
        found[name] = max(sizes.found)
    spectral_norms.LEAST_IN_PARTS = gathers_below
    return found


class Sizes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the sizes of the tensors that are sent."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "c10d" in func.namespace and "wait" not in str(func):
            self.found += [x.numel() for x in tree_leaves(args) if isinstance(x, Tensor)]
        return func(*args, **(kwargs or {}))


def in_rows(name: str, module: nn.Module, mesh: Any) -> None:
    if isinstance(module, nn.Linear):
        in_shards(0)(name, module, mesh)


@torch.no_grad()
def written_without_a_count(mesh: Any) -> bool:
    """A write that torch does not count, and that changes the shard of one process only.

    With samples of its own shards, this process alone would evaluate, and wait for the other one.
    """
    model: Any = nn.Sequential(P.register_parametrization(nn.Linear(4, 4), "weight", Symmetric()))
    original = model[0].parametrizations.weight.original
    original.copy_(torch.arange(16.0).view(4, 4))
    parallelize_module(model, mesh, {"0": ColwiseParallel(output_layouts=Replicate())})
    P.auto_cache(model.eval())
    assert model[0].parametrizations.weight.original.to_local().max() in (7, 15)
    for _ in range(2):
        model(torch.ones(1, 4))
    for parameter in model.parameters():
        parameter.data.clamp_(max=8)  # the first process has no larger entries
    model(torch.ones(1, 4))
    value = torch.arange(16.0).view(4, 4).clamp(max=8)
    return torch.equal(whole(model[0].weight), value.triu() + value.triu(1).T)


def is_compiled(name: str, mesh: Any) -> bool:
    """Whether a compiled model gives what the model gave in one process."""
    gathers_below = spectral_norms.LEAST_IN_PARTS
    spectral_norms.LEAST_IN_PARTS = 0
    model = parametrized(model_of(), name).eval()
    expected = model(torch.arange(4)).detach()
    parallelize_module(model, mesh, PLANS["linear"]())
    compile_it: Any = torch.compile
    compiled: Tensor = compile_it(model, backend="eager")(torch.arange(4))
    spectral_norms.LEAST_IN_PARTS = gathers_below
    return torch.allclose(compiled, expected, atol=1e-5)


def others(mesh: Any) -> dict[str, Any]:
    """What happens where a call fails, on buffers, on the meta device and when compiled."""
    from torch.distributed.tensor import distribute_module

    def fail(name: str, module: nn.Module, mesh: Any) -> None:
        if name == "3":
            raise ValueError("the partition fails")

    found: dict[str, Any] = {}
    model = parametrized(model_of(), "orthogonal")
    keys = list(model.state_dict())
    try:
        distribute_module(model, mesh, fail)
    except ValueError:
        found["after a failure"] = keys == list(model.state_dict()) and P.is_parametrized(
            model[1], "weight"
        )
    norm = P.register_parametrization(nn.BatchNorm1d(4), "running_mean", Positive())
    distribute_module(norm, mesh)
    found["buffer"] = isinstance(norm.running_mean, DTensor) and not norm._parameters.get(
        "running_mean"
    )
    with torch.device("meta"):
        model = parametrized(model_of(), "orthogonal")
    parallelize_module(model, mesh, PLANS["linear"]())
    found["meta"] = model[1].weight.is_meta
    pair: Any = nn.Sequential(orthogonal(nn.Linear(4, 4)), nn.Linear(4, 4))
    P.transfer_parametrizations_and_params(pair[0], pair[1], "weight")
    distribute_module(pair, mesh, in_rows)
    chains = [layer.parametrizations.weight for layer in pair]
    found["shared in one call"] = chains[0].original is chains[1].original
    found["written without a count"] = written_without_a_count(mesh)
    found["compiled"] = all(is_compiled(name, mesh) for name in ("weight_norm", "SpectralNorm"))
    return found
