"""Converting modules that `torch.nn.utils.parametrize` has parametrized."""

from __future__ import annotations

from typing import Any, TypeVar

from torch.nn import Module

from paramdesc.chain.states import start_maps
from paramdesc.chain.transient import transient_of
from paramdesc.registration.attribute import ParametrizedTensor
from paramdesc.registration.container import ParametrizationDict
from paramdesc.registration.host import check_model
from paramdesc.registration.namespace import namespace_of
from paramdesc.registration.parametrization_list import ParametrizationList
from paramdesc.registration.plain_keys import expect_plain
from paramdesc.registration.sharing import join
from paramdesc.registration.snapshot import Snapshot, below
from paramdesc.torch_internals.engine import is_torch_parametrized

__all__ = ["adopt", "adopt_module"]

M = TypeVar("M", bound=Module)

_COMPAT_HOOK = "weight_norm.<locals>._weight_norm_compat_hook"


def adopt(model: M) -> M:
    """Convert the parametrizations of `torch.nn.utils.parametrize` in `model`, in place.

    This includes those registered by `torch.nn.utils.parametrizations`. Values, Parameter objects,
    maps, hooks and state_dict keys stay the same; each module gets its former class back.

    Returns:
        `model`. Modules without torch's parametrizations are not changed.

    >>> linear = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(3, 3))
    >>> type(linear).__name__
    'ParametrizedLinear'
    >>> type(adopt(linear)).__name__
    'Linear'
    """
    check_model("adopt", model)
    targets = [module for module in model.modules() if is_torch_parametrized(module)]
    snapshot = Snapshot(below(targets))
    try:
        for module in targets:
            adopt_module(module)
        return model
    except BaseException:
        snapshot.restore()
        raise


def adopt_module(module: Module) -> None:
    """Adopt `module` itself, if `torch.nn.utils.parametrize` has parametrized it.

    Call it under a snapshot of `module` and of everything below its `parametrizations`.
    """
    if not is_torch_parametrized(module):
        return
    chains: Any = module._modules["parametrizations"]
    host = type(module).__bases__[0]
    chains.__class__ = ParametrizationDict
    module.__class__ = host
    namespace = namespace_of(module)
    for name, chain in chains._modules.items():
        adopt_chain(chain, name, host.__name__)
        namespace.install(ParametrizedTensor(name, chains._modules))
    for key, hook in module._load_state_dict_pre_hooks.items():
        function = getattr(hook, "hook", hook)
        if getattr(function, "__qualname__", "") == _COMPAT_HOOK:
            module._load_state_dict_pre_hooks[key] = WeightNormNames(tensor_name_of(function))
    for name in chains._modules:
        expect_plain(module, name)


def adopt_chain(chain: Any, tensor_name: str, host: str) -> None:
    """Let `chain` be a `ParametrizationList` of ours, the same object."""
    if is_torch_parametrized(chain):
        adopt_module(chain)  # one of its originals is itself parametrized
    chain.__class__ = ParametrizationList
    chain.tensor_name, chain.host = tensor_name, host
    transient_of(chain)
    join(chain)
    start_maps(chain, anew=False)


def tensor_name_of(hook: Any) -> str:
    """The name that torch's weight_norm closed its hook over."""
    names = hook.__code__.co_freevars
    return str(hook.__closure__[names.index("name")].cell_contents)


class WeightNormNames:
    """Lets checkpoints of the oldest weight_norm load: `weight_g` and `weight_v`.

    It does the same as torch's own hook, which is a local function and cannot be pickled.
    """

    def __init__(self, tensor_name: str) -> None:
        self.tensor_name = tensor_name

    def __call__(self, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        old = [f"{prefix}{self.tensor_name}_{letter}" for letter in "gv"]
        if all(key in state_dict for key in old):
            for i, key in enumerate(old):
                new = f"{prefix}parametrizations.{self.tensor_name}.original{i}"
                state_dict[new] = state_dict.pop(key)
