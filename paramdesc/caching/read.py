"""Reading a parametrized tensor: every read starts here.

Each situation has a file of its own: no scope (this file), an open scope (`in_scope`), values that
outlive their block (`lasting`), checkpointed regions (`region`), and compiled code (`compiled`,
`guards`).
"""

from __future__ import annotations

from typing import Any

from torch.nn import Module

from paramdesc.caching.active import active_scopes
from paramdesc.caching.compiled import read_traced
from paramdesc.caching.in_scope import read_in_scopes
from paramdesc.caching.last_read import remembered
from paramdesc.caching.region import read_in_region
from paramdesc.caching.slots import AUTO_CACHED
from paramdesc.caching.switched_off import find_stand_in
from paramdesc.chain.evaluation import evaluate
from paramdesc.torch_internals.checkpointing import saving_hooks
from paramdesc.torch_internals.dynamo import is_dynamo_compiling
from paramdesc.torch_internals.module_call import CALL, is_symbolic

__all__ = ["read"]


def read(chain: Any) -> Any:
    """The value of `chain`: a current one that a scope keeps, otherwise a fresh one."""
    if is_dynamo_compiling():
        return read_traced(chain)
    scopes = active_scopes()
    if not scopes and AUTO_CACHED not in chain.__dict__:
        return remembered(chain, evaluate(chain))
    if Module.__call__ is not CALL and is_symbolic():
        stand_in = find_stand_in(scopes, chain)
        return remembered(chain, evaluate(chain)) if stand_in is None else stand_in.value
    if scopes:
        hooks = saving_hooks(True)
        if hooks is not None:
            return read_in_region(hooks, scopes, chain)
    return read_in_scopes(scopes, chain, evaluate)
