"""Weights that are functions of other tensors, on any `nn.Module`, in place."""

from paramdesc.adoption import adopt
from paramdesc.cache import Scope
from paramdesc.chain import ParametrizationList
from paramdesc.collection import ParametrizationSet, get_parametrizations
from paramdesc.protocols import InvertibleParametrizationProto, ParametrizationProto
from paramdesc.registration import (
    is_parametrized,
    register_parametrization,
    remove_parametrizations,
    transfer_parametrizations_and_params,
    type_before_parametrizations,
)
from paramdesc.scope import cached

cache = cached

__all__ = [
    "InvertibleParametrizationProto",
    "ParametrizationList",
    "ParametrizationProto",
    "ParametrizationSet",
    "Scope",
    "adopt",
    "cache",
    "cached",
    "get_parametrizations",
    "is_parametrized",
    "register_parametrization",
    "remove_parametrizations",
    "transfer_parametrizations_and_params",
    "type_before_parametrizations",
]
