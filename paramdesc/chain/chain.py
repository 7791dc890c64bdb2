"""A chain of maps, with the originals it starts from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import Module
from torch.nn.utils import parametrize as torch_engine

from paramdesc.chain.evaluation import take_clock
from paramdesc.chain.explain import explain
from paramdesc.chain.shards import apply_sharded, are_sharded
from paramdesc.chain.steps import has_stepped, mark_due
from paramdesc.torch_internals.dynamo import is_dynamo_compiling

__all__ = ["Chain"]


class Chain(torch_engine.ParametrizationList):
    """The originals of one tensor, and its maps in order, as they are evaluated.

    `ParametrizationList` adds the operations that change a chain: registration, assignment, copies.
    """

    tensor_name: str
    host: str
    is_applied_plainly: ClassVar[bool] = True
    """Whether a call of the chain runs its hooks and the `forward` below, and nothing else. False
    if a subclass overrides these methods."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls.is_applied_plainly = is_inherited(cls, "forward", "__call__", "_call_impl")

    def maps(self) -> Iterator[Module]:
        """The registered maps, first to last."""
        # a copy: another thread may add a map
        return (child for name, child in tuple(self._modules.items()) if name.isdigit())

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """The chain and all modules below it, from copies: another thread may add a map."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, child in tuple(self._modules.items()):
            if child is not None:
                path = f"{prefix}.{name}" if prefix else name
                yield from child.named_modules(memo, path, remove_duplicate)

    def original_names(self) -> list[str]:
        """The names of the originals in this chain."""
        return ["original"] if self.is_tensor else [f"original{i}" for i in range(self.ntensors)]

    def own_originals(self) -> dict[str, Tensor]:
        """The originals that are not parametrized themselves, by name."""
        return dict((*self.named_parameters(recurse=False), *self.named_buffers(recurse=False)))

    def originals(self) -> tuple[Tensor, ...]:
        """The tensors that the first map takes."""
        return tuple(getattr(self, name) for name in self.original_names())

    def forward(self) -> Tensor:
        """A fresh value: the maps in order, applied to the originals."""
        if "_steps" in self.__dict__ and self.training and has_stepped(self):
            mark_due(self)
        clock = None if is_dynamo_compiling() else take_clock()
        values: tuple[Any, ...] = self.originals()
        if clock is not None:
            clock.start()  # not counted: originals that are parametrized themselves
        if are_sharded(values):
            return self.evaluate_sharded(values, clock)
        parametrization = None
        try:
            for place, parametrization in enumerate(self.maps()):
                values = (parametrization(*values),)
                if clock is not None:
                    clock.lap(place, parametrization)
        except Exception as error:
            explain(error, self, "evaluating", parametrization)
            raise
        value: Tensor = values[0]
        return value

    def evaluate_sharded(self, originals: tuple[Any, ...], clock: Any) -> Tensor:
        """The value, where originals are sharded."""
        maps = list(self.maps())
        done = 0

        def lap(place: int, parametrization: Module) -> None:
            nonlocal done
            done = place + 1
            if clock is not None:
                clock.lap(place, parametrization)

        try:
            return apply_sharded(self, originals, lap)
        except Exception as error:
            explain(error, self, "evaluating", maps[done] if done < len(maps) else None)
            raise


def is_inherited(cls: type[Chain], *names: str) -> bool:
    """Whether `cls` inherits these methods from `Chain`."""
    return all(getattr(cls, name) is getattr(Chain, name) for name in names)
