"""The rows of the table, by group."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import paramdesc as P
from tests.caching.changes import assign, other_state, own, rebind, replace_data
from tests.caching.dependencies.kinds import IN_A_BLOCK, LASTING, weighing
from tests.caching.dependencies.places import (
    PLACES,
    Bound,
    held,
    in_class_attribute,
    in_hook,
    of_attribute,
)
from tests.caching.dependencies.test_optimizers import OPTIMIZERS, train
from tests.caching.noticed.case import NOT_COMPARED, Case, Columns
from tests.caching.noticed.gathered import try_gathered
from tests.helpers import Counting, Double, Exp, chain_of, original_of

__all__ = ["GROUPS"]

counting = partial(weighing, Counting())


def bound(title: str, make: Callable[[], Bound], change: Callable[[Bound], Any]) -> Case:
    """A row about something bound to a map."""
    made: list[Bound] = []

    def layer() -> Any:
        made[:] = [make()]
        return weighing(made[0].map)

    return Case(title, lambda _: change(made[0]), layer)


def replaced(title: str, *places: str) -> list[Case]:
    """A number and a tensor in each of `places`, which must all do the same."""
    cases = []
    for place in places:
        make = PLACES[place]
        cases += [
            bound(title, partial(make, 1.0), lambda b: b.put(3.0)),
            bound(title, partial(make, torch.tensor(1.0)), lambda b: b.get().mul_(3)),
        ]
    return cases


def step(name: str) -> Callable[[Any], object]:
    return lambda layer: train(layer, OPTIMIZERS[name](layer.parameters()))


PLAIN = ("SGD", "foreach Adam", "fused SGD", "fused Adam", "fused, a hook clears the gradients")


def load(layer: Any, assign: bool) -> None:
    layer.load_state_dict(other_state(layer), assign=assign)


def step_of_others(layer: Any) -> None:
    step("fused Adam")(nn.Linear(3, 3))


def by_numpy(layer: Any) -> None:
    original_of(layer).detach().numpy()[...] += 1


def by_collective(layer: Any) -> None:
    """What torch's collectives do to the version; they are tried with two ranks elsewhere."""
    preserve: Any = torch.autograd.__dict__["_unsafe_preserve_version_counter"]
    with preserve(original_of(layer)):
        original_of(layer).add_(1)


def write_one_entry(layer: Any) -> None:
    original_of(layer).data[1, 1] += 1


def hook(register: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda layer: register(layer).remove


def of_mode(title: str, manager: Callable[[], Any], parametrization: Any) -> Case:
    """A row about a mode that is entered between the reads."""

    def enter(_: Any) -> Callable[[], object]:
        entered = manager()
        entered.__enter__()
        return lambda: entered.__exit__(None, None, None)

    return Case(title, enter, partial(weighing, parametrization), of="mode")


autocast = partial(torch.autocast, "cpu", torch.bfloat16)


@contextmanager
def switched(switch: Callable[[Any], object], on: Any, off: Any) -> Iterator[None]:
    switch(on)
    try:
        yield
    finally:
        switch(off)


default_dtype = partial(switched, torch.set_default_dtype, torch.float64, torch.float32)
default_device = partial(switched, torch.set_default_device, "cpu", None)
precision = partial(switched, torch.set_float32_matmul_precision, "medium", "highest")


class Tripling(TorchFunctionMode):
    """Lets `torch.mul` give another number."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return 3 * result if func is torch.mul else result


def in_python_module() -> Bound:
    module: Any = ModuleType("settings")
    module.scale = 1.0
    return of_attribute(module, lambda X: X * module.scale)


def in_environment() -> Bound:
    os.environ["PARAMDESC_SCALE"] = "1"
    return Bound(
        lambda X: X * float(os.environ["PARAMDESC_SCALE"]),
        lambda: None,
        lambda new: os.environ.__setitem__("PARAMDESC_SCALE", str(new)),
    )


def by_setting(X: Tensor) -> Tensor:
    return X * (3 if torch.get_float32_matmul_precision() == "medium" else 1)


def by_array() -> tuple[Any, Any]:
    array = np.ones((), dtype=np.float32)
    return array, held([array], lambda h: torch.from_numpy(h[0]))


def write_array(b: Bound) -> None:
    array: Any = b.map
    array.holder[0][...] = 3


def mark(value: Any) -> None:
    value.note = 1


def write_value(value: Any) -> None:
    with torch.inference_mode(value.is_inference()), torch.no_grad():
        value.add_(1)


@cache
def part() -> Any:
    return weighing(Exp()).train()


def of_a_part() -> Any:
    return weighing(lambda X: X * part().weight)


@contextmanager
def covering_all(layer: Any) -> Iterator[Any]:
    with P.cached():
        yield layer


WITH_GRADIENTS = {"with gradients": IN_A_BLOCK["with gradients"]}
IN_A_GRAPH: Columns = (WITH_GRADIENTS, {}, {})
WITH_LEAVES: Columns = (WITH_GRADIENTS | {"deferred": IN_A_BLOCK["deferred"]}, {}, {})
OF_PLAIN_VALUES = (
    {"ordinary": IN_A_BLOCK["ordinary"]},
    LASTING,
    NOT_COMPARED,
)


def backward(value: Any) -> None:
    value.sum().backward()


def backward_of_part(_: Any) -> None:
    part().weight.sum().backward()


GROUPS: dict[str, list[Case]] = {
    "Training and loading": [
        *(Case("a step of an optimizer, also a fused one", step(name)) for name in PLAIN),
        Case("a step of an optimizer that writes to `.data`", step("writes to .data")),
        Case("a step of an optimizer that has other parameters", step_of_others),
        Case("`layer.weight = value`", assign),
        *(
            Case("`load_state_dict`, also with `assign=True`", partial(load, assign=assign_))
            for assign_ in (False, True)
        ),
        Case("a conversion: `.double()`, `.to(device)`", lambda m: m.double()),
        Case("`requires_grad_`", lambda m: m.requires_grad_(False)),
        Case("`train()`, `eval()`", lambda m: m.train(not m.training), counting),
        Case(
            "a parametrization added or removed",
            lambda m: P.register_parametrization(m, "weight", torch.sin),
        ),
        Case(
            "FSDP (`fully_shard`) gathers a changed original",
            print,
            columns=({"ordinary": IN_A_BLOCK["ordinary"]}, LASTING, NOT_COMPARED),
            try_=try_gathered,
        ),
    ],
    "Writes to an original, or to another tensor that is used": [
        Case("in place: `p.add_(1)`, `p.view(-1)[0] = 1`", lambda m: original_of(m).add_(1)),
        Case("in place, a buffer of a parametrization", own(lambda p: p.scale.mul_(2)), counting),
        Case("another tensor in its place", rebind),
        Case(
            "`p.data = other` (another view of the same memory: not in an open block)", replace_data
        ),
        Case("`p.data.copy_(average)`", lambda m: original_of(m).data.copy_(torch.ones(3, 3))),
        Case("`p.data.add_(1)` for a buffer", own(lambda p: p.scale.data.add_(1)), counting),
        Case("a collective: `dist.broadcast(p, 0)`, `dist.all_reduce(p)`", by_collective),
        Case("a NumPy array that shares its memory", by_numpy),
        Case(
            "through `.data`, only a few entries of a large tensor",
            write_one_entry,
            partial(weighing, Double(), 100),
        ),
    ],
    "What a parametrization uses": [
        *replaced("its attributes", "attribute", "attribute of an object that is a map"),
        *replaced(
            "numbers and tensors in lists, tuples, dicts and sets, also nested",
            *("list in a list", "dict in a dict", "set", "list in a tuple"),
        ),
        *replaced(
            "attributes of the objects and modules that it holds",
            *("dataclass", "plain object", "slots", "module in a list", "property"),
        ),
        *replaced(
            "closures, defaults, `functools.partial`, methods of objects",
            *("closure", "closure of a closure", "default", "keyword default", "partial"),
            *("bound method", "attribute of a function"),
        ),
        *replaced("attributes of imported modules: `settings.scale`", "imported module"),
        *replaced("global names", "global name", "global name that a module's forward reads"),
        bound(
            "a class attribute, a tensor written to in place",
            lambda: in_class_attribute(torch.tensor(1.0)),
            lambda b: b.get().mul_(3),
        ),
        bound(
            "a class attribute, another number",
            lambda: in_class_attribute(1.0),
            lambda b: b.put(3.0),
        ),
        bound(
            "a class attribute, another tensor",
            lambda: in_class_attribute(torch.tensor(1.0)),
            lambda b: b.put(torch.tensor(3.0)),
        ),
        bound(
            "objects that hide their state, such as a `deque`: a tensor written to in place",
            lambda: held(collections.deque([torch.tensor(1.0)]), lambda h: h[0]),
            lambda b: b.get().mul_(3),
        ),
        bound(
            "objects that hide their state: a number or another tensor",
            lambda: held(collections.deque([1.0]), lambda h: h[0], lambda h, new: h.append(new)),
            lambda b: (b.put(3.0), b.map.holder.popleft())[0],  # type: ignore[attr-defined]
        ),
        bound(
            "an attribute of a Python module that is held in a closure or an object",
            in_python_module,
            lambda b: b.put(3.0),
        ),
        bound("a NumPy array", lambda: by_array()[1], write_array),
        bound("an environment variable, a file, the time", in_environment, lambda b: b.put(3)),
    ],
    "Hooks": [
        Case(
            "a hook of a parametrization added or removed",
            hook(lambda m: chain_of(m)[0].register_forward_hook(lambda *a: a[2] + 1)),
        ),
        Case(
            "a hook of all modules added or removed",
            hook(
                lambda m: nn.modules.module.register_module_forward_hook(
                    lambda module, args, output: output + 1 if module is chain_of(m)[0] else None
                )
            ),
        ),
        bound(
            "a tensor that a hook uses, written to in place",
            lambda: in_hook(torch.tensor(1.0)),
            lambda b: b.get().mul_(3),
        ),
        bound("a number that a hook uses", lambda: in_hook(1.0), lambda b: b.put(3.0)),
    ],
    "Modes": [
        of_mode("autocast", autocast, lambda X: X @ X),
        of_mode("the default dtype", default_dtype, lambda X: X * torch.ones(1)),
        of_mode("a `TorchFunctionMode` of your own", Tripling, lambda X: torch.mul(X, 2)),
        of_mode("the default device", default_device, Double()),
        of_mode("another global setting of torch", precision, by_setting),
    ],
    "The value itself": [
        Case("written to in place", write_value, of="value", columns=OF_PLAIN_VALUES),
        Case("given an attribute", mark, of="value"),
        Case(
            "given a hook",
            lambda v: v.register_hook(lambda gradient: gradient),
            of="value",
            columns=WITH_LEAVES,
        ),
        Case(
            "`requires_grad_()`",
            lambda v: v.requires_grad_(),
            of="value",
            columns=({"ordinary": IN_A_BLOCK["ordinary"]}, LASTING, NOT_COMPARED),
        ),
        Case("a backward pass through it", backward, of="value", columns=IN_A_GRAPH),
        Case(
            "a backward pass through a cached value that it was computed from",
            backward_of_part,
            of_a_part,
            of="value",
            columns=({"with gradients": covering_all}, {}, {}),
        ),
    ],
}
