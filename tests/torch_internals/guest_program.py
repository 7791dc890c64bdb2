"""A program that does not know paramdesc, with all that torch shows of itself; run by its tests.

It prints one line of JSON for each time it is run: before and after `use_everything`.
"""

from __future__ import annotations

import inspect
import json
import pickle
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.modules.module as modules
from torch import Tensor, nn
from torch.jit import _recursive
from torch.nn import init
from torch.nn.init import xavier_uniform_
from torch.nn.utils import _named_member_accessor, clip_grad
from torch.optim import optimizer as optimizers

OWNERS: list[Any] = [
    *(init, clip_grad, _named_member_accessor, _recursive, modules, optimizers),
    *(torch, nn, nn.utils, torch.optim, torch.func, torch.jit, torch.amp),
    *(nn.Module, nn.Linear, nn.Embedding, nn.Parameter, nn.ParameterList, Tensor),
    *(torch.optim.Optimizer, torch.optim.AdamW, torch.amp.GradScaler),
]


def fingerprint() -> dict[str, Any]:
    """What can be seen of torch without running it: objects, names, pickles, source, hooks."""
    shown: dict[str, Any] = {}
    for owner in OWNERS:
        shown[f"vars of {owner.__name__}"] = {name: id(x) for name, x in vars(owner).items()}
    for owner in (init, clip_grad, _named_member_accessor, nn.Module, torch.amp.GradScaler):
        for name, function in vars(owner).items():
            if inspect.isfunction(function) and name != "__init_subclass__":
                shown[f"{owner.__name__}.{name}"] = described(function)
    for name, hooks in vars(modules).items():
        if name.startswith("_global_") and name.endswith("_hooks"):
            shown[name] = len(hooks)
    return shown


def described(function: Any) -> list[str]:
    try:
        pickled = pickle.dumps(function).hex()
    except Exception as error:  # such as are made in a function
        pickled = type(error).__name__
    code = inspect.unwrap(function).__code__
    names = [code.co_filename, code.co_name, code.co_firstlineno, function.__name__, vars(function)]
    return [str(inspect.signature(function)), inspect.getsource(function), pickled, str(names)]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Embedding(5, 4, padding_idx=0)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 1)
        self.initialize = xavier_uniform_

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(self.rows(x)).relu())
        return y


def trained(**options: Any) -> list[Any]:
    torch.manual_seed(0)
    model, losses = Net(), []
    for module in (model.first, model.second, model.rows):
        module.reset_parameters()
    model.initialize(model.first.weight)
    init.trunc_normal_(model.second.weight, std=0.1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, **options)
    scaler = torch.amp.GradScaler("cpu")
    for _ in range(3):
        optimizer.zero_grad()
        loss = model(torch.arange(5)).square().mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        nn.utils.clip_grad_value_(iter(model.parameters()), 0.1)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    model.zero_grad()
    return [losses, [x.tolist() for x in model.parameters()], torch.rand(1).item()]


def versions(**options: Any) -> list[int]:
    """How often torch has counted a change of each parameter."""
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, **options)
    model(torch.arange(5)).sum().backward()
    optimizer.step()
    return [x._version for x in model.parameters()]


def warned() -> list[Any]:
    """Which warnings there are, and where they point to."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        init.kaiming_uniform_(torch.empty(0, 2))
        nn.utils.clip_grad_norm_((x for x in [nn.Parameter()][1:]), 1.0)
        init.uniform(torch.empty(2))
    return [(str(x.message), x.filename, x.lineno) for x in caught]


def traceback_of(call: Callable[[], Any]) -> list[Any]:
    try:
        call()
    except Exception as error:
        trace: Any = error.__traceback__
        frames = []
        while trace is not None:
            frames.append((trace.tb_frame.f_code.co_filename, trace.tb_frame.f_code.co_name))
            trace = trace.tb_next
        return [*frames, repr(error)]
    return []


class Handled(Tensor):
    """As the notes on extending torch write it: a table by function."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in TABLE:
            return TABLE[func]
        return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]


TABLE = {init.uniform_: "uniform", init.constant_: "constant", init.kaiming_uniform_: "kaiming"}


class Calls(torch.overrides.TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


def scripted(x: Tensor) -> Tensor:
    return init.constant_(torch.empty_like(x), 2.0)


def program() -> dict[str, Any]:
    """What a program gets."""
    model, handled = Net(), torch.zeros(3, 3).as_subclass(Handled)
    weights = {name: torch.ones_like(x) for name, x in model.named_parameters()}
    with Calls() as calls:
        init.xavier_uniform_(torch.empty(2, 2))
        init.zeros_(nn.Parameter(torch.empty(2, 2)))
    return {
        "trained": [trained(), trained(fused=True), trained(foreach=True)],
        "warned": warned(),
        "traceback": traceback_of(lambda: init.eye_(torch.empty(3))),
        "called": torch.func.functional_call(model, weights, torch.arange(5)).tolist(),
        "kept": bool(pickle.loads(pickle.dumps(model)).initialize is xavier_uniform_),
        "handled": [f(handled) for f in (init.uniform_, init.kaiming_uniform_)],
        "handled with a value": init.constant_(handled, 1.0),
        "calls": calls.names,
        "scripted": [
            torch.jit.script(scripted)(torch.ones(2)).tolist(),
            str(torch.jit.script(scripted).graph.block),
            torch.jit.script(nn.Linear(2, 2)).code,
        ],
        "compiled": compiled()(torch.zeros(2)).tolist(),
    }


def compiled() -> Any:
    torch._dynamo.reset()
    return torch.compile(scripted, backend="eager", fullgraph=True)


def use_torch() -> None:
    """What torch changes in itself when it is first used, here by plain models."""
    model: Any = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    x = torch.ones(1, 3)
    model(x).sum().backward()
    torch.optim.AdamW(model.parameters(), fused=True).step()
    torch.jit.script(model)(x)
    in_eager: Any = torch.compile(model, backend="eager")
    in_eager(x)


def use_everything() -> None:
    """All of paramdesc, on models of its own."""
    import paramdesc as P
    from paramdesc.parametrizations import Symmetric

    model: Any = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    for layer in model:
        P.register_parametrization(layer, "weight", Symmetric())
        init.normal_(layer.weight)
        layer.reset_parameters()
    x = torch.ones(1, 3)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    with P.cached(model, deferred=True):
        model(x).sum().backward()
    optimizer.step()
    with P.cached(), torch.no_grad():
        model(x)
    torch.jit.script(model)(x)
    P.jit.script(model)(x)
    in_eager: Any = torch.compile(model, backend="eager")
    in_eager(x)
    torch.func.functional_call(model, dict(model.named_parameters()), (x,))
    P.auto_cache(model)
    model.eval()
    with torch.no_grad():
        model(x)
    P.auto_cache(model, False)
    P.remove_parametrizations(model[0], "weight")
    handles = optimizers._global_optimizer_pre_hooks, optimizers._global_optimizer_post_hooks
    for hooks in handles:
        for hook in hooks.values():
            function = getattr(hook, "func", hook)
            assert function.__module__.startswith("paramdesc."), function


def only_import() -> None:
    import paramdesc.parametrizations
    import paramdesc.testing  # noqa: F401


USES: dict[str, Any] = {"import": (lambda: None, only_import)}
PARTS: dict[str, Callable[[], Any]] = {
    "import": fingerprint,
    "fingerprint": fingerprint,
    "program": program,
    "versions": lambda: [versions(), versions(fused=True), versions(foreach=True)],
}

if __name__ == "__main__":
    for use in USES.get(sys.argv[1], (use_torch, use_everything)):
        use()
        print(json.dumps(PARTS[sys.argv[1]]()))
