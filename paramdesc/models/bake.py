"""Replacing the parametrized tensors of a model by their values."""

from __future__ import annotations

import copy as copying
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.caching.automatic import HOOK, enter_forward_pass, switch_hooks
from paramdesc.caching.targets import find_chains
from paramdesc.errors import BakingError
from paramdesc.models.baked import Baked, BakedTensor, LeftTensor
from paramdesc.models.baked_values import Holders, Value, evaluate_all
from paramdesc.models.collector import without_collector
from paramdesc.models.parametrized_tensors import (
    OfChain,
    OfHook,
    OfProgram,
    ParametrizedTensor,
    Waiting,
    find_parametrized,
    own_tensors,
)
from paramdesc.models.selection import Selector, Selectors, as_selectors, make_test
from paramdesc.models.unmatched import refuse_unknown
from paramdesc.registration.host import check_model
from paramdesc.registration.sharded import refuse_sharded
from paramdesc.registration.snapshot import Snapshot, differs
from paramdesc.torch_internals.dynamo import is_dynamo_compiling, uncompiled

__all__ = ["bake"]

M = TypeVar("M", bound=Module)


def bake(model: M, *selectors: Selector, exclude: Selectors = (), copy: bool = False) -> Baked[M]:
    """Replace the parametrized tensors of `model` with plain tensors that have their values.

    This covers parametrizations of paramdesc, of `torch.nn.utils.parametrize` (including
    `torch.nn.utils.parametrizations` and libraries such as geotorch that use it), the older
    `torch.nn.utils.weight_norm` and `spectral_norm`, and the masks of `torch.nn.utils.prune`. Each
    tensor becomes a plain Parameter, or a buffer if its originals are buffers, with the value that
    the model reads now, in its current mode. Hooks, attributes and classes that belong to the
    parametrizations are removed. A pickle of a baked model can be loaded without paramdesc.

    - Each tensor is evaluated exactly once, also for maps with randomness or a warm start. The
      power iteration of torch's own spectral norms does not advance.
    - A tensor with one original becomes that same Parameter object. With several originals, or if
      another tensor uses the original too, it becomes a new Parameter, which requires a gradient if
      one of the originals does. `Baked.new_parameters` lists the Parameters that an existing
      optimizer does not have.
    - Tied tensors, with the same originals and equal values, stay tied.

    Args:
        model: the model.
        selectors: the tensors to bake: patterns, types of modules, submodules, or tuples of these.
            By default, all.
        exclude: the tensors to leave out: a selector, or several in a list.
        copy: whether to bake a deep copy and leave `model` unchanged.

    Returns:
        A record of what was done, with the model as `.model`. It prints as a table.

    Raises:
        SelectionError: a ValueError, if a selector or an exclusion matches no tensor of the model.
        TypeError: if `model` is not a module.
        RuntimeError: if FSDP manages a module, or if a tensor is computed by a TorchScript program.
        Exception: exceptions raised by the maps propagate unchanged. In all cases the model stays
            as it was.

    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 2))
    >>> _ = register_parametrization(model[0], "weight", Symmetric())
    >>> _ = torch.nn.utils.parametrizations.weight_norm(model[1])
    >>> print(bake(model))
    tensor    by                          maps         shape
    0.weight  paramdesc                   Symmetric    3x3
    1.weight  torch.nn.utils.parametrize  _WeightNorm  2x3    a new tensor
    >>> list(model.state_dict())
    ['0.bias', '0.weight', '1.bias', '1.weight']
    """
    if is_dynamo_compiling():
        return uncompiled(bake)(model, *selectors, exclude=exclude, copy=copy)
    check_model("bake", model)
    excluded = as_selectors(exclude)
    if copy:
        paths = {id(module): path for path, module in model.named_modules()}
        model = copied(model)
        selectors = in_copy(selectors, paths, model)
        excluded = [*in_copy(excluded, paths, model)]
    with without_collector():
        chosen, left = choose(model, selectors, excluded)
        for tensor in chosen:
            if isinstance(tensor, OfProgram):
                raise BakingError.of_program(tensor.place.path, tensor.machinery)
            refuse_sharded(tensor.place.module, tensor.place.tensor_name, "bake")
        values = replace_all(model, chosen)
    return Baked(model, tuple(tell(values)), tuple(left))


def in_copy(
    selectors: Sequence[Selector], paths: dict[int, str], copy: Module
) -> tuple[Selector, ...]:
    """The selectors for a copy: its own submodules, in place of those with these paths."""
    found: list[Selector] = []
    for selector in selectors:
        if isinstance(selector, tuple):
            found.append(in_copy(selector, paths, copy))
        elif id(selector) in paths:
            found.append(copy.get_submodule(paths[id(selector)]))
        else:
            found.append(selector)
    return tuple(found)


def copied(model: M) -> M:
    """A deep copy, also of values in plain attributes, whose graphs `copy.deepcopy` rejects."""
    memo: dict[int, Any] = {}
    for tensor in find_parametrized(model):
        state = tensor.place.module.__dict__
        for value in (state.get(tensor.place.tensor_name), *state.get("_flat_weights", ())):
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach()
    return copying.deepcopy(model, memo)


def choose(
    model: Module, selectors: Sequence[Selector], exclude: Sequence[Selector]
) -> tuple[list[ParametrizedTensor], list[LeftTensor]]:
    """The selected parametrized tensors, and the others.

    Raises:
        SelectionError: if one of them names no tensor of the model, parametrized or not.
    """
    tests = [(selector, make_test(selector)) for selector in (*selectors, *exclude)]
    chosen: list[ParametrizedTensor] = []
    left: list[LeftTensor] = []
    needed: set[tuple[int, str]] = set()
    found = list(find_parametrized(model))
    for tensor in reversed(found):  # a tensor comes before those that are computed from it
        matching = [selector for selector, test in tests if test(tensor.place)]
        is_meant = not selectors or any(x is y for x in matching for y in selectors)
        is_excluded = any(x is y for x in matching for y in exclude)
        key = (id(tensor.place.module), tensor.place.tensor_name)
        if key not in needed and (not is_meant or is_excluded):
            left.append(LeftTensor(tensor.place.path, tensor.machinery, "not selected"))
        elif isinstance(tensor, Waiting):
            left.append(LeftTensor(tensor.place.path, tensor.machinery, tensor.reason))
        else:
            chosen.append(tensor)
            if isinstance(tensor, OfHook):
                needed.update((id(tensor.place.module), name) for name in tensor.hooked.parts)
    places = [tensor.place for tensor in found]
    refuse_unknown(selectors, places, model)
    refuse_unknown(exclude, places, model, "exclude")
    return chosen[::-1], left[::-1]


@torch.no_grad()
def replace_all(model: Module, chosen: list[ParametrizedTensor]) -> list[Value]:
    """Evaluate and replace the chosen tensors: all of them, or none.

    Raises:
        BakingError: if a module does not read a plain tensor as it is.
    """
    modules = list(model.modules())
    holders = Holders(modules, chosen)
    cached = [x for x in modules if x.__dict__.get("_forward_pre_hooks", {}).get(HOOK)]
    snapshot = Snapshot(*touched(chosen, cached))
    try:
        values = evaluate_all(chosen, holders)
        for value in values:
            value.tensor.replace(value.plain())
            path, module, name = value.tensor.place
            if not reads_as(module, name, value.value):
                raise BakingError.changed(path)
        for module in cached:
            drop_cache_hooks(module)
    except BaseException:
        snapshot.restore()
        for tensor in chosen:
            tensor.undo()
        raise
    for value in values:
        value.tensor.finish()
    return values


def touched(
    chosen: list[ParametrizedTensor], cached: list[Module]
) -> tuple[list[Module], list[Tensor], list[Tensor]]:
    """The modules that baking may change, the tensors with new `.data`, and those written to."""
    chains = [x for x in chosen if isinstance(x, OfChain)]
    hosts = dict.fromkeys(x.place.module for x in chosen)
    containers = [x.place.module._modules["parametrizations"] for x in chains]
    parts = dict.fromkeys(module for x in chains for module in (*x.modules,))
    replaced = {id(leaf): leaf for x in chosen for leaf in x.leaves()}
    written = {id(x): x for part in parts for x in own_tensors(part) if id(x) not in replaced}
    modules: dict[Any, None] = {**hosts, **dict.fromkeys([*containers, *cached]), **parts}
    return list(modules), list(replaced.values()), list(written.values())


def reads_as(module: Module, name: str, tensor: Tensor) -> bool:
    """Whether `module.<name>` equals `tensor`."""
    found: Any = getattr(module, name, None)
    return isinstance(found, Tensor) and found.dtype == tensor.dtype and not differs(found, tensor)


def drop_cache_hooks(module: Any) -> None:
    """Remove the hooks of `auto_cache`, if nothing below `module` is parametrized by paramdesc."""
    is_ours = module._forward_pre_hooks.get(HOOK) is enter_forward_pass
    if is_ours and next(iter(find_chains(module, set())), None) is None:
        switch_hooks(module, False)


def tell(values: list[Value]) -> Iterator[BakedTensor]:
    """What has been done, for the user."""
    first: dict[int, str] = {}
    hooked = [x.tensor for x in values if isinstance(x.tensor, OfHook)]
    gone = {(x.place.module, part) for x in hooked for part in x.hooked.parts}
    for value in values:
        tensor, result = value.tensor, value.result
        if (tensor.place.module, tensor.place.tensor_name) in gone:
            continue  # another tensor was computed from it
        path = tensor.place.path
        yield BakedTensor(
            path,
            tensor.machinery,
            tensor.maps,
            tuple(result.shape),
            value.is_kept,
            first.get(id(result)),
        )
        first.setdefault(id(result), path)
