"""`ParametrizationList`: a chain that can be registered, assigned to, converted and copied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from torch import Tensor
from torch.nn import Module

from paramdesc.caching.active import active_scopes, forget
from paramdesc.caching.gathered import note_original
from paramdesc.caching.guards import fetch, keep
from paramdesc.caching.slots import AUTO_CACHED
from paramdesc.caching.switched_off import find_stand_in
from paramdesc.chain.bases import watch_base
from paramdesc.chain.states import find_what_loads, follow_steps, save_pending
from paramdesc.chain.steps import count_steps, has_stepped, is_step_pending
from paramdesc.chain.table import html_table
from paramdesc.chain.transient import TRANSIENT, Transient
from paramdesc.registration.assignment import assign
from paramdesc.registration.copying import deep_copied
from paramdesc.registration.editable import EditableChain
from paramdesc.registration.fitting import check_inverted, check_value
from paramdesc.registration.loading import load_given
from paramdesc.registration.local_classes import picklable
from paramdesc.registration.moving import move_base
from paramdesc.registration.placing import place_originals, whole_like
from paramdesc.registration.plain_keys import GIVEN
from paramdesc.registration.sharing import join
from paramdesc.torch_internals.dynamo import is_dynamo_compiling, uncompiled
from paramdesc.torch_internals.replacing import replace_data
from paramdesc.torch_internals.shards import layout_of
from paramdesc.torch_internals.tensors import address, alias

__all__ = ["ParametrizationList"]


class ParametrizationList(EditableChain):
    """The maps registered on one tensor, in order, and its original or originals.

    For a parametrized `module.weight`, it is `module.parametrizations.weight`, and `module.weight`
    is its value. The original is its parameter or buffer `original`; several originals are
    `original0`, `original1`, .... It is created by `register_parametrization`.

    Args:
        modules: the maps, at least one.
        original: the tensor to parametrize. It is only read; `adopt_original` changes it, once
            everything is known to fit.
        unsafe: whether the maps may change dtype and shape, without checks.

    Raises:
        ValueError: if the maps do not fit the tensor, as in torch's class.
    """

    def __init__(
        self,
        modules: Sequence[Module],
        original: Tensor,
        unsafe: bool = False,
        *,
        tensor_name: str = "original",
        host: str = "ParametrizationList",
    ) -> None:
        self.__dict__.update(tensor_name=tensor_name, host=host)  # errors below are told with them
        self.__dict__[TRANSIENT] = Transient()
        layout = layout_of(original)
        original = whole_like(original)
        values: list[Tensor] = []

        def forward() -> Tensor:
            values.append(super(ParametrizationList, self).forward())
            return values[-1]

        self.__dict__["forward"] = forward
        try:
            super().__init__(modules, alias(original), unsafe)
        finally:
            del self.__dict__["forward"]
        results = self.originals()
        check_inverted(
            [(modules[0], results[0] if self.is_tensor else results)], original, tensor_name
        )
        for value in values:
            check_value(modules[-1], original, value, tensor_name)
        if layout is not None:
            place_originals(self, values[-1].shape if values else original.shape, layout)
        join(self)

    @classmethod
    def sharing(cls, source: Any, tensor_name: str, host: str) -> ParametrizationList:
        """A chain of the maps and originals of `source`, the same objects."""
        chain = cls.__new__(cls)
        Module.__init__(chain)
        chain.__dict__.update(
            tensor_name=tensor_name,
            host=host,
            unsafe=source.unsafe,
            is_tensor=source.is_tensor,
            ntensors=source.ntensors,
        )
        chain._parameters.update(source._parameters)
        chain._buffers.update(source._buffers.items())
        chain._non_persistent_buffers_set.update(source._non_persistent_buffers_set)
        modules: dict[str, Any] = chain._modules
        modules.update((name, x) for name, x in source._modules.items() if name.isdigit())
        join(chain)
        return chain

    def adopt_original(self, original: Tensor) -> None:
        """Use the object `original` as the only original, so that optimizers stay valid."""
        if self.is_tensor:
            if not (address(original) and original.is_set_to(self.original)):
                replace_data(original, self.original)
            parameters: dict[str, Any] = self._parameters
            holder = parameters if "original" in parameters else self._buffers
            holder["original"] = original

    def _kept(self) -> Any:
        """For the guards of compiled code: the value that a scope keeps of this chain, or None."""
        return keep(self)

    def _fetched(self) -> Any:
        """For compiled code: the value."""
        return fetch(self)

    def _how_read(self) -> str:
        """For the guards of compiled code: how this chain is read, if it is switched off here."""
        stand_in = find_stand_in(active_scopes(), self)
        return "" if stand_in is None else stand_in.how

    def _stand_in(self) -> Any:
        """For compiled code: what reads return if this chain is disabled here."""
        stand_in = find_stand_in(active_scopes(), self)
        return None if stand_in is None else stand_in.value

    def _led(self) -> None:
        """For the guards of compiled code: let the states of the maps follow training steps."""
        with suppress(Exception):  # an exception in a map is raised again at the next evaluation
            follow_steps(self)

    def move_base(self) -> None:
        """Move the base point of the first map to the present value, which stays the same.

        This happens automatically every `rebase` optimizer steps. Call it after steps that are not
        made by a torch optimizer.

        Raises:
            ValueError: if there is no base point, or another module holds the original.
        """
        move_base(self)

    def shown_maps(self) -> str:
        """The maps with their settings, in one line."""
        return ", ".join(" ".join(repr(child).split()) for child in self.maps())

    def __repr__(self) -> str:
        return f"ParametrizationList({self.tensor_name!r} of {self.host}: {self.shown_maps()})"

    def _repr_html_(self) -> str:
        names = [f"{i}: {' '.join(repr(child).split())}" for i, child in enumerate(self.maps())]
        originals = [
            f"{name}: {tuple(x.shape)} {str(x.dtype).removeprefix('torch.')} {x.device}"
            for name, x in self.own_originals().items()
        ]
        return html_table(
            ("tensor", "originals", "maps, in order"),
            [(f"{self.host}.{self.tensor_name}", "; ".join(originals), "; ".join(names))],
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ParametrizationList:
        forget(self)  # the graph of a kept value would prevent swapping the originals
        is_due = self.__dict__.get("_steps") is not None and is_step_pending(self)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if "_steps" in self.__dict__:
            count_steps(self)
            if is_due:  # the step was made, whatever the tensors have become
                self.__dict__["_stepped"] = True
        return self

    def _replicate_for_data_parallel(self) -> ParametrizationList:
        replica: ParametrizationList = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
        replica.__dict__[TRANSIENT] = Transient()
        replica.__dict__.pop(AUTO_CACHED, None)  # it lives for one call, in which nothing lasts
        if "_steps" in self.__dict__:
            # one replica moves the state: the first, which shares its memory with this module
            replica.__dict__.update(_steps=None, _stepped=self.training and has_stepped(self))
        return replica

    def right_inverse(self, value: Tensor) -> None:
        """Set the originals so that the chain evaluates to `value`, or change none of them.

        Raises:
            RuntimeError: if a map has no `right_inverse`.
            ValueError: if a map rejects `value` or returns tensors that do not fit the originals;
                if `value` has another shape, and the maps are not registered with `unsafe`.
        """
        if is_dynamo_compiling():
            uncompiled(type(self).right_inverse)(self, value)
            return
        assign(self, value, resizes=False)

    def __setattr__(self, name: str, value: Any) -> None:
        # FSDP puts the gathered tensor here before each use, and gathers into the same memory
        # each time: nothing else shows that its values have changed
        if name.startswith("original"):
            note_original(self, name, value)
        super().__setattr__(name, value)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        save_pending(self, destination, prefix)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, *args: Any
    ) -> None:
        given = state_dict.pop(f"{prefix}{GIVEN}", None)
        if given is not None:
            for hook in self._load_state_dict_pre_hooks.values():  # that of FSDP shards originals
                hook(state_dict, prefix, local_metadata, *args)
            replace = local_metadata.get("assign_to_params_buffers", False)
            load_given(self, given, state_dict, prefix, replace, args[-1])
            return
        find_what_loads(self, state_dict, prefix, local_metadata)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def __getstate__(self) -> dict[str, Any]:
        maps = {name: picklable(child) for name, child in self._modules.items()}
        return {**self.copied_state(), "_modules": maps}

    def copied_state(self) -> dict[str, Any]:
        """The attributes that a copy takes. What is known of steps belongs to these tensors."""
        state = dict(self.__dict__)
        state.pop(TRANSIENT, None)
        if "_steps" in state:
            state["_steps"] = None
            if is_step_pending(self):
                state["_stepped"] = True
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.__dict__[TRANSIENT] = Transient()
        if "_steps" in self.__dict__:
            count_steps(self)
        watch_base(self)
        join(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> ParametrizationList:
        twin = self.__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(deep_copied(self.copied_state(), memo))
        twin.__dict__[TRANSIENT] = Transient()
        if "_steps" in self.__dict__:
            count_steps(twin)
        watch_base(twin)
        join(twin)
        return twin
