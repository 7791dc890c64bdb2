"""Making fused optimizers visible.

torch counts the in-place changes of a tensor in its version, and a kept value is told by
it that an original has changed. The step of a fused optimizer writes without counting.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.graph import increment_version
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

__all__ = ["count_uncounted_steps"]

_registered = False


def count_uncounted_steps() -> None:
    """From now on, every optimizer step raises the version of the parameters that it wrote to."""
    global _registered
    if not _registered:
        _registered = True
        register_optimizer_step_post_hook(raise_versions)


def raise_versions(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Raise the versions where torch may not have: third-party optimizers do not say."""
    if torch.compiler.is_compiling():
        return  # the compiler counts what it writes
    for group in optimizer.param_groups:
        written = [parameter for parameter in group["params"] if parameter.grad is not None]
        increment_version(written)
