"""Weights that are functions of other tensors, on any `nn.Module`, in place."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from paramdesc import jit
from paramdesc.cache.automatic import auto_cache
from paramdesc.cache.cached import cached
from paramdesc.cache.record import Cause, Reason
from paramdesc.cache.report import CacheReport, CacheRow
from paramdesc.cache.scopes import Scope
from paramdesc.chain.parametrization import Parametrization
from paramdesc.chain.protocols import InvertibleParametrizationProto, ParametrizationProto
from paramdesc.registration.adoption import adopt
from paramdesc.registration.collection import ParametrizationSet, get_parametrizations
from paramdesc.registration.decorator import parametrized
from paramdesc.registration.parametrization_list import ParametrizationList
from paramdesc.registration.register import (
    is_parametrized,
    register_parametrization,
    remove_parametrizations,
    transfer_parametrizations_and_params,
    type_before_parametrizations,
)

if TYPE_CHECKING:
    from paramdesc import parametrizations, testing

cache = cached

__all__ = [
    "CacheReport",
    "CacheRow",
    "Cause",
    "InvertibleParametrizationProto",
    "Parametrization",
    "ParametrizationList",
    "ParametrizationProto",
    "ParametrizationSet",
    "Reason",
    "Scope",
    "adopt",
    "auto_cache",
    "cache",
    "cached",
    "get_parametrizations",
    "is_parametrized",
    "jit",
    "parametrizations",
    "parametrized",
    "register_parametrization",
    "remove_parametrizations",
    "testing",
    "transfer_parametrizations_and_params",
    "type_before_parametrizations",
]


def __getattr__(name: str) -> Any:
    if name in ("parametrizations", "testing"):  # to import them takes as long as all the rest
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), "parametrizations", "testing"]
