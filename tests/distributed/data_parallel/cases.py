"""What one of four processes does: every case of the tests, in the same order in all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrizations as torch_maps
from torch.utils.checkpoint import checkpoint

import paramdesc as P
from paramdesc import parametrizations as our_maps
from paramdesc.caching import together
from paramdesc.parametrizations import orthogonal, spectral_norm
from tests.caching.deferred.comparing import default_dtype
from tests.distributed.data_parallel.apart import divided_apart
from tests.distributed.data_parallel.models import MAKERS, distance, scope_of, train
from tests.helpers import Double, chain_of, original_of

COUNT = 4
REPLICATED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "DDP": ({}, ("none", "cached", "auto", "deferred")),
    "DDP, `static_graph=True`": ({"static_graph": True}, ("none", "cached", "deferred")),
    "DDP, `find_unused_parameters=True`": (
        {"find_unused_parameters": True},
        ("none", "cached", "deferred"),
    ),
}
FEW = ("none", "deferred")
SHARDED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "FSDP2": ({}, ("none", "cached", "auto", "batched", "deferred")),
    "FSDP2, `reshard_after_forward=False`": ({"reshard_after_forward": False}, FEW),
    "FSDP2, `reshard_after_forward=2`": (
        {"reshard_after_forward": 2},
        ("none", "cached", "deferred"),
    ),
    "FSDP2, `set_requires_gradient_sync(False)`": ({}, FEW),
    "FSDP2, CPU offload": ({"offload_policy": CPUOffloadPolicy(pin_memory=False)}, FEW),
    "FSDP2, bfloat16 mixed precision": ({"mp_policy": MixedPrecisionPolicy(torch.bfloat16)}, FEW),
    "FSDP2, hybrid sharding, 2 x 2": ({}, FEW),
    "FSDP2, initialized on meta": ({}, FEW),
    "FSDP2, activation checkpointing": ({}, ("none", "cached", "deferred")),
}
AGAIN = "FSDP2, called twice before the backward pass"
LATE = "`fully_shard` before registering"
LATE_AND_SEVERAL = "`fully_shard` before registering on several originals"
DIVIDED = "DDP, `process_group=` of {} processes"


def outcome(work: Callable[..., Any], *args: Any) -> Any:
    """The result, or the message of an exception. All processes get the same one."""
    try:
        return work(*args)
    except Exception as error:  # a refusal is an outcome
        return f"{type(error).__name__}: {error}"


def replicate(rank: int, engine: str, title: str, kind: str) -> tuple[float, Any]:
    options, _ = REPLICATED[title]
    expected, model = MAKERS[engine](), MAKERS[engine]()
    train(expected)
    parallel = DistributedDataParallel(model, **options)
    is_plain = not options

    def around(is_last: bool) -> Any:
        return nullcontext() if is_last or not is_plain else parallel.no_sync()

    counts = train(parallel, scope_of(parallel, kind), rank, COUNT, around)
    return distance(model, expected), counts


def checkpoint_activations(layer: Any) -> None:
    """Let the layer compute its outputs again in the backward pass."""
    own = layer.forward
    layer.forward = lambda x: checkpoint(own, x, use_reentrant=False)


def shard(model: nn.Sequential, mesh: Any, **options: Any) -> None:
    for part in (model[0], model[2], model[4], model):
        fully_shard(part, mesh=mesh, **options)


def sharded(rank: int, engine: str, title: str, kind: str) -> tuple[float, Any]:
    expected: Any = MAKERS[engine]()
    model: Any = MAKERS[engine]()
    values = {name: value.clone() for name, value in model.state_dict().items()}
    train(expected)
    mesh = MESHES["2 x 2" if "2 x 2" in title else "4"]
    is_late = "meta" in title
    if is_late:
        model.to("meta")
    if "checkpointing" in title:
        for layer in (model[0], model[2], model[4]):
            checkpoint_activations(layer)
    shard(model, mesh, **SHARDED[title][0])
    if is_late:
        model.to_empty(device="cpu")
        whole = StateDictOptions(full_state_dict=True)
        set_model_state_dict(model, values, options=whole)
    parallel: Any = model

    @contextmanager
    def around(is_last: bool) -> Iterator[None]:
        if "sync" in title:
            parallel.set_requires_gradient_sync(is_last)
        yield

    counts = train(model, scope_of(model, kind), rank, COUNT, around)
    return distance(model, expected), counts


MESHES: dict[str, Any] = {}


def serving(rank: int) -> dict[str, int]:
    """How many weights of three `auto_cache` evaluates in evaluation."""
    model: Any = MAKERS["paramdesc"]().eval()
    shard(model, MESHES["4"])
    scope, inputs, found = P.auto_cache(model), torch.ones(1, 8), dict[str, int]()

    def serve(title: str) -> None:
        before = scope.misses
        output = [model(inputs) for _ in range(3)][-1]
        found[title] = scope.misses - before
        whole = MAKERS["paramdesc"]().eval()
        values = model.state_dict()
        whole.load_state_dict({name: value_of(value) for name, value in values.items()})
        torch.testing.assert_close(output, whole(inputs))

    with torch.no_grad():
        serve("at first")
        serve("unchanged")
        for parameter in model.parameters():
            parameter.mul_(1.5)
        serve("all shards written to")
        if rank == 3:
            original: Any = chain_of(model[2]).original1
            original.to_local().mul_(0.5)
        serve("a shard of one rank written to")
    return found


def value_of(tensor: Any) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # type: ignore[no-any-return]


def written_gathered(rank: int) -> list[float]:
    """What a layer has after its gathered original was written to, and after the shard of a rank.

    The first write is lost when the original is gathered again.
    """
    torch.manual_seed(0)
    layer: Any = P.register_parametrization(nn.Linear(8, 8), "weight", Double())
    fully_shard(layer, mesh=MESHES["4"])
    found = []
    with P.cached(layer), torch.no_grad():
        for number in range(4):
            if number == 3 and rank == 3:
                original: Any = original_of(layer)
                original.to_local().add_(10)
            layer.unshard()
            if number == 1:
                original_of(layer).zero_()
            found.append(layer.weight.abs().sum().item())
            layer.reshard()
    return found


def early(rank: int) -> list[str]:
    """What comes before the gradients have reached the shards."""
    model: Any = MAKERS["paramdesc"]()
    shard(model, MESHES["4"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    clip = nn.utils.clip_grad_norm_
    found = []
    for call in (optimizer.step, optimizer.zero_grad, lambda: clip(model.parameters(), 1.0)):
        with P.cached(model, deferred=True) as scope:
            model(torch.ones(2, 8)).sum().backward()
            found.append(str(outcome(call)))
            scope.backward()
            assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.zero_grad()
    return found


def warm(rank: int) -> list[Tensor]:
    """The buffers of warm starts after 100 steps."""
    torch.manual_seed(0)
    model = nn.Sequential(spectral_norm(nn.Linear(8, 8)), nn.Tanh(), spectral_norm(nn.Linear(8, 8)))
    parallel = DistributedDataParallel(model)
    train(
        parallel,
        lambda: P.cached(parallel, deferred=True),
        rank,
        COUNT,
        steps=50,
        around=lambda is_last: nullcontext() if is_last else parallel.no_sync(),
    )
    train(parallel, nullcontext, rank, COUNT, steps=50)
    return [buffer.clone() for buffer in model.buffers()]


def overlap(rank: int, kind: str) -> list[str]:
    """In which order gradients arrive and buckets are sent."""
    model = MAKERS["paramdesc"]()
    parallel: Any = DistributedDataParallel(model, bucket_cap_mb=1e-5)
    log: list[str] = []
    untyped: Any = distributed

    def send(state: Any, bucket: Any) -> Any:
        log.append("sent")
        work = untyped.all_reduce(bucket.buffer() / COUNT, async_op=True)
        return work.get_future().then(lambda done: done.value()[0])

    send.__annotations__.clear()  # torch compares them, and these are strings
    parallel.register_comm_hook(None, send)
    for parameter in model.parameters():
        hooked: Any = parameter
        hooked.register_hook(lambda gradient: log.append("arrived"))
    for _ in range(2):  # buckets get their last form in the first pass
        log.clear()
        with scope_of(parallel, kind)():
            parallel(torch.ones(2, 8)).sum().backward()
    return log


def called_twice(rank: int, engine: str, kind: str) -> tuple[float, Any]:
    """A model that is called on its own output: the distance of its gradients to one process."""
    expected, model = MAKERS[engine]().eval(), MAKERS[engine]().eval()
    inputs = torch.randn(8, 8, generator=torch.Generator().manual_seed(5))
    shard(model, MESHES["4"])  # type: ignore[arg-type]
    counts = []
    with scope_of(model, kind)() as scope:
        part = inputs.chunk(COUNT)[rank]
        model(model(part)).square().mean().backward()
        if scope is not None:
            counts.append((scope.misses, scope.hits))
    expected(expected(inputs)).square().mean().backward()
    pairs = zip(model.parameters(), expected.parameters(), strict=True)
    return max((value_of(x.grad) - y.grad).abs().max().item() for x, y in pairs), counts  # type: ignore[operator]


def registered_late(rank: int, engine: str, title: str, kind: str) -> tuple[float, Any]:
    """Training, where the parametrizations came after `fully_shard`."""
    maps: Any = {"torch": torch_maps, "paramdesc": our_maps}[engine]
    expected, model = plain(), plain()
    shard(model, MESHES["4"])
    for layers in (expected, model):
        maps.orthogonal(layers[0])
        maps.spectral_norm(layers[4])
        if title == LATE_AND_SEVERAL:
            maps.weight_norm(layers[2])
    train(expected)
    counts = train(model, scope_of(model, kind), rank, COUNT)
    return distance(model, expected), counts


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    linears = [nn.Linear(8, 8) for _ in range(3)]
    return nn.Sequential(linears[0], nn.Tanh(), linears[1], nn.Tanh(), linears[2])


def assigned(rank: int) -> list[float]:
    """The differences of outputs after values were given to weights that were gathered before.

    They are assigned, loaded from a plain checkpoint, and initialized.
    """
    inputs = torch.randn(4, 8, generator=torch.Generator().manual_seed(2))
    model: Any = MAKERS["paramdesc"]()
    whole: Any = MAKERS["paramdesc"]()
    shard(model, MESHES["4"])
    numbers = [torch.eye(8), torch.eye(8).flip(0)]

    def assign(layers: Any) -> None:
        for layer in layers[::2]:
            layer.weight = numbers[0]

    def load(layers: Any) -> None:
        biases = {f"{i}.bias": layers[i].bias.detach() for i in (0, 2, 4)}  # of the same kind
        layers.load_state_dict({**biases, **{f"{i}.weight": numbers[1] for i in (0, 2, 4)}})

    def initialize(layers: Any) -> None:
        for layer in layers[2::2]:
            nn.init.ones_(layer.weight)

    found = []
    for write in (assign, load, initialize):
        for layers in (model, whole):
            layers(inputs).sum().backward()
            write(layers)
        found.append((model(inputs) - whole(inputs)).abs().max().item())
    return [*found, assigned_between()]


def assigned_between() -> float:
    """The difference after an assignment while parameters have the shards of the backward pass."""
    inputs = torch.randn(4, 8, generator=torch.Generator().manual_seed(2))
    model: Any = MAKERS["paramdesc"]()
    whole: Any = MAKERS["paramdesc"]()
    shard(model, MESHES["4"], reshard_after_forward=2)
    for layers in (model, whole):
        layers(inputs)
        for layer in layers[::2]:
            layer.weight = torch.eye(8)
    model(inputs).sum().backward()  # shards as before the forward pass
    return (model(inputs) - whole(inputs)).abs().max().item()  # type: ignore[no-any-return]


def twelve() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(orthogonal(nn.Linear(8, 8)) for _ in range(12)))


def divided(rank: int, size: int, case: str) -> dict[str, Any]:
    """Twelve orthogonal weights, whose evaluation groups of `size` processes divide."""

    expected, model = twelve(), twelve()
    train(expected)
    parallel = DistributedDataParallel(model)
    group = GROUPS[size][rank // size]
    layers: list[Any] = list(model)
    with counted() as evaluated:
        counts = train(
            parallel,
            lambda: P.cached(
                parallel, batched=True, process_group=group, deferred=case == "deferred"
            ),
            rank,
            COUNT,
            lambda is_last: nullcontext() if is_last else parallel.no_sync(),
        )
    with P.cached(model, batched=True, process_group=group), torch.no_grad():
        last = [layer.weight.clone() for layer in layers]
    torch.testing.assert_close(last, [layer.weight for layer in layers])
    parameters = [parameter.detach().clone() for parameter in model.parameters()]
    return {
        "distance": distance(model, expected),
        "evaluated": sum(evaluated),
        "counts": counts,
        "parameters": parameters,
    }


@contextmanager
def counted() -> Iterator[list[int]]:
    """How many chains are evaluated in this process."""
    numbers: list[int] = []
    untyped: Any = together
    alone, batch = untyped.evaluate_plainly, untyped.evaluate_batch

    def count_one(*args: Any) -> Any:
        numbers.append(1)
        return alone(*args)

    def count_batch(maps: Any, members: Any, *args: Any) -> Any:
        numbers.append(len(members))
        return batch(maps, members, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "evaluate_plainly", count_one)
        patch.setattr(together, "evaluate_batch", count_batch)
        yield numbers


def divided_badly(rank: int) -> list[str]:
    """Processes that do not read the same tensors, and an evaluation that fails in one of them."""
    model = nn.Sequential(*(orthogonal(nn.Linear(4, 4)) for _ in range(4)))
    group = GROUPS[2][rank // 2]

    def read(targets: nn.Module) -> str:
        with P.cached(targets, batched=True, process_group=group):
            weight: Any = model[0].weight
            return str(tuple(weight.shape))

    found = [outcome(lambda: read(model[:3] if rank == 0 else model))]

    def fail(*args: Any) -> Any:
        raise ArithmeticError("in one process")

    with pytest.MonkeyPatch.context() as patch:
        if rank == 1:
            patch.setattr(together, "evaluate_plainly", fail)
        found.append(outcome(lambda: read(model)))
    return found


GROUPS: dict[int, list[Any]] = {}


def work(rank: int) -> dict[str, Any]:
    """Everything, in one process."""
    MESHES["4"] = init_device_mesh("cpu", (COUNT,))
    MESHES["2 x 2"] = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicated", "sharded"))
    untyped: Any = distributed
    GROUPS[2] = [untyped.new_group([0, 1]), untyped.new_group([2, 3])]
    GROUPS[4] = [untyped.new_group(range(COUNT))]
    found: dict[Any, Any] = {}
    both: dict[str, Any] = {
        **dict.fromkeys(REPLICATED, replicate),
        **dict.fromkeys(SHARDED, sharded),
    }
    for title, run in both.items():
        _, kinds = {**REPLICATED, **SHARDED}[title]
        for engine, kind in (("torch", "none"), *(("paramdesc", kind) for kind in kinds)):
            found[title, engine, kind] = outcome(run, rank, engine, title, kind)
    for engine, kind in (("torch", "none"), ("paramdesc", "none"), ("paramdesc", "cached")):
        found[AGAIN, engine, kind] = outcome(called_twice, rank, engine, kind)
    for title, kinds in {LATE: ("none", "cached", "deferred"), LATE_AND_SEVERAL: ("none",)}.items():
        for engine, kind in (("torch", "none"), *(("paramdesc", kind) for kind in kinds)):
            found[title, engine, kind] = outcome(registered_late, rank, engine, title, kind)
    for work_of in (serving, assigned, written_gathered, early, warm, divided_badly):
        found[work_of.__name__] = outcome(work_of, rank)
    found["divided_apart"] = divided_apart(rank, GROUPS[2][rank // 2])
    for kind in ("none", "cached"):
        found["overlap", kind] = outcome(overlap, rank, kind)
    with default_dtype(torch.float64):
        for size in GROUPS:
            for case in ("cached", "deferred"):
                found["divided", size, case] = outcome(divided, rank, size, case)
    return found
