"""A model with maps on some tensors, beside the same model without."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from tests.worlds.checks import WrongError, check_close
from tests.worlds.engines import Engine, Loop
from tests.worlds.maps import Exp

__all__ = ["Case", "of_linear", "of_loop", "of_scoped_loop"]


class Case:
    """`model` is `plain` with `maps` on the tensors `names`; `inputs` are for both."""

    def __init__(
        self,
        engine: Engine,
        plain: nn.Module,
        names: Iterable[str],
        inputs: Sequence[Tensor] | None = None,
        maps: Sequence[type[nn.Module]] = (Exp,),
    ) -> None:
        self.plain, self.names, self.maps = plain, list(names), maps
        self.inputs = [torch.rand(2, 3, requires_grad=True)] if inputs is None else inputs
        self.model: Any = copy.deepcopy(plain)
        for name in self.names:
            path, _, tensor_name = name.rpartition(".")
            for new_map in maps:
                engine.register(self.model.get_submodule(path), tensor_name, new_map())

    def original(self) -> Tensor:
        """The one original on the first of the names."""
        path, _, tensor_name = self.names[0].rpartition(".")
        original: Tensor = self.model.get_submodule(path).parametrizations[tensor_name].original
        return original

    def expected(self, holder: Any, *inputs: Tensor) -> Any:
        """What the plain model gives with the tensors of `holder`, evaluated where that is due."""
        state = tensors_of(holder)
        values: dict[str, Tensor] = {}
        for name in tensors_of(self.plain):
            if name not in self.names:
                values[name] = state[name]
                continue
            path, _, tensor_name = name.rpartition(".")
            prefix = ".".join(filter(None, [path, "parametrizations", tensor_name, "original"]))
            originals = [state[key] for key in sorted(state) if key.startswith(prefix)]
            first, *others = (new_map() for new_map in self.maps)
            values[name] = reduce(lambda value, map_: map_(value), others, first(*originals))
        return functional_call(self.plain, values, inputs)

    def check(self, run: Callable[..., Any], holder: Any = None) -> None:
        """`run` is right in outputs and gradients, before and after the originals change.

        The originals are those of `holder`, by default of the model itself.
        """

        def step(*inputs: Tensor) -> Any:
            outputs = run(*inputs)
            if not any(x.requires_grad for x in tree_leaves(outputs)):
                raise WrongError("no gradient reaches the originals")
            loss(outputs).backward()  # type: ignore[no-untyped-call]
            return outputs

        self.check_step(step, holder)

    def check_step(self, step: Callable[..., Any], holder: Any = None) -> None:
        """The same of a `step`, which calls forward and backward itself."""
        holder = self.model if holder is None else holder
        for mistake in ("wrong outputs", "the weight is a constant"):
            parameters = dict(holder.named_parameters())
            expected = self.expected(holder, *self.inputs)
            gradients = torch.autograd.grad(loss(expected), list(parameters.values()))
            for parameter in parameters.values():
                parameter.grad = None
            check_close(step(*self.inputs), expected, mistake)
            for parameter, gradient in zip(parameters.values(), gradients, strict=True):
                if parameter.grad is None:
                    raise WrongError("no gradient reaches the originals")
                check_close(parameter.grad, gradient, "wrong gradients")
            change(holder)

    def check_outputs(
        self, run: Callable[..., Any], tolerance: float | None = None, holder: Any = None
    ) -> None:
        """`run` gives the right outputs, once and without gradients."""
        with torch.no_grad():
            expected = self.expected(self.model if holder is None else holder, *self.inputs)
            check_close(run(*self.inputs), expected, "wrong outputs", tolerance)


def tensors_of(holder: Any) -> dict[str, Tensor]:
    return {**dict(holder.named_parameters()), **dict(holder.named_buffers())}


def loss(outputs: Any) -> Tensor:
    return torch.stack([x.square().sum() for x in tree_leaves(outputs)]).sum()


def change(holder: Any) -> None:
    """Write to the tensors in place, as an optimizer does."""
    with torch.no_grad():
        for tensor in tensors_of(holder).values():
            tensor.add_(torch.rand_like(tensor), alpha=0.1)


def of_linear(engine: Engine) -> Case:
    """A layer."""
    return Case(engine, nn.Linear(3, 3), ["weight"])


def of_loop(engine: Engine) -> Case:
    """A model that reads one weight three times."""
    return Case(engine, Loop(nn.Linear(3, 3)), ["layer.weight"])


def of_scoped_loop(engine: Engine) -> Case:
    """The same, with a scope of the engine inside its `forward`."""
    return Case(engine, engine.scoped_loop(nn.Linear(3, 3)), ["layer.weight"])
