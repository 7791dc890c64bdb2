"""A chain of maps in TorchScript: everything here is compiled by `torch.jit.script`.

No `from __future__ import annotations` and no imports for types only: TorchScript reads the
annotations, and knows `List`.
"""

from typing import Any, List  # noqa: UP035

import torch
from torch import Tensor, nn

__all__ = ["ScriptedParametrizationList"]


def version(tensor: Tensor) -> int:
    """How often `tensor` was written to."""
    count: int = tensor._version()  # type: ignore[operator]
    return count


def product_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype that autocast gives a product of float32 matrices on the device of `tensor`.

    TorchScript's own question for autocast on the CPU ends the process (torch 2.13).
    """
    if not tensor.is_floating_point():
        return torch.float32
    empty = tensor.new_empty([0, 0], dtype=torch.float32)
    return torch.mm(empty, empty).dtype


class ScriptedParametrizationList(nn.ModuleList):
    """The twin of one `ParametrizationList` in a scripted program.

    It keeps its value while scopes are open on it, and counts them: the value stays until the
    outermost one ends. A value is reused under the same conditions as in eager code, as far as
    TorchScript can check them: the mode, and for each tensor of the chain its version, its memory
    and whether it requires a gradient. TorchScript cannot see that a backward pass has gone through
    the value, so `cached` calls `forget`. Under autocast on the CPU, a value in full precision is
    reused, although a new evaluation would have lower precision.

    A subclass is generated for each form of chain. It defines `evaluate`, and what knows the
    tensors of the chain: `is_counted`, `remember`, `is_same` and `forget_memory`. The reads go
    through `is_same`, so it holds no list and no branch.
    """

    scopes: int
    entries: Tensor
    entered: int
    is_kept: bool
    kept: Tensor
    kept_version: int
    kept_grad: bool
    kept_inference: bool
    kept_dtype: torch.dtype
    kept_lowered: bool
    steps: List[int]  # noqa: UP006

    def evaluate(self) -> Tensor:
        raise NotImplementedError

    def is_counted(self) -> bool:
        raise NotImplementedError

    def is_same(self) -> bool:
        raise NotImplementedError

    def remember(self) -> None:
        raise NotImplementedError

    def forget_memory(self) -> None:
        raise NotImplementedError

    def forward(self) -> Tensor:
        if not self.is_open():
            return self.evaluate()
        kept = self.kept
        if self.is_current(kept):
            return kept
        self.forget()  # the old value must be freed before the new one is created
        value = self.evaluate()
        if self.is_counted():
            self.remember()
            self.kept = value
            self.kept_inference = value.is_inference()
            self.kept_version = 0 if self.kept_inference else version(value)
            self.kept_grad = torch.is_grad_enabled()
            self.kept_dtype = product_dtype(value)
            self.kept_lowered = self.kept_dtype != torch.float32
            self.is_kept = True
        return value

    def is_open(self) -> bool:
        """Whether a scope is open.

        None is open in a saved or copied program: its tensors are new, so no write to them has been
        counted.
        """
        return (self.scopes > 0) & (version(self.entries) == self.entered)

    def is_current(self, kept: Tensor) -> bool:
        current = self.is_kept & self.is_same() & (torch.is_grad_enabled() == self.kept_grad)
        if self.kept_inference:  # in TorchScript, only a new tensor reveals that mode
            current = current & kept.new_empty(0).is_inference()
        else:
            current = current & (version(kept) == self.kept_version)
        if self.kept_lowered | torch.is_autocast_enabled():
            current = current & (product_dtype(kept) == self.kept_dtype)
        return current

    @torch.jit.export
    def forget(self) -> None:
        if self.is_kept:
            self.is_kept = False
            self.kept_inference = False
            self.kept_lowered = False
            self.kept = torch.empty(0)
            self.kept_version = -1
            self.forget_memory()

    @torch.jit.export
    def __enter__(self) -> None:
        if not self.is_open():
            self.forget()
            self.scopes = 0
            self.entries.zero_()
            self.entered = version(self.entries)
        self.scopes += 1

    @torch.jit.export
    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:  # noqa: PYI036
        self.scopes -= 1
        if self.scopes == 0:
            self.forget()

    @torch.jit.export
    def open_scope(self) -> None:
        self.__enter__()

    @torch.jit.export
    def close_scope(self) -> None:
        self.__exit__(None, None, None)
