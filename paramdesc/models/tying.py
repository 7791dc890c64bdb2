"""Ties tensors of a model, including parametrized ones."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.optim import Optimizer

from paramdesc.chain.evaluation import evaluate
from paramdesc.errors import TyingError
from paramdesc.registration.adoption import adopt_module
from paramdesc.registration.gone import note_gone
from paramdesc.registration.holders import hold_too
from paramdesc.registration.host import chains_of, check_model, find_tensor, locate, tensors_of
from paramdesc.registration.optimizer_groups import Change, check_optimizer, hand_over, trained_at
from paramdesc.registration.questions import is_parametrized
from paramdesc.registration.sharded import refuse_sharded
from paramdesc.registration.snapshot import Snapshot, below

__all__ = ["tie_weights"]

M = TypeVar("M", bound=Module)


def tie_weights(model: M, path: str, *others: str, optimizer: Optimizer | None = None) -> M:
    """Tie other tensors of a model to the tensor at `path`, which may be parametrized.

    If it is parametrized, the modules share its `ParametrizationList`, just as modules share a tied
    Parameter. So there is one set of originals, `cached` evaluates the value once, assigning to one
    tensor changes all of them, and copies, pickles, `.to()` and state_dicts keep the tie.
    `remove_parametrizations` on one module leaves the others as they are.

    Args:
        model: the model.
        path: the path of the tensor to keep, such as `"embedding.weight"`.
        others: the paths of the plain tensors that it replaces, such as `"head.weight"`.
        optimizer: an existing optimizer; replaced Parameters are removed from its groups.

    Returns:
        `model`, of the same type.

    Raises:
        TypeError: if `model` is not a module.
        ValueError: if there is no such tensor, the shapes or dtypes differ, or one of `others` is
            already parametrized. In all cases `model` stays as it was.

    >>> embed, head = torch.nn.Embedding(6, 3), torch.nn.Linear(3, 6)
    >>> model = torch.nn.ModuleDict({"embed": embed, "head": head})
    >>> model = register_parametrization(model, "embed.weight", Sphere())
    >>> model = tie_weights(model, "embed.weight", "head.weight")
    >>> model["head"].parametrizations.weight is model["embed"].parametrizations.weight
    True
    """
    check_model("tie_weights", model)
    if optimizer is not None:
        check_optimizer(optimizer)
    source, places = locate(model, path), [locate(model, other) for other in others]
    modules = [source[0], *(module for module, _ in places)]
    snapshot = Snapshot(
        [*modules, *below([chains for module in modules for chains in chains_of(module)])],
        [x for place in places for x in tensors_of(*place)],
    )
    try:
        changes = [tie_to(*source, path, *place) for place in places]
        if optimizer is not None:
            hand_over(optimizer, changes)
        return model
    except BaseException:
        snapshot.restore()
        raise


def tie_to(source: Module, name: str, path: str, module: Module, tensor_name: str) -> Change:
    """Let `module.<tensor_name>` be `source.<name>`, whose path is `path`."""
    adopt_module(source)
    chain: Any = chain_at(source, name)
    before = trained_at(module, tensor_name)
    if chain is not None and chain_at(module, tensor_name) is chain:
        return Change(before, before)
    refuse_sharded(module, tensor_name, "tie")
    if is_parametrized(module, tensor_name):
        raise TyingError.parametrized(module, tensor_name, path)
    old = find_tensor(module, tensor_name)
    new = find_tensor(source, name) if chain is None else evaluate_detached(chain)
    check_alike(module, tensor_name, old, path, new)
    if chain is not None:
        hold_too(chain, module, tensor_name)
    elif isinstance(old, Parameter) and isinstance(new, Parameter):
        module._parameters[tensor_name] = new
    else:
        raise TyingError.buffer(module, tensor_name, path)
    if isinstance(old, Parameter) and old is not new:
        note_gone(old, f"{tensor_name!r} of {type(module).__name__}", "tie_weights")
    return Change(before, trained_at(module, tensor_name))


@torch.no_grad()
def evaluate_detached(chain: Any) -> Tensor:
    value: Tensor = evaluate(chain)
    return value


def chain_at(module: Module, tensor_name: str) -> Any:
    """The chain on a tensor; None if there is none."""
    for chains in chains_of(module):
        return chains._modules.get(tensor_name)
    return None


def check_alike(module: Module, tensor_name: str, old: Tensor, path: str, new: Tensor) -> None:
    """Raise an error for tensors that cannot replace each other."""
    for aspect in ("shape", "dtype"):
        ours, theirs = getattr(old, aspect), getattr(new, aspect)
        if ours != theirs:
            raise TyingError.differs(module, tensor_name, path, aspect, ours, theirs)
