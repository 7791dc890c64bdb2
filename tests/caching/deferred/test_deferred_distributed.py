"""Deferred gradients in several processes, and sharded models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import paramdesc as P
from paramdesc.caching import gathered
from paramdesc.errors import DeferredGradientError
from tests.caching.deferred.comparing import assert_close, default_dtype
from tests.caching.deferred.loops import accumulate, backward, batches, loss_of
from tests.caching.deferred.models import nested, originals, tied, two_layers
from tests.processes import results_of

REPLICATED: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "two layers": (two_layers, {}),
    "nested": (nested, {}),
    "views": (two_layers, {"gradient_as_bucket_view": True}),
    "one original of two layers": (tied, {}),
    "many buckets": (two_layers, {"bucket_cap_mb": 1e-5}),
}

LOOKING: dict[str, dict[str, Any]] = {
    "unused": {"find_unused_parameters": True},
    "static": {"static_graph": True},
}


def replicated_gradients(rank: int, deferred: bool, case: str) -> list[Tensor]:
    """Two steps of four micro-batches each, of which only the last one is synchronized."""
    make, options = REPLICATED[case]
    torch.manual_seed(0)
    model = DistributedDataParallel(make(), **options)
    for _ in range(2):
        with P.cached(model, deferred=True) if deferred else nullcontext():
            for number, batch in enumerate(batches(8)[rank::2]):
                with model.no_sync() if number < 3 else nullcontext():
                    backward(loss_of(model(batch)))
    return [torch.zeros(()) if x.grad is None else x.grad.clone() for x in model.parameters()]


def refusal(rank: int, options: dict[str, Any]) -> str:
    model = DistributedDataParallel(two_layers(), **options)
    try:
        with P.cached(model, deferred=True):
            backward(loss_of(model(batches()[rank])))
    except DeferredGradientError as error:
        return str(error)
    return "nothing was refused"


def work(rank: int, cases: list[str]) -> dict[str, Any]:
    """What one of two processes finds: the gradients of all cases."""
    with default_dtype(torch.float64):
        found: dict[str, Any] = {
            case: [replicated_gradients(rank, deferred, case) for deferred in (False, True)]
            for case in cases
        }
        found["refusals"] = {name: refusal(rank, options) for name, options in LOOKING.items()}
    return found


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return results_of(work, list(REPLICATED), folder=tmp_path_factory.mktemp("group"))


@pytest.mark.parametrize("case", REPLICATED)
def test_replicas_get_the_gradients_without_deferral(
    group: list[dict[str, Any]], case: str
) -> None:
    for rank in range(2):
        expected, actual = group[rank][case]
        for mine, theirs, other in zip(actual, expected, group[1 - rank][case][1], strict=True):
            assert theirs.abs().max() > 0
            assert_close(mine, theirs)
            assert torch.equal(mine, other)


@pytest.mark.parametrize("name", LOOKING)
def test_replicas_that_look_for_unused_parameters_are_refused(
    group: list[dict[str, Any]], name: str
) -> None:
    for found in group:
        message = found["refusals"][name]
        assert "'module.0.weight'" in message
        assert "Write DistributedDataParallel(model) without them" in message


@contextmanager
def group_of_one() -> Iterator[Any]:
    untyped: Any = distributed  # its stub does not know HashStore
    untyped.init_process_group("gloo", store=untyped.HashStore(), rank=0, world_size=1)
    try:
        yield init_device_mesh("cpu", (1,))
    finally:
        untyped.destroy_process_group()


@pytest.mark.parametrize("reshard", [True, False])
def test_a_sharded_model_gets_the_gradients_without_deferral(reshard: bool) -> None:
    with group_of_one() as mesh:
        found = []
        for deferred in (True, False):
            torch.manual_seed(0)
            model = two_layers()
            for part in (model[0], model[2], model):  # type: ignore[index]
                fully_shard(part, mesh=mesh, reshard_after_forward=reshard)
            with P.cached(model, deferred=deferred):
                accumulate(model)
            found.append([full(original.grad) for original in originals(model)])
        torch.testing.assert_close(*found)


def full(gradient: Any) -> Tensor:
    return gradient.full_tensor()  # type: ignore[no-any-return]


def test_a_failure_leaves_the_gradients_of_a_sharded_model() -> None:
    class Failing(torch.autograd.Function):
        @staticmethod
        def forward(_ctx: Any, tensor: Tensor) -> Tensor:
            return 2 * tensor

        @staticmethod
        def backward(_ctx: Any, *_gradients: Tensor) -> Any:
            raise ArithmeticError("in the backward pass")

    class Fails(nn.Module):
        def forward(self, tensor: Tensor) -> Tensor:
            return Failing.apply(tensor)  # type: ignore[no-any-return,no-untyped-call]

    with group_of_one() as mesh:
        model = two_layers()
        P.register_parametrization(model[0], "weight", Fails())  # type: ignore[index]
        for part in (model[0], model[2], model):  # type: ignore[index]
            fully_shard(part, mesh=mesh)
        for _ in range(2):
            with pytest.raises(ArithmeticError), P.cached(model, deferred=True):
                accumulate(model)
            assert all(original.grad is None for original in originals(model))


def test_a_sharded_original_without_what_fsdp_knows_of_it_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As with a version of torch that keeps it in another way."""
    message = r"'0\.weight' are sharded again.*Write cached\(\.\.\.\) without deferred=True"
    monkeypatch.setattr(gathered, "find_gathering", lambda module, name: None)
    with group_of_one() as mesh:
        model = two_layers()
        for part in (model[0], model[2], model):  # type: ignore[index]
            fully_shard(part, mesh=mesh)
        with pytest.raises(DeferredGradientError, match=message), P.cached(model, deferred=True):
            accumulate(model)
        assert all(original.grad is None for original in originals(model))
