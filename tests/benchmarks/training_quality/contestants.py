"""Ways to constrain a weight: by a map of paramdesc, by a peer, by hand."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrizations as torch_functions
from torch.nn.utils import parametrize as torch_engine
from torch.optim import Optimizer

import paramdesc
from tests.benchmarks.training_quality.problem import Contestant, Trainee

__all__ = [
    "PEERS",
    "by_geoopt",
    "by_geotorch",
    "by_hand",
    "by_pogo",
    "by_torch",
    "is_there",
    "ours",
]

PEERS = {"geoopt": "geoopt", "geotorch": "geotorch", "POGO": "pogo"}
"""The libraries that may be missing, and the modules that they are imported as."""


def is_there(library: str) -> bool:
    return library not in PEERS or importlib.util.find_spec(PEERS[library]) is not None


def imported(library: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(PEERS[library])


def module_with(weight: Tensor) -> Any:
    module: Any = nn.Module()
    module.weight = nn.Parameter(weight.clone())
    return module


def reading(module: Any) -> Trainee:
    return Trainee(lambda: module.weight, list(module.parameters()))


def ours(new_map: Callable[[], nn.Module]) -> Contestant:
    """A map of paramdesc."""

    def make(start: Tensor) -> Trainee:
        module = module_with(start)
        paramdesc.register_parametrization(module, "weight", new_map(), unsafe=True)
        return reading(module)

    return Contestant("paramdesc", make)


def by_torch(function: str, **arguments: Any) -> Contestant:
    """A function of torch.nn.utils.parametrizations."""

    def make(start: Tensor) -> Trainee:
        module: Any = nn.Linear(start.shape[1], start.shape[0], bias=False)
        module.weight = nn.Parameter(start.clone())
        getattr(torch_functions, function)(module, **arguments)
        return reading(module)

    return Contestant("torch", make)


def by_geotorch(new_map: Callable[[Any, Any], nn.Module]) -> Contestant:
    """A map of geotorch; `new_map` takes the library and the shape of the weight."""

    def make(start: Tensor) -> Trainee:
        module = module_with(start)
        new: Any = new_map(imported("geotorch"), start.shape)
        inverse = getattr(new, "right_inverse", None)
        if inverse and "check_in_manifold" in signature(inverse).parameters:  # rounding fails it
            new.right_inverse = partial(inverse, check_in_manifold=False)
        torch_engine.register_parametrization(module, "weight", new, unsafe=True)
        return reading(module)

    return Contestant("geotorch", make)


def by_hand(
    value: Callable[..., Tensor], originals: Callable[[Tensor], Tensor | tuple[Tensor, ...]]
) -> Contestant:
    """A formula, evaluated without an engine, and the originals that give the first value."""

    def make(start: Tensor) -> Trainee:
        found = originals(start)
        tensors = found if isinstance(found, tuple) else (found,)
        parameters = [nn.Parameter(X.clone().contiguous()) for X in tensors]
        return Trainee(lambda: value(*parameters), parameters)

    return Contestant("by hand", make)


def by_geoopt(new_manifold: Callable[[Any], Any]) -> Contestant:
    """A manifold of geoopt with its optimizers; `new_manifold` takes the library."""

    def make(start: Tensor) -> Trainee:
        geoopt = imported("geoopt")
        parameter = geoopt.ManifoldParameter(start.clone(), manifold=new_manifold(geoopt))

        def optimizer(
            parameters: Sequence[nn.Parameter], name: str, rate: float
        ) -> Optimizer | None:
            if name == "AdamW":
                return None
            kind = "RiemannianAdam" if name == "Adam" else "RiemannianSGD"
            arguments = {"momentum": 0.9} if name == "momentum" else {}
            new: Optimizer = getattr(geoopt.optim, kind)(parameters, lr=rate, **arguments)
            return new

        return Trainee(lambda: parameter, [parameter], optimizer)

    return Contestant("geoopt", make)


def by_pogo() -> Contestant:
    """The optimizer POGO, for orthonormal rows or columns."""

    def make(start: Tensor) -> Trainee:
        pogo = imported("POGO")
        bases = importlib.import_module("pogo.base")
        parameter = nn.Parameter(start.clone().unsqueeze(0))
        is_wide = start.shape[0] <= start.shape[1]

        def optimizer(
            parameters: Sequence[nn.Parameter], name: str, rate: float
        ) -> Optimizer | None:
            if name == "AdamW":
                return None
            momentum = 0.9 if name == "momentum" else 0.0
            base = bases.VectorAdam() if name == "Adam" else bases.SGD(momentum=momentum)
            new: Optimizer = pogo.POGO(parameters, base, lr=rate, rows=is_wide)
            return new

        return Trainee(lambda: parameter[0], [parameter], optimizer)

    return Contestant("POGO", make)
