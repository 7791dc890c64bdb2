"""The chains of scripted programs: finding them, and opening scopes on them.

A scripted program keeps its values itself, because it reads them without running Python. Its chains
are recognized by the name of their class, so that loaded programs work too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from weakref import WeakSet

from torch import Tensor

from paramdesc.torch_internals.optimizers import StepMade, on_step
from paramdesc.torch_internals.script import RecursiveScriptModule

__all__ = ["OpenProgram", "RecursiveScriptModule", "is_scripted_list", "open_programs"]

CLASS_NAME = "ScriptedParametrizationList"


def is_scripted_list(module: object) -> bool:
    """Whether `module` is a scripted `ParametrizationList`."""
    return isinstance(module, RecursiveScriptModule) and module.original_name == CLASS_NAME


class OpenProgram:
    """One scope on one scripted chain."""

    def __init__(self, chain: Any) -> None:
        self.chain = chain
        self.hooks: list[Any] = []
        self.is_open = False

    def open(self) -> None:
        """Open the scope. If this raises, `close` undoes what was done."""
        on_step(forget_after_step)
        _OPEN.add(self)
        before = self.chain.scopes, self.chain.entered
        try:
            self.chain.open_scope()
            self.is_open = True
        except BaseException:  # an interrupt may come after open_scope
            self.is_open = (self.chain.scopes, self.chain.entered) != before
            raise
        # TorchScript cannot detect that a backward pass has gone through a kept value
        for parameter in self.chain.parameters():
            if parameter.requires_grad and parameter.is_leaf:
                self.hooks.append(parameter.register_hook(self.forget))

    def forget(self, gradient: Tensor) -> None:
        self.chain.forget()

    def close(self) -> None:
        for hook in self.hooks:
            hook.remove()
        _OPEN.discard(self)
        if not self.is_open:
            return
        before = self.chain.scopes
        try:
            self.chain.close_scope()
            self.is_open = False
        except BaseException:  # an interrupt may come after close_scope
            self.is_open = self.chain.scopes == before
            raise


_OPEN: WeakSet[OpenProgram] = WeakSet()


def forget_after_step(step: StepMade) -> None:
    """Drop the values of open programs: TorchScript detects only writes that torch counts."""
    for program in list(_OPEN):
        if step.wrote(program.chain.parameters(), ()):
            program.chain.forget()


def open_programs(chains: Iterable[Any], opened: list[OpenProgram]) -> None:
    """Open a scope on each of these scripted chains.

    Each is added to `opened` before it is open, so that the caller can close it after an error.
    """
    for chain in chains:
        program = OpenProgram(chain)
        opened.append(program)
        program.open()
