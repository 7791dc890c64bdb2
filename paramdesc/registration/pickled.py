"""The names in pickles of models: `paramdesc.<name>`, wherever the code lives.

A pickle names classes and functions by their module, so every file that is moved or renamed would
break the pickles made before. Everything that may occur in a pickle of a model or of a report is
listed here, and keeps its name permanently.

A class that is listed has no source for `inspect`, and its annotations must not be text, which
would be looked up in the package. So `cached`, whose source TorchScript reads, and
`Parametrization`, which is annotated and pickled only by way of its subclasses, are not here.
"""

from paramdesc import caching, chain, registration
from paramdesc.caching.automatic import (
    auto_cache,
    enter_batched_forward_pass,
    enter_forward_pass,
    leave_forward_pass,
)
from paramdesc.caching.cached import cached
from paramdesc.caching.record import Cause, Reason
from paramdesc.caching.report import CacheReport, CacheRow
from paramdesc.caching.scopes import Scope
from paramdesc.caching.slots import Slot
from paramdesc.caching.traced_scopes import OpenScopes
from paramdesc.chain.function_map import FunctionMap, InvertibleFunctionMap
from paramdesc.chain.states import count_loaded
from paramdesc.registration.adoption import WeightNormNames, adopt
from paramdesc.registration.attribute import ParametrizedTensor
from paramdesc.registration.collection import ParametrizationSet, get_parametrizations
from paramdesc.registration.container import ParametrizationDict
from paramdesc.registration.decorator import parametrized
from paramdesc.registration.lazy import PendingRegistration
from paramdesc.registration.local_classes import new_instance
from paramdesc.registration.namespace import AttributeNamespace
from paramdesc.registration.parametrization_list import ParametrizationList
from paramdesc.registration.plain_keys import PlainKeys
from paramdesc.registration.questions import is_parametrized, type_before_parametrizations
from paramdesc.registration.register import register_parametrization
from paramdesc.registration.remove import remove_parametrizations
from paramdesc.registration.transfer import transfer_parametrizations_and_params

__all__ = [
    "AttributeNamespace",
    "CacheReport",
    "CacheRow",
    "Cause",
    "FunctionMap",
    "InvertibleFunctionMap",
    "OpenScopes",
    "ParametrizationDict",
    "ParametrizationList",
    "ParametrizationSet",
    "ParametrizedTensor",
    "PendingRegistration",
    "PlainKeys",
    "Reason",
    "Scope",
    "Slot",
    "WeightNormNames",
    "adopt",
    "auto_cache",
    "count_loaded",
    "enter_batched_forward_pass",
    "enter_forward_pass",
    "get_parametrizations",
    "is_parametrized",
    "leave_forward_pass",
    "new_instance",
    "parametrized",
    "register_parametrization",
    "remove_parametrizations",
    "transfer_parametrizations_and_params",
    "type_before_parametrizations",
]


def name_for_good(package: str) -> None:
    """Let pickle look for each of these in `package`, and where earlier versions had three of them.

    The modules that had the others are in `former`; the modules of these three are packages now.
    """
    for name in __all__:
        globals()[name].__module__ = package
    vars(chain)["ParametrizationList"] = ParametrizationList
    vars(caching)["cached"] = cached
    vars(registration)["register_parametrization"] = register_parametrization
