"""FSDP2 (`fully_shard`): the shard behind a gathered Parameter, and gathering it again.

FSDP2 replaces a shard by a gathered Parameter before a module is used, and restores the shard
afterwards. It gathers into the same Parameter each time. If a version of torch stores this
differently, nothing is found, and callers treat the tensors like any others.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from paramdesc.torch_internals.sample import differs, sample
from paramdesc.torch_internals.shards import layout_of
from paramdesc.torch_internals.tensors import is_wrapper

__all__ = [
    "Gathering",
    "Places",
    "find_gathering",
    "gather",
    "gathered_into",
    "gathering_behind",
    "is_gathering",
    "note_new_shard",
    "reduce",
    "remember",
    "shard_again",
]

_STATES = "torch.distributed._composable_state"
_FSDP = "torch.distributed.fsdp._fully_shard._fsdp_state"
_BEHIND: WeakValueDictionary[int, Gathering] = WeakValueDictionary()
"""By the identity of the gathered Parameter."""


class Gathering:
    """One Parameter that FSDP2 shards and gathers.

    Args:
        state: FSDP2's state of the modules that are gathered with it.
        group: the Parameters that are gathered together.
        parameter: FSDP2's state of the Parameter.
    """

    def __init__(self, state: Any, group: Any, parameter: Any) -> None:
        self.state = state
        self.group = group
        self.parameter = parameter
        self._last: tuple[int, Tensor | None] | None = None

    @property
    def shard(self) -> Tensor:
        """The Parameter that is trained: a DTensor."""
        shard: Tensor = self.parameter.sharded_param
        return shard

    @property
    def gathered(self) -> Tensor | None:
        """The gathered Parameter, whose memory may be free now. None before the first time."""
        return getattr(self.parameter, "_unsharded_param", None)

    def is_one_of(self, tensor: Tensor) -> bool:
        """Whether `tensor` is one that FSDP2 uses while the Parameter is sharded."""
        smaller = getattr(self.parameter, "_sharded_post_forward_param", None)
        return tensor is self.shard or tensor is smaller

    @property
    def info(self) -> Any:
        """Where FSDP2 puts the Parameter."""
        return self.parameter._module_info

    def places(self) -> Iterator[tuple[Module, str]]:
        """The modules that have the Parameter, and its names in them."""
        yield self.info.module, self.info.param_name
        yield from zip(self.info.shared_modules, self.info.shared_param_names, strict=True)

    def is_sharded_now(self) -> bool:
        """Whether the module has the shard, and not the gathered Parameter."""
        module, name = next(self.places())
        return module._parameters.get(name) is self.shard

    def is_instead(self, tensor: Tensor) -> bool:
        """Whether the module has `tensor` now, which FSDP2 computes from the shard."""
        module, name = next(self.places())
        return tensor is not self.shard and module._parameters.get(name) is tensor

    def is_shared(self) -> bool:
        """Whether several modules have the Parameter."""
        return bool(self.info.shared_modules)

    def is_cut_once(self) -> bool:
        """Whether no dimension was cut before by tensor parallelism, which torch cannot repeat."""
        layout = layout_of(self.shard)
        return layout is not None and layout.dims() is not None

    def put(self, info: Any) -> None:
        """Let FSDP2 put the Parameter where `info` says, and where it is now."""
        self.parameter._module_info = info
        self.parameter.reset_sharded_param()

    def move(self, module: Module, name: str) -> None:
        """Let FSDP2 put the Parameter at `module.<name>`, where it is now."""
        self.put(dataclasses.replace(self.info, module=module, param_name=name))

    def gives_the_same(self) -> bool:
        """Whether gathering has given the same entries as the last time. Called after each time.

        The state of the rank's own shard is watched elsewhere. With a sample, this detects writes
        to the gathered Parameter, which are lost when it is gathered again, and writes of other
        ranks to their shards.
        """
        gathered: Any = self.gathered
        version = -1 if gathered.is_inference() else gathered._version
        last, self._last = self._last, (version, sample(gathered))
        return last is not None and last[0] == version and not differs(gathered, last[1])


class Places:
    """Where FSDP2 puts the Parameters of some modules: modules, and names in them.

    Args:
        modules: any, sharded or not.
    """

    def __init__(self, modules: Iterable[Module]) -> None:
        marked = {x for x in modules if "_is_fsdp_managed_module" in vars(x)}
        self.found = [
            (gathering, gathering.info)
            for gathering in (gatherings() if marked else ())
            if any(module in marked for module, _ in gathering.places())
        ]

    def restore(self) -> None:
        for gathering, info in self.found:
            if gathering.info is not info:
                gathering.put(info)


def note_new_shard(shard: Tensor) -> None:
    """Tell FSDP2, which gathers from a view of the shard, that the shard has other memory."""
    for gathering in gatherings():
        if gathering.shard is shard and gathering.is_sharded_now():
            gathering.parameter.reset_sharded_param()


def gathered_into(tensor: Tensor) -> Gathering | None:
    """What is known of the Parameter that is gathered into `tensor` now, at least in part.

    None for other tensors.
    """
    if not isinstance(tensor, Parameter):
        return None
    return next((x for x in gatherings() if x.is_instead(tensor)), None)


def find_gathering(module: Module, name: str) -> Gathering | None:
    """What is known of the Parameter that FSDP2 shards as `module.name`. None if it does not."""
    return next((found for found in gatherings() if (module, name) in found.places()), None)


def gatherings() -> Iterator[Gathering]:
    """All Parameters that FSDP2 shards."""
    fsdp, states = sys.modules.get(_FSDP), sys.modules.get(_STATES)
    if fsdp is None or states is None:
        return
    found = {
        id(state): state
        for ref in list(states._module_state_mapping.values())
        if isinstance(state := ref(), fsdp.FSDPState)
    }
    for state in found.values():
        for group in groups_of(state):
            for parameter in getattr(group, "fsdp_params", ()):
                yield Gathering(state, group, parameter)


def groups_of(state: Any) -> list[Any]:
    """The groups of Parameters of `state`: one or none in older versions of torch."""
    several = getattr(state, "_fsdp_param_groups", None)
    if several is not None:
        return list(several)
    group = getattr(state, "_fsdp_param_group", None)
    return [] if group is None else [group]


def remember(gathering: Gathering) -> None:
    """Let `gathering_behind` find it."""
    gathered = gathering.gathered
    if gathered is not None and not is_wrapper(gathered):
        _BEHIND[id(gathered)] = gathering


def is_gathering() -> bool:
    """Whether anything that FSDP2 gathers is known."""
    return bool(_BEHIND)


def gathering_behind(tensor: Tensor) -> Gathering | None:
    """What is known of a gathered Parameter. None for other tensors."""
    if not _BEHIND:
        return None
    found = _BEHIND.get(id(tensor))
    return found if found is not None and found.gathered is tensor else None


def gather(gatherings: Iterable[Gathering]) -> None:
    """Gather the Parameters now. All ranks must call this for the same ones."""
    for group in {id(found.group): found.group for found in gatherings}.values():
        group.unshard()
        group.wait_for_unshard()


@torch.no_grad()
def reduce(gatherings: Iterable[Gathering]) -> None:
    """What FSDP2 does at the end of a backward pass: reduce the gradients, and shard again."""
    for root in roots_of(gatherings):
        root._root_post_backward_final_callback()


def roots_of(gatherings: Iterable[Gathering]) -> list[Any]:
    roots = {}
    for found in gatherings:
        for state in found.state._state_ctx.all_states:
            if state._is_root:
                roots[id(state)] = state
    return list(roots.values())


def shard_again(gatherings: Iterable[Gathering]) -> None:
    """Shard the Parameters again, after a failure."""
    for group in {id(found.group): found.group for found in gatherings}.values():
        group.reshard()
