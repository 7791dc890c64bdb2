"""Tensor parallelism: `parallelize_module` and `distribute_module` on parametrized modules.

Both read and replace the Parameters of a module by name. So during the call, each parametrized
module is made plain, with the value of a parametrized tensor as its Parameter. The resulting
placement determines how the originals are placed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from paramdesc.chain.chain import Chain
from paramdesc.chain.evaluation import evaluate
from paramdesc.chain.steps import count_steps
from paramdesc.errors import DistributionError
from paramdesc.registration.container import ParametrizationDict
from paramdesc.registration.placing import place_originals
from paramdesc.registration.shared_originals import kept_shared
from paramdesc.torch_internals.functions import stand_in_for
from paramdesc.torch_internals.shards import Layout, gathered, layout_of
from paramdesc.torch_internals.whole import is_sharded

__all__ = ["DISTRIBUTED", "distribute_originals", "refuse_late"]

DISTRIBUTED = "_distribute_module_applied"
"""The attribute of a module for which `distribute_module` asks first of all."""

_MODULE = "torch.distributed.tensor._api"


def distribute_originals() -> None:
    """From now on, let `distribute_module` reach the originals of parametrized tensors.

    Does nothing until the program has imported torch's module, which is large.
    """
    room = sys.modules.get(_MODULE)
    if room is not None and hasattr(room, "distribute_module"):
        stand_in_for(room.distribute_module, distribute)


def refuse_late(frame: FrameType) -> None:
    """Raise an exception when the attribute `DISTRIBUTED` of a parametrized module is read.

    `distribute_module` reads it only if torch's module was imported after the last registration.
    From now on, it is not read any more.

    Raises:
        DistributionError: a RuntimeError, in `distribute_module`.
        AttributeError: elsewhere.
    """
    room = sys.modules.get(_MODULE)
    if room is not None and frame.f_globals.get("__name__") == _MODULE:
        distribute_originals()
        raise DistributionError
    raise AttributeError(DISTRIBUTED)


def distribute(
    own: Any,
    module: Module,
    device_mesh: Any = None,
    partition_fn: Any = None,
    input_fn: Any = None,
    output_fn: Any = None,
) -> Any:
    """Let torch distribute plain tensors, and place the originals accordingly."""
    hosts = [Plain(host) for host in hosts_below(module, set())]
    if not hosts:
        return NotImplemented
    hidden = []
    try:
        for host in hosts:
            hidden.append(host)
            host.hide()
        result = own(module, device_mesh, partition_fn, input_fn, output_fn)
    finally:
        for host in hidden:
            host.show()
    for host in hosts:
        host.place()
    return result


def hosts_below(module: Module, seen: set[Module]) -> Iterator[Module]:
    """The parametrized modules at and below `module`, without those inside maps."""
    if module in seen:
        return
    seen.add(module)
    if type(module._modules.get("parametrizations")) is ParametrizationDict:
        yield module
    for child in tuple(module._modules.values()):
        if child is not None and not isinstance(child, ParametrizationDict):
            yield from hosts_below(child, seen)


class Plain:
    """A parametrized module that is plain for a while."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.namespace: Any = module.__dict__["_buffers"]
        self.chains: Any = module._modules["parametrizations"]
        self.children = list(module._modules)
        self.values = {name: value_of(chain) for name, chain in self.chains._modules.items()}
        self.found: dict[str, Tensor] = {}

    def hide(self) -> None:
        """Replace the chains with plain values."""
        module: Any = self.module
        buffers = dict(self.namespace.items())
        for name, value in self.values.items():
            holder = module._parameters if isinstance(value, Parameter) else buffers
            holder[name] = value
        del module._modules["parametrizations"]
        module.__dict__["_buffers"] = buffers

    def show(self) -> None:
        """Restore the chains, and keep the distributed values."""
        module: Any = self.module
        buffers = module.__dict__["_buffers"]
        if buffers is self.namespace:
            return
        for name in self.values:
            holder = module._parameters if name in module._parameters else buffers
            found = holder.pop(name, None)
            if found is not None:  # the caller's function may have deleted it
                self.found[name] = found
        for name, tensor in buffers.items():
            self.namespace.__wrapped__[name] = tensor
        module.__dict__["_buffers"] = self.namespace
        children = {**module._modules, "parametrizations": self.chains}
        module._modules.clear()
        order = dict.fromkeys([*self.children, *children])
        module._modules.update((name, children[name]) for name in order)

    def place(self) -> None:
        """Place the originals as the values were placed."""
        for name, chain in self.chains._modules.items():
            found = self.found.get(name)
            layout = None if found is None else layout_of(found)
            if found is not None and layout is not None:
                with kept_shared(x for x in chain.modules() if isinstance(x, Chain)):
                    place_chain(chain, found.shape, layout)


def value_of(chain: Any) -> Tensor:
    """A value of `chain`, as the plain tensor that torch distributes."""
    with torch.no_grad():
        value = chain.original if chain.is_tensor and not chain.unsafe else evaluate(chain)
        value = gathered(value.detach()).clone()
    parameters = list(chain.parameters())
    if not parameters:
        return value
    return Parameter(value, any(x.requires_grad for x in parameters))


@torch.no_grad()
def place_chain(chain: Any, shape: torch.Size, layout: Layout) -> None:
    """Place the originals of `chain`, and the tensors of its maps on all ranks.

    All ranks get the entries of the first one, as in torch.
    """
    room: Any = sys.modules["torch.distributed.tensor"]
    replicated = layout.replicated()
    for module in chain.modules():
        is_own = module is chain
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is None or is_sharded(tensor):
                continue
            equal = room.distribute_tensor(tensor.detach(), *replicated)
            if is_own or name in module._buffers:
                tensor.copy_(equal.to_local())
            else:
                module._parameters[name] = Parameter(equal, tensor.requires_grad)
    place_originals(chain, shape, layout)
    if "_steps" in vars(chain):
        count_steps(chain)
