"""The parametrized tensors of a model, for all engines and libraries, and how to bake each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.jit import ScriptModule
from torch.nn import Module, Parameter
from torch.nn.utils.parametrize import ParametrizationList as TorchList

from paramdesc.caching.active import forget
from paramdesc.chain.evaluation import evaluate
from paramdesc.chain.warm import warm_maps
from paramdesc.models.selection import Place, is_engine_part
from paramdesc.registration.container import ParametrizationDict
from paramdesc.registration.lazy import PendingRegistration
from paramdesc.registration.namespace import give_back, namespace_of
from paramdesc.registration.parametrization_list import ParametrizationList
from paramdesc.registration.sharing import is_shared, leave
from paramdesc.torch_internals.engine import (
    disown,
    is_torch_parametrized,
    without_power_iterations,
)
from paramdesc.torch_internals.forward_hooks import HookedTensor, hooked_tensors
from paramdesc.torch_internals.tensors import alias

__all__ = [
    "OfChain",
    "OfHook",
    "OfProgram",
    "ParametrizedTensor",
    "Waiting",
    "find_parametrized",
    "own_tensors",
]

OURS, TORCHS, GRAPH = "paramdesc", "torch.nn.utils.parametrize", "torch.fx"


class ParametrizedTensor:
    """A tensor of a module that something parametrizes."""

    machinery: str
    is_tied = False
    """Whether its original belongs to another tensor."""
    maps: tuple[str, ...] = ()

    def __init__(self, place: Place) -> None:
        self.place = place

    def value(self) -> Tensor:
        """One evaluation, without a graph."""
        raise NotImplementedError

    def leaves(self) -> list[Tensor]:
        """The trained Parameters that it is computed from, or the buffers if there are none."""
        raise NotImplementedError

    def sources(self) -> list[Tensor]:
        """All tensors that it is computed from."""
        raise NotImplementedError

    def parts(self) -> list[Module]:
        """The modules of its maps, which other tensors may have too."""
        return []

    def chains(self) -> list[ParametrizationList]:
        """Its chain, if it is one of ours, which other modules may have too."""
        return []

    def held_leaves(self) -> list[int]:
        """The identities of `leaves()`, once for each module that will no longer hold them."""
        raise NotImplementedError

    def settings(self) -> tuple[Any, ...]:
        """What distinguishes it from another function of the same tensors."""
        raise NotImplementedError

    def function(self) -> tuple[Any, ...]:
        """The identity of the function. Two tensors with the same one are evaluated together."""
        raise NotImplementedError

    def is_persistent(self) -> bool:
        """Whether a buffer in its place belongs to the state_dict."""
        return True

    def keep_old(self, leaf: Tensor) -> None:
        """Let a thread that is computing the tensor find the data that `leaf` has now."""

    def replace(self, tensor: Tensor) -> None:
        """Let the plain `tensor` take its place. The snapshot of the module undoes it."""
        raise NotImplementedError

    def undo(self) -> None:
        """Undo what the snapshot of the module does not."""

    def finish(self) -> None:
        """What cannot be undone, once the whole model is baked."""

    def put(self, tensor: Tensor) -> None:
        """Register `tensor` on the module."""
        _, module, name = self.place
        if isinstance(tensor, Parameter):
            module.register_parameter(name, tensor)
        else:
            module.register_buffer(name, tensor, persistent=self.is_persistent())


class OfChain(ParametrizedTensor):
    """By a chain of maps, of paramdesc or of `torch.nn.utils.parametrize`."""

    def __init__(self, place: Place, chain: Any, machinery: str) -> None:
        super().__init__(place)
        self.chain = chain
        self.machinery = machinery
        self.is_tied = "is_tied" in chain.__dict__
        self.modules: list[Module] = list(chain.modules())
        self.originals = leaves_of(chain)
        self.maps = tuple(
            type(child).__name__ for name, child in chain._modules.items() if name.isdigit()
        )
        self.attribute = (
            namespace_of(place.module).attribute(place.tensor_name) if machinery == OURS else None
        )
        self.siblings: dict[str, Any] = {} if self.attribute is None else self.attribute.chains

    def value(self) -> Tensor:
        with without_power_iterations(self.chain):
            if self.machinery == OURS:
                forget(self.chain)
                return evaluate(self.chain)  # type: ignore[no-any-return]
            return self.chain()  # type: ignore[no-any-return]

    def leaves(self) -> list[Tensor]:
        parameters: list[Tensor] = [x for x in self.originals if isinstance(x, Parameter)]
        return parameters or self.originals

    def sources(self) -> list[Tensor]:
        return [x for module in self.modules for x in own_tensors(module)]

    def parts(self) -> list[Module]:
        chains = [x for x in self.modules if isinstance(x, ParametrizationList)]
        return [part for chain in chains for part in chain.maps()]

    def chains(self) -> list[ParametrizationList]:
        return [self.chain] if isinstance(self.chain, ParametrizationList) else []

    def held_leaves(self) -> list[int]:
        return [id(x) for x in self.originals]

    def settings(self) -> tuple[Any, ...]:
        return self.maps

    def function(self) -> tuple[Any, ...]:
        maps = [id(x) for name, x in self.chain._modules.items() if name.isdigit()]
        return (type(self), *maps)

    def is_persistent(self) -> bool:
        return not self.chain._non_persistent_buffers_set

    def keep_old(self, leaf: Tensor) -> None:
        holders: list[Any] = [h for x in self.modules for h in (x._parameters, x._buffers)]
        for holder in holders:
            for name, x in tuple(holder.items()):
                if x is leaf:
                    holder[name] = alias(leaf)

    def replace(self, tensor: Tensor) -> None:
        _, module, name = self.place
        chains: Any = module.parametrizations
        drop_load_hooks(module, name)
        if self.attribute is not None:
            give_back(module, name, tensor)
            self.put(tensor)
            self.attribute.chains = {name: self.chain}  # for a thread that is reading it
            del chains._modules[name]
            if not chains._modules:
                delattr(module, "parametrizations")
        else:
            disown(module, name)
            self.put(tensor)
        if "_flat_weights" in module.__dict__:
            module._init_flat_weights()  # type: ignore[operator]  # of nn.RNN, nn.LSTM, nn.GRU

    def undo(self) -> None:
        if self.attribute is not None:
            self.attribute.chains = self.siblings

    def finish(self) -> None:
        for chain in self.modules:
            if isinstance(chain, ParametrizationList):
                for part in warm_maps(chain).values():
                    part.is_led = is_shared(part, chain)
                leave(chain)


class OfHook(ParametrizedTensor):
    """By a forward pre-hook of torch's older functions."""

    def __init__(self, place: Place, hooked: HookedTensor) -> None:
        super().__init__(place)
        self.hooked = hooked
        self.machinery = hooked.machinery
        self.maps = (type(hooked.hook).__name__,)

    def value(self) -> Tensor:
        value = self.hooked.compute(self.place.module)
        self.place.module.__dict__[self.place.tensor_name] = value  # another hook may read it
        return value

    def leaves(self) -> list[Tensor]:
        parts = [self.place.module._parameters.get(name) for name in self.hooked.parts]
        return [x for x in parts if x is not None]

    def sources(self) -> list[Tensor]:
        return [getattr(self.place.module, name) for name in self.hooked.parts]

    def held_leaves(self) -> list[int]:
        return [id(x) for x in self.leaves()]

    def settings(self) -> tuple[Any, ...]:
        return self.hooked.settings()

    def function(self) -> tuple[Any, ...]:
        return (*self.settings(), *map(id, self.sources()))

    def replace(self, tensor: Tensor) -> None:
        self.hooked.remove(self.place.module)
        self.put(tensor)
        if "_flat_weights" in self.place.module.__dict__:
            self.place.module._init_flat_weights()  # type: ignore[operator]


class Waiting(ParametrizedTensor):
    """By a registration that waits until the tensor has a shape."""

    machinery = OURS
    reason = "it has no shape yet: call the model once, then bake it"

    def __init__(self, place: Place, pending: PendingRegistration) -> None:
        super().__init__(place)
        self.maps = (type(pending.parametrization).__name__,)


class OfProgram(ParametrizedTensor):
    """Inside a TorchScript program, or a graph of torch.fx."""

    def __init__(self, place: Place, machinery: str) -> None:
        super().__init__(place)
        self.machinery = machinery


def find_parametrized(model: Module) -> Iterator[ParametrizedTensor]:
    """The parametrized tensors of `model`, in the order of `named_modules`.

    Tensors from which others of the same module are computed come first.
    """
    for path, module in model.named_modules():
        if is_engine_part(path):
            continue
        prefix = f"{path}." if path else ""
        found = list(parametrized_in(module, prefix))
        if len(found) > 1:
            parts = {name for x in found if isinstance(x, OfHook) for name in x.hooked.parts}
            found.sort(key=lambda x: x.place.tensor_name not in parts)
        yield from found


def parametrized_in(module: Module, prefix: str) -> Iterator[ParametrizedTensor]:
    """The parametrized tensors of the one module."""
    if isinstance(module, ScriptModule):
        scripted = dict(module.named_children()).get("parametrizations")
        for name, _ in () if scripted is None else scripted.named_children():
            yield OfProgram(Place(f"{prefix}{name}", module, name), "TorchScript")
        return
    chains: Any = module._modules.get("parametrizations")
    if isinstance(chains, ParametrizationDict):
        machinery = OURS
    else:
        machinery = TORCHS if is_torch_parametrized(module) else GRAPH
    for name, chain in () if chains is None else chains._modules.items():
        if not isinstance(chain, TorchList):
            continue  # a module of the user with this name
        place = Place(f"{prefix}{name}", module, name)
        yield (
            OfProgram(place, machinery)
            if machinery == "torch.fx"
            else OfChain(place, chain, machinery)
        )
    if module._forward_pre_hooks:
        for hooked in hooked_tensors(module):
            name = hooked.tensor_name
            yield OfHook(Place(f"{prefix}{name}", module, name), hooked)
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, PendingRegistration):
                name = hook.tensor_name
                yield Waiting(Place(f"{prefix}{name}", module, name), hook)


def leaves_of(chain: Any) -> list[Tensor]:
    """The originals of `chain`, and for those that are parametrized themselves, theirs."""
    found = list(own_tensors(chain))
    nested = chain._modules.get("parametrizations")
    for inner in () if nested is None else nested._modules.values():
        found += leaves_of(inner)
    return found


def own_tensors(module: Module) -> Iterator[Tensor]:
    """The parameters and buffers of the one module."""
    yield from (x for x in module._parameters.values() if x is not None)
    yield from (x for x in module._buffers.values() if x is not None)


def drop_load_hooks(module: Module, tensor_name: str) -> None:
    """Remove what lets a parametrized tensor load older checkpoints."""
    hooks: Any = module._load_state_dict_pre_hooks
    for key, hook in list(hooks.items()):
        if renames(getattr(hook, "hook", hook), tensor_name):
            del hooks[key]


def renames(hook: Any, tensor_name: str) -> bool:
    """Whether `hook` renames keys of older checkpoints for the tensor."""
    if type(hook).__module__.partition(".")[0] == OURS:
        return tensor_name in (getattr(hook, key, None) for key in ("name", "tensor_name"))
    if getattr(hook, "__qualname__", "") != "weight_norm.<locals>._weight_norm_compat_hook":
        return False
    names = hook.__code__.co_freevars
    return bool(hook.__closure__[names.index("name")].cell_contents == tensor_name)
