"""What compiled code is compared with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

INPUT = torch.ones(2, 3)


def gradients(module: nn.Module, output: Tensor) -> list[Tensor]:
    """The gradients of what `module` trains, without touching `.grad`."""
    total = (output * output.conj()).real.sum()
    return list(torch.autograd.grad(total, list(module.parameters())))


def assert_same(module: nn.Module, compiled: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Outputs and gradients of compiled code are those of eager code."""
    results = []
    for function in (module, compiled):
        output = function(*inputs)
        results.append((output.detach(), gradients(module, output)))
    torch.testing.assert_close(results[1], results[0])
