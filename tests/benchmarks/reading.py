"""Reading a parametrized tensor, and what a cached read is made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
import wrapt
from torch import Tensor, nn
from torch._C import (
    _are_functorch_transforms_active,
    _is_any_autocast_enabled,
    _is_tracing,
    _len_torch_dispatch_stack,
)
from torch.nn.utils import parametrize

import paramdesc
from tests.benchmarks.table import Goal, Table, main
from tests.benchmarks.timing import Series, in_turns, statement

__all__ = ["tables"]

TORCH, OURS = "torch.nn.utils.parametrize", "paramdesc"


class Identity(nn.Module):
    """Costs nothing, so that what is left is the engine's."""

    def forward(self, X: Tensor) -> Tensor:
        return X


def tables(quick: bool) -> Iterator[Table]:
    yield reads(quick)
    yield parts(quick)


def layer(engine: Any = None) -> nn.Module:
    module = nn.Linear(3, 3)
    if engine is not None:
        engine.register_parametrization(module, "weight", Identity())
    return module


def buffer_layer() -> nn.Module:
    module = nn.Linear(3, 3)
    del module.weight
    module.register_buffer("weight", torch.ones(3, 3))
    return module


def reads(quick: bool) -> Table:
    """How long `layer.weight` takes."""
    times, rounds = slices(quick)
    modules = {
        "a parameter": layer(),
        "a buffer": buffer_layer(),
        TORCH: layer(parametrize),
        OURS: layer(paramdesc),
    }
    clocks = {name: statement("m.weight", times, m=module) for name, module in modules.items()}
    fresh = in_turns(clocks, rounds)
    with parametrize.cached(), paramdesc.cached():
        cached = in_turns(clocks, rounds)

    def row(series: Series, name: str) -> tuple[float, ...]:
        return series.ratio(name, "a parameter"), series.median(name) / times * 1e9

    return Table(
        "Reading a parametrized tensor",
        "The time of `layer.weight` for an `nn.Linear` of size 3 with the identity as its map, in "
        "plain reads of a parameter.",
        ("times a plain read", "nanoseconds"),
        {
            "a parameter": row(fresh, "a parameter"),
            "a buffer": row(fresh, "a buffer"),
            **{f"{name}, uncached": row(fresh, name) for name in (TORCH, OURS)},
            **{f"{name}, cached": row(cached, name) for name in (TORCH, OURS)},
        },
        [
            Goal(
                "paramdesc's overhead over a plain read, uncached, as a fraction of torch's,",
                0.2,
                fresh.fraction(OURS, TORCH, "a parameter"),
            ),
            Goal("a cached read, in plain reads,", 1.5, cached.ratio(OURS, "a parameter")),
        ],
        [
            "torch's cached read checks nothing: it gives the old value after an optimizer step, "
            "an assignment or a conversion, and in another grad mode or thread. paramdesc's is "
            "checked against all of these; the next table says what that costs."
        ],
    )


def slices(quick: bool) -> tuple[int, int]:
    """How many reads a round makes of each kind, and how many rounds."""
    return (200, 1) if quick else (500, 201)


# what a cached read must ask, as expressions; `t` is a tensor
GETTERS = {
    "grad mode": "grad()",
    "inference mode": "inference()",
    "autocast, on any device": "autocast()",
    "function transforms": "transforms()",
    "dispatch modes": "modes()",
    "`torch.jit` trace": "trace()",
    "`_version` of a tensor": "t._version",
    "`data_ptr` of a tensor": "t.data_ptr()",
}
PARTS = {
    "a call of a Python function": "call()",
    "`ContextVar.get`": "variable()",
    "`torch.compiler.is_dynamo_compiling`": "compiling()",
    **GETTERS,
}
ALL = "all getters once, `_version` twice"
NAMES: dict[str, Any] = {
    "call": lambda: None,
    "variable": ContextVar[tuple[()]]("scopes", default=()).get,
    "compiling": torch.compiler.is_dynamo_compiling,
    "grad": torch.is_grad_enabled,
    "inference": torch.is_inference_mode_enabled,
    "autocast": _is_any_autocast_enabled,
    "transforms": _are_functorch_transforms_active,
    "modes": _len_torch_dispatch_stack,
    "trace": _is_tracing,
    "t": torch.ones(3, 3),
}


class Namespace(wrapt.BaseObjectProxy[dict[str, Any]]):
    """Stands where a module's buffers do and hands out what it wraps, as paramdesc's does."""

    __getattribute__ = object.__getattribute__

    def __getitem__(self, name: str) -> Any:
        return self.__wrapped__[name]


def probe(source: str) -> nn.Module:
    """A module whose buffers are read through a namespace that also executes `source`."""
    body = f"def __getitem__(self, name):\n    {source}\n    return self.__wrapped__[name]"
    members: dict[str, Any] = {}
    exec(body, dict(NAMES), members)
    module = buffer_layer()
    namespace = type("Probe", (Namespace,), members)
    module.__dict__["_buffers"] = namespace(module._buffers)
    return module


def parts(quick: bool) -> Table:
    """What a cached read takes, part by part."""
    times, rounds = slices(quick)
    failed = "try: look(m, 'missing')\nexcept AttributeError: pass"
    everything = "; ".join([*GETTERS.values(), GETTERS["`_version` of a tensor"]])
    bodies = {**PARTS, ALL: everything}
    modules = {
        "a parameter": layer(),
        "a buffer": buffer_layer(),
        "a namespace": probe("pass"),
        OURS: layer(paramdesc),
        **{f"with {part}": probe(source) for part, source in bodies.items()},
    }
    clocks = {
        "an empty loop": statement("pass", times),
        "a failed lookup": statement(failed, times, m=layer(), look=object.__getattribute__),
        **{part: statement(source, times, **NAMES) for part, source in bodies.items()},
        **{name: statement("m.weight", times, m=module) for name, module in modules.items()},
    }
    with paramdesc.cached():
        series = in_turns(clocks, rounds)

    def took(case: str) -> float:
        return series.ratio(case, "a parameter")

    return Table(
        "What a cached read is made of",
        "The parts in plain reads of a parameter: in a loop of its own, and a whole read of a "
        "buffer whose namespace also executes the part. The same part takes longer there, where "
        "it comes after the failed lookup and not after itself.",
        ("alone", "a read with it"),
        {
            "an empty loop": (took("an empty loop"), None),
            "the failed lookup before `nn.Module.__getattr__`": (took("a failed lookup"), None),
            "a buffer": (None, took("a buffer")),
            "a buffer, through a proxy with a Python `__getitem__`": (None, took("a namespace")),
            **{part: (took(part), took(f"with {part}")) for part in bodies},
            f"{OURS}, cached": (None, took(OURS)),
        },
        notes=[
            "Each getter is one call into torch; no public one answers for several. So "
            f"Python code that makes these checks takes {took(f'with {ALL}'):.2g} plain reads, "
            "whatever else it does. What paramdesc takes beyond that finds the scope and the "
            "entry, and compares the tensors, the maps and their attributes by identity."
        ],
    )


if __name__ == "__main__":
    main(tables, __doc__)
