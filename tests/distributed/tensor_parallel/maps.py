"""Every map of the library on a weight in two shards, compared with one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard, distribute_module, distribute_tensor
from torch.testing import assert_close

import paramdesc as P
from paramdesc.parametrizations import SpectralNorm
from paramdesc.parametrizations.norms import spectral_norm
from tests.parametrizations.all_cases import CASES
from tests.parametrizations.cases.case import Case

__all__ = ["Host", "find_faults", "find_faults_in_parts", "in_shards", "whole"]

BOUNDS: dict[str, Any] = {"atol": 1e-6, "rtol": 1e-5}
AFTER_A_STEP: dict[str, Any] = {
    "atol": 2e-6,
    "rtol": 1e-4,
}  # of gradients, and what follows from them

Order = Callable[[nn.Module, Callable[[nn.Module], nn.Module], Callable[[nn.Module], Any]], Any]
ORDERS: dict[str, Order] = {
    "register, then distribute": lambda host, register, shard: shard(register(host)),
    "distribute, then register": lambda host, register, shard: register(shard(host)),
}


class Host(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def in_shards(dim: int) -> Callable[[str, nn.Module, Any], None]:
    """What cuts each Parameter of a module along `dim`, as the styles of torch do it."""

    def partition(_: str, module: nn.Module, mesh: Any) -> None:
        for name, x in list(module.named_parameters()):
            shards = distribute_tensor(x, mesh, [Shard(dim)])
            module.register_parameter(name, nn.Parameter(shards, x.requires_grad))

    return partition


def hosts_of(case: Case, dim: int, order: str, mesh: Any) -> tuple[Any, Any]:
    """The map of `case` on a plain weight, and on the same weight in shards."""
    unsafe = case.declared.get("unsafe", False)

    def build() -> tuple[nn.Module, Callable[[nn.Module], nn.Module]]:
        torch.manual_seed(0)
        new, weight = case.make(), case.weight()
        return Host(weight.clone()), lambda host: P.register_parametrization(
            host, "weight", new, unsafe=unsafe
        )

    host, register = build()
    plain = register(host)
    host, register = build()
    sharded = ORDERS[order](
        host, register, lambda host: distribute_module(host, mesh, in_shards(dim))
    )
    return plain, sharded


def check(case: Case, dim: int, order: str, mesh: Any) -> None:
    """Compare values, gradients, a step and assignments."""
    plain, sharded = hosts_of(case, dim, order, mesh)
    value, expected = sharded.weight, plain.weight
    assert isinstance(value, DTensor)
    assert value.placements == (Shard(dim),)
    assert_close(whole(value), expected, **BOUNDS)
    torch.manual_seed(1)
    target = torch.randn_like(expected)
    expected_loss: Any = loss_of(expected, target)
    expected_loss.backward()
    loss: Any = loss_of(value, distribute_tensor(target, mesh, value.placements))
    loss.full_tensor().backward()
    for (name, x), (other, y) in zip(
        plain.named_parameters(), sharded.named_parameters(), strict=True
    ):
        assert name == other
        zero = torch.zeros_like(x)
        gradients = [zero if p.grad is None else whole(p.grad) for p in (x, y)]
        assert_close(gradients[1], gradients[0], **AFTER_A_STEP)
    for host in (plain, sharded):
        with torch.no_grad():
            for x in host.parameters():
                if x.grad is not None:
                    x.sub_(0.01 * x.grad)
    assert_close(whole(sharded.weight), plain.weight, **AFTER_A_STEP)
    check_assigning(plain, sharded)


def loss_of(value: Tensor, target: Tensor) -> Tensor:
    return (value * target).sum().abs() + (value.abs() ** 3).sum()


def check_assigning(plain: Any, sharded: Any) -> None:
    new = plain.weight.detach()
    assert refusal(plain, new) == refusal(sharded, new)
    assert_close(whole(sharded.weight), plain.weight, **AFTER_A_STEP)
    assert refusal(sharded, sharded.weight.detach()) == refusal(plain, new)


def refusal(host: Any, value: Tensor) -> type[Exception] | None:
    """Assign, and return the class of the exception that this raises."""
    try:
        host.weight = value
    except Exception as error:
        return type(error)
    return None


def find_faults(mesh: Any) -> dict[str, str]:
    """What is wrong, by case, dimension and order."""
    faults = {}
    for number, (name, case) in enumerate(CASES.items()):
        for dim in (0, 1):
            # both orders for each dimension, not for each case
            order = list(ORDERS)[(number + dim) % 2]
            if case.weight().ndim > dim:
                faults.update(fault_of(name, case, dim, order, mesh))
    return faults


def fault_of(name: str, case: Case, dim: int, order: str, mesh: Any) -> dict[str, str]:
    try:
        check(case, dim, order, mesh)
    except Exception as error:
        return {f"{name}, dimension {dim}, {order}": repr(error)}
    return {}


def find_faults_in_parts(mesh: Any) -> dict[str, str]:
    """What is wrong with spectral norms that are not gathered."""
    cases = {name: case for name, case in CASES.items() if type(case.make()) is SpectralNorm}
    cases["an empty part"] = Case(lambda: SpectralNorm(), 1, 5)
    cases["half precision"] = Case(
        lambda: SpectralNorm(), weight=lambda: torch.randn(6, 4, dtype=torch.bfloat16)
    )
    gathers_below = spectral_norm.LEAST_IN_PARTS
    spectral_norm.LEAST_IN_PARTS = 0
    faults = {}
    for name, case in cases.items():
        for dim in range(case.weight().ndim):
            for order in ORDERS:
                faults.update(fault_of(name, case, dim, order, mesh))
    spectral_norm.LEAST_IN_PARTS = gathers_below
    return faults
