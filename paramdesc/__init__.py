"""Weights that are functions of other tensors, on any `nn.Module`, in place."""

from paramdesc import jit, parametrizations
from paramdesc.adoption import adopt
from paramdesc.base import Parametrization
from paramdesc.caching import cached
from paramdesc.chain import ParametrizationList
from paramdesc.collection import ParametrizationSet, get_parametrizations
from paramdesc.decorator import parametrized
from paramdesc.protocols import InvertibleParametrizationProto, ParametrizationProto
from paramdesc.registration import (
    is_parametrized,
    register_parametrization,
    remove_parametrizations,
    transfer_parametrizations_and_params,
    type_before_parametrizations,
)
from paramdesc.scopes import Scope

cache = cached

__all__ = [
    "InvertibleParametrizationProto",
    "Parametrization",
    "ParametrizationList",
    "ParametrizationProto",
    "ParametrizationSet",
    "Scope",
    "adopt",
    "cache",
    "cached",
    "get_parametrizations",
    "is_parametrized",
    "jit",
    "parametrizations",
    "parametrized",
    "register_parametrization",
    "remove_parametrizations",
    "transfer_parametrizations_and_params",
    "type_before_parametrizations",
]
