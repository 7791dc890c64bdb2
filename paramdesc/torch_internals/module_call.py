"""What calling a module does besides `forward`: hooks and tracers."""

from __future__ import annotations

from typing import Any

from torch.fx._symbolic_trace import is_fx_symbolic_tracing
from torch.nn import Module
from torch.nn.modules.module import (
    _global_backward_hooks as backward_hooks,
)
from torch.nn.modules.module import (
    _global_backward_pre_hooks as backward_pre_hooks,
)
from torch.nn.modules.module import (
    _global_forward_hooks as forward_hooks,
)
from torch.nn.modules.module import (
    _global_forward_pre_hooks as forward_pre_hooks,
)
from torch.nn.utils import parametrize as torch_engine

from paramdesc.torch_internals.mode import count_dispatch_modes

__all__ = [
    "CALL",
    "HOOKS",
    "IMPLEMENTATION",
    "backward_hooks",
    "backward_pre_hooks",
    "call_as_leaf",
    "forward_hooks",
    "forward_pre_hooks",
    "is_symbolic",
]

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""The attributes in which a module keeps its hooks. The imported dicts hold global hooks."""

CALL = Module.__call__
IMPLEMENTATION: Any = Module._call_impl


def is_symbolic() -> bool:
    """Whether `torch.fx.symbolic_trace` is running, where values are not tensors.

    It patches the call of modules. So do tracers that work on tensors, but in a dispatch mode.
    """
    is_traced = is_fx_symbolic_tracing() and Module.__call__ is not CALL
    return is_traced and not count_dispatch_modes()


def call_as_leaf(chain: Module) -> Any:
    """Call `chain` such that torch.fx treats it as one of torch's own modules.

    Each of these is a single node, so the maps need not be traceable. They use shapes, which are
    unknown to the tracer.
    """
    chain.__dict__["__module__"] = torch_engine.__name__
    try:
        return chain()
    finally:
        del chain.__dict__["__module__"]
