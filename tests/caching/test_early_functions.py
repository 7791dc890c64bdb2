"""All functions of torch that touch `.grad` are refused while gradients wait."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import (
    clip_grad_norm,
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)

from paramdesc import cached
from paramdesc.errors import DeferredGradientError
from tests.helpers import linear

CALLS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "optimizer.zero_grad": lambda layer, optimizer, scaler: optimizer.zero_grad(),
    "layer.zero_grad": lambda layer, optimizer, scaler: layer.zero_grad(set_to_none=False),
    "unscale_": lambda layer, optimizer, scaler: scaler.unscale_(optimizer),
    "scaler.step": lambda layer, optimizer, scaler: scaler.step(optimizer),
    "clip_grad_norm_": lambda layer, *_: clip_grad_norm_(layer.parameters(), 0.1),
    "clip_grad_norm_ of a tensor": lambda layer, *_: clip_grad_norm_(original(layer), 0.1),
    "clip_grad_value_": lambda layer, *_: clip_grad_value_(iter(layer.parameters()), 0.1),
    "clip_grad_norm": lambda layer, *_: clip_grad_norm(list(layer.parameters()), 0.1),
    "clip_grads_with_norm_": lambda layer, *_: clip_grads_with_norm_(
        layer.parameters(), 0.1, torch.tensor(2.0)
    ),
    "get_total_norm": lambda layer, *_: get_total_norm([x.grad for x in layer.parameters()]),
    "step": lambda layer, optimizer, scaler: optimizer.step(),
    "step(closure)": lambda layer, optimizer, scaler: optimizer.step(lambda: torch.tensor(1.0)),
}


def original(layer: Any) -> Tensor:
    found: Tensor = layer.parametrizations.weight.original
    return found


@pytest.mark.filterwarnings("ignore:.*clip_grad_norm.*:FutureWarning")
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", CALLS)
def test_each_is_refused_and_changes_nothing(name: str, fused: bool) -> None:
    layer = linear()
    layer(torch.ones(1, 3)).sum().backward()  # an earlier gradient
    optimizer = torch.optim.AdamW(layer.parameters(), fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    scaler.scale(torch.ones(1))
    before = [x.detach().clone() for x in layer.parameters()]
    with cached(layer, deferred=True) as scope:
        layer(torch.ones(1, 3)).sum().backward()
        gradients = [torch.as_tensor(x.grad).clone() for x in layer.parameters()]
        with pytest.raises(DeferredGradientError, match="gradients wait in cached"):
            CALLS[name](layer, optimizer, scaler)
        for x, gradient, value in zip(layer.parameters(), gradients, before, strict=True):
            assert x.grad is not None
            assert x.grad.equal(gradient)
            assert x.detach().equal(value)
        scope.backward()
        CALLS[name](layer, optimizer, scaler)


@pytest.mark.filterwarnings("ignore:.*clip_grad_norm.*:FutureWarning")
@pytest.mark.parametrize("name", sorted({*CALLS} - {"clip_grad_norm_ of a tensor"}))
def test_other_parameters_are_not_refused(name: str) -> None:
    layer, other = linear(), nn.Linear(3, 3)
    optimizer = torch.optim.AdamW(other.parameters())
    scaler = torch.amp.GradScaler("cpu")
    with cached(layer, deferred=True):
        layer(torch.ones(1, 3)).sum().backward()
        scaler.scale(other(torch.ones(1, 3)).sum()).backward()
        CALLS[name](other, optimizer, scaler)


def test_an_iterator_is_handed_on_and_torch_warns_of_an_empty_one() -> None:
    layer, other = linear(), nn.Linear(3, 3)
    other(torch.ones(1, 3)).sum().backward()
    with cached(layer, deferred=True):
        layer(torch.ones(1, 3)).sum().backward()
        assert clip_grad_norm_((x for x in other.parameters()), 1e-3) > 1
        assert other.weight.grad is not None
        assert other.weight.grad.norm() < 1e-2
        with pytest.warns(UserWarning, match="empty generator"):
            clip_grad_norm_((x for x in [other.weight][1:]), 1.0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            clip_grad_norm_([], 1.0)


class Recording(torch.optim.SGD):
    """An optimizer with arguments of its own."""

    seen: Any = None

    def step(self, mode: Any = None, *, closure: Any = None) -> Any:  # type: ignore[override]
        self.seen = mode, closure
        return super().step(closure)


def test_optimizers_get_the_arguments_that_they_were_given() -> None:
    layer = linear()
    optimizer = Recording([original(layer)], lr=0.1)
    with cached(layer, deferred=True):
        layer(torch.ones(1, 3)).sum().backward()

    def closure() -> float:
        return 1.0

    optimizer.step("mode", closure=closure)
    assert optimizer.seen == ("mode", closure)
    with cached(layer, deferred=True):
        optimizer.step("mode", closure=closure)
        mode, checked = optimizer.seen
        assert mode == "mode"
        assert checked() == 1.0


def test_functions_imported_before_are_refused_too() -> None:
    program = (
        "from torch.nn.utils import clip_grad_norm_\n"
        "import paramdesc, torch\n"
        "layer = paramdesc.register_parametrization(torch.nn.Linear(3, 3), 'weight', torch.neg)\n"
        "with paramdesc.cached(layer, deferred=True) as scope:\n"
        "    layer.weight.sum().backward()\n"
        "    try: clip_grad_norm_(layer.parameters(), 1.0)\n"
        "    except RuntimeError as error: assert 'gradients wait' in str(error)\n"
        "    else: raise AssertionError\n"
        "    scope.backward()\n"
        "    clip_grad_norm_(layer.parameters(), 1.0)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_what_is_imported_later_is_covered_from_the_next_scope_on() -> None:
    scalers = pytest.importorskip("torch.distributed.fsdp.sharded_grad_scaler")
    layer = linear()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    with cached(layer, deferred=True):
        layer(torch.ones(1, 3)).sum().backward()
        scaler = object.__new__(scalers.ShardedGradScaler)
        with pytest.raises(DeferredGradientError, match=r"ShardedGradScaler.unscale_\(\)"):
            scaler.unscale_(optimizer)
