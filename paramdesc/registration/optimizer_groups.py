"""Keeps an optimizer up to date when other Parameters are trained for a tensor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from paramdesc.errors import OptimizerError
from paramdesc.registration.host import chains_of
from paramdesc.registration.tied import modules_with
from paramdesc.torch_internals.mode import has_numbers

__all__ = ["Change", "Trained", "check_optimizer", "hand_over", "trained_at"]

Trained = dict[str, Parameter]
"""What is trained for a tensor of a module, by its name in the module: `weight`, or
`parametrizations.weight.original0`."""


class Change(NamedTuple):
    """The Parameters trained for a tensor before and after a change."""

    before: Trained
    after: Trained


def trained_at(module: Module, tensor_name: str) -> Trained:
    """What is trained for `module.<tensor_name>`."""
    for chains in chains_of(module):
        if tensor_name in chains._modules:
            path = f"parametrizations.{tensor_name}"
            return dict(module.get_submodule(path).named_parameters(path))
    parameter = module._parameters.get(tensor_name)
    return {} if parameter is None else {tensor_name: parameter}


def check_optimizer(optimizer: object, tensors: Iterable[Tensor | None] = ()) -> None:
    """Raise an error unless this is an optimizer and the tensor has a shape.

    Raises:
        OptimizerError: a TypeError.
    """
    if not isinstance(optimizer, Optimizer):
        raise OptimizerError.of_type(optimizer)
    if any(x is not None and is_lazy(x) for x in tensors):
        raise OptimizerError.lazy()


def hand_over(optimizer: Optimizer, changes: Sequence[Change], dead: Iterable[Module] = ()) -> None:
    """Update `optimizer` to the Parameters after the changes. After an error, it is unchanged.

    New Parameters are added to the group of those that they replace. A Parameter that no module has
    any more is removed from its group. Its state passes to a new one with the same entries, which
    is trained in the same coordinates; otherwise the optimizer starts a new state.

    Args:
        dead: modules that are no longer part of a model. Their Parameters do not count.
    """
    saved = [
        (group, {name: list(group[name]) for name in ("params", "param_names") if name in group})
        for group in optimizer.param_groups
    ]
    state = dict(optimizer.state)
    try:
        followers, gone = plan(optimizer, changes, {id(x) for x in dead})
        for group in optimizer.param_groups:
            update(group, followers, gone)
        for old in gone.values():
            pass_on_state(optimizer, old, followers)
        if isinstance(optimizer, torch.optim.LBFGS) and (gone or followers):
            optimizer.state.clear()  # flat vectors of all parameters, which have another length now
            optimizer._numel_cache = None
    except BaseException:
        for group, lists in saved:
            for name, content in lists.items():
                group[name][:] = content
        optimizer.state.clear()
        optimizer.state.update(state)
        raise


Followers = dict[int, list[tuple[str, str, Parameter]]]
"""By the identity of a Parameter of the optimizer: its name in its module, and the names and
Parameters that come after it in its group."""


def plan(
    optimizer: Optimizer, changes: Sequence[Change], dead: set[int]
) -> tuple[Followers, dict[int, Parameter]]:
    """What follows each Parameter of the optimizer in its group, and the Parameters that leave."""
    listed = {id(x) for group in optimizer.param_groups for x in group["params"]}
    followers: Followers = {}
    leaving: dict[int, Parameter] = {}
    for before, after in changes:
        staying = {id(x) for x in after.values()}
        leaving.update({id(x): x for x in before.values() if id(x) not in staying})
        known = {id(x) for x in before.values()}
        anchors = [(name, x) for name, x in before.items() if id(x) in listed]
        for name, x in after.items() if anchors else ():
            if id(x) not in known and id(x) not in listed:
                own, anchor = anchors[0]
                followers.setdefault(id(anchor), []).append((own, name, x))
                listed.add(id(x))
    held = modules_with(list(leaving.values())) if leaving else {}
    return followers, {
        key: x for key, x in leaving.items() if all(id(module) in dead for module in held[key])
    }


def update(group: dict[str, Any], followers: Followers, gone: dict[int, Parameter]) -> None:
    """Add the new Parameters of one group, and remove unused ones."""
    old_names = group.get("param_names")
    parameters: list[Parameter] = []
    names: list[str] = []
    for i, x in enumerate(group["params"]):
        full = old_names[i] if old_names is not None else ""
        if id(x) not in gone:
            parameters.append(x)
            names.append(full)
        for own, name, new in followers.get(id(x), ()):
            parameters.append(new)
            names.append(f"{full.removesuffix(own)}{name}")
    group["params"][:] = parameters
    if old_names is not None:
        old_names[:] = names


def pass_on_state(optimizer: Optimizer, old: Parameter, followers: Followers) -> None:
    """Give the state of `old` to the new Parameter with the same entries, if there is one."""
    state = optimizer.state.pop(old, None)
    if state is not None:
        for _, _, new in followers.get(id(old), ()):
            if has_same_numbers(old, new):
                optimizer.state[new] = state
                break


@torch.no_grad()
def has_same_numbers(old: Tensor, new: Tensor) -> bool:
    kinds = [(x.shape, x.dtype, x.device) for x in (old, new)]
    return kinds[0] == kinds[1] and has_numbers(old) and torch.equal(old, new)
