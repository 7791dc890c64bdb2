"""The twin of a chain of maps: the parts that depend on the chain are generated as text."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.chain.function_map import FunctionMap
from paramdesc.chain.warm import warm_maps
from paramdesc.jit.chain import ScriptedParametrizationList
from paramdesc.jit.paths import child_expression, find_expressions, tensor_expression
from paramdesc.jit.replicas import parametrized_names, property_text, replica, twin_class
from paramdesc.jit.source import functions_in, keep_source
from paramdesc.registration.parametrization_list import ParametrizationList

__all__ = ["make_list"]


def make_list(chain: ParametrizationList, children: dict[str, Module | None]) -> Module:
    """The twin of `chain`, whose children have their twins already."""
    count = len(chain.original_names())
    for name, child in children.items():
        if name.isdigit() and child is not None:
            children[name] = make_map(child, count if name == "0" else 1)
    text = list_text(chain)
    keep_source(text)
    twin = replica(chain, list_class(text), children)
    versions = chain.__dict__["_steps"].versions if "_steps" in chain.__dict__ else {}
    for name in ("_steps", "_stepped", "_transient", "host", "unsafe", "is_tensor", "ntensors"):
        twin.__dict__.pop(name, None)
    twin.__dict__.update(
        scopes=0,
        entries=torch.empty(0),
        entered=0,
        is_kept=False,
        kept=torch.empty(0),
        kept_version=-1,
        kept_grad=False,
        kept_inference=False,
        kept_dtype=torch.float32,
        kept_lowered=False,
        steps=[versions.get(id(tensor), 0) for _, tensor in trained_tensors(chain)],
    )
    for i, _ in enumerate(watched_tensors(chain)):
        twin.__dict__.update(
            {f"version_{i}": 0, f"needs_gradient_{i}": False, f"memory_{i}": torch.empty(0)}
        )
    for i in range(len(list(chain.modules())) - 1):
        twin.__dict__[f"training_{i}"] = False
    return twin


def make_map(parametrization: Module, count: int) -> Module:
    """The twin of a map of `count` tensors, if its `forward` takes any number of them."""
    if not isinstance(parametrization, FunctionMap):
        return parametrization
    names = [f"X{i}" for i in range(count)]
    arguments = ", ".join(f"{name}: Tensor" for name in names)
    body = f"return self.function({', '.join(names)})"
    text = f"def forward(self, {arguments}) -> Tensor:\n    {body}\n"
    cls: Any = type(parametrization)
    keep_source(text)
    return replica(parametrization, twin_class(cls, text), dict(parametrization._modules))


@functools.cache
def list_class(text: str) -> type:
    cls = ScriptedParametrizationList
    members = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    return type(cls.__name__, (cls,), {**members, **functions_in(text)})


def trained_tensors(chain: ParametrizationList) -> list[tuple[str, Tensor]]:
    """What a training step writes to in `chain`, with an expression for each."""
    return [
        (place + tensor_expression(module, name), tensor)
        for module, place in find_expressions(chain)
        for name, tensor in (
            *module._parameters.items(),
            *(module._buffers.items() if module is chain else ()),
        )
        if tensor is not None and place and tensor_expression(module, name)
    ]


def watched_tensors(chain: ParametrizationList) -> list[str]:
    """Expressions for all tensors that the value of `chain` depends on."""
    return [
        place + step if (step := tensor_expression(module, name)) else ""
        for module, place in find_expressions(chain)
        for holder in (module._parameters, module._buffers, vars(module))
        for name, tensor in holder.items()
        if isinstance(tensor, Tensor)
    ]


def list_text(chain: ParametrizationList) -> str:
    """The methods of the twin of `chain` that depend on its form."""
    tensors = watched_tensors(chain)
    places = [place for module, place in find_expressions(chain) if module is not chain]
    text = "".join(map(property_text, parametrized_names(chain))) + evaluate_text(chain)
    if not all([*places, *tensors]):
        # what TorchScript cannot name it cannot watch, so nothing is kept
        return f"{text}def forward(self) -> Tensor:\n    return self.evaluate()\n"
    counted, same, remember, forget = ["True"], ["True"], ["pass"], ["pass"]
    for i, x in enumerate(tensors):
        counted.append(f"(not {x}.is_inference())")
        same += [
            f"({x}._version() == self.version_{i})",
            f"({x}.requires_grad == self.needs_gradient_{i})",
            f"{x}.is_set_to(self.memory_{i})",
        ]
        remember += [
            f"self.version_{i} = {x}._version()",
            f"self.needs_gradient_{i} = {x}.requires_grad",
            f"self.memory_{i} = {x}.detach()",
        ]
        forget.append(f"self.memory_{i} = torch.empty(0)")
    for i, place in enumerate(places):
        same.append(f"({place}.training == self.training_{i})")
        remember.append(f"self.training_{i} = {place}.training")
    return (
        f"{text}def is_counted(self) -> bool:\n    return {' & '.join(counted)}\n"
        f"def is_same(self) -> bool:\n    return {' & '.join(same)}\n"
        f"def remember(self) -> None:\n    {indented(remember)}\n"
        f"def forget_memory(self) -> None:\n    {indented(forget)}\n"
    )


def indented(lines: Sequence[str]) -> str:
    return "\n    ".join(lines)


def evaluate_text(chain: ParametrizationList) -> str:
    """The method that applies the maps, and notifies those with a state of a training step."""
    lines = []
    arguments = ", ".join(f"self.{name}" for name in chain.original_names())
    for i, _ in enumerate(chain.maps()):
        lines.append(f"value = self{child_expression(chain, str(i))}({arguments})")
        arguments = "value"
    body = "".join(f"    {line}\n" for line in lines) + "    return value\n"
    warm = set(warm_maps(chain).values())
    if not warm:
        return f"def evaluate(self) -> Tensor:\n{body}"
    due = "".join(
        f"        {place}.is_due = {place}.training\n"
        for module, place in find_expressions(chain)
        if module in warm and place
    )
    places = [place for place, _ in trained_tensors(chain)]
    versions = ", ".join(f"0 if {x}.is_inference() else {x}._version()" for x in places)
    return (
        f"def evaluate(self) -> Tensor:\n    if self.has_stepped():\n{due}{body}"
        "def has_stepped(self) -> bool:\n"
        "    stepped = False\n"
        "    if self.training:\n"
        f"        now = [{versions}]\n"
        "        for i, version in enumerate(now):\n"
        "            if version > self.steps[i]:\n"
        "                stepped = True\n"
        "        self.steps = now\n"
        "    return stepped\n"
    )
