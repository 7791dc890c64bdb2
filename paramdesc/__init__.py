"""Weights that are functions of other tensors, on any `nn.Module`, in place."""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from paramdesc import jit
from paramdesc.caching.automatic import auto_cache
from paramdesc.caching.cached import cached
from paramdesc.caching.invalidate import invalidate
from paramdesc.caching.record import Cause, Reason
from paramdesc.caching.report import CacheReport, CacheRow
from paramdesc.caching.scopes import Scope
from paramdesc.chain.parametrization import Parametrization
from paramdesc.chain.protocols import InvertibleParametrizationProto, ParametrizationProto
from paramdesc.models.bake import bake
from paramdesc.models.baked import Baked, BakedTensor, LeftTensor
from paramdesc.models.disabling import disabled
from paramdesc.models.parametrize import parametrize
from paramdesc.models.plain import plain_state_dict, plain_tensors
from paramdesc.models.result import ParametrizeResult
from paramdesc.models.rows import SummaryRow
from paramdesc.models.summary import Summary, summary
from paramdesc.models.tying import tie_weights
from paramdesc.registration import pickled
from paramdesc.registration.access import chain_of
from paramdesc.registration.adoption import adopt
from paramdesc.registration.collection import ParametrizationSet, get_parametrizations
from paramdesc.registration.decorator import parametrized
from paramdesc.registration.parametrization_list import ParametrizationList
from paramdesc.registration.questions import is_parametrized, type_before_parametrizations
from paramdesc.registration.register import register_parametrization
from paramdesc.registration.remove import remove_parametrizations
from paramdesc.registration.transfer import transfer_parametrizations_and_params

if TYPE_CHECKING:
    from paramdesc import parametrizations, testing

    __version__: str

cache = cached

__all__ = [
    "Baked",
    "BakedTensor",
    "CacheReport",
    "CacheRow",
    "Cause",
    "InvertibleParametrizationProto",
    "LeftTensor",
    "Parametrization",
    "ParametrizationList",
    "ParametrizationProto",
    "ParametrizationSet",
    "ParametrizeResult",
    "Reason",
    "Scope",
    "Summary",
    "SummaryRow",
    "adopt",
    "auto_cache",
    "bake",
    "cache",
    "cached",
    "chain_of",
    "disabled",
    "get_parametrizations",
    "invalidate",
    "is_parametrized",
    "jit",
    "parametrizations",
    "parametrize",
    "parametrized",
    "plain_state_dict",
    "plain_tensors",
    "register_parametrization",
    "remove_parametrizations",
    "summary",
    "testing",
    "tie_weights",
    "transfer_parametrizations_and_params",
    "type_before_parametrizations",
]


pickled.name_for_good(__name__)
__path__.append(f"{__path__[0]}/registration/former")  # modules that older pickles name


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version(__name__)
    if name in ("parametrizations", "testing"):  # to import them takes as long as all the rest
        return import_module(f"{__name__}.{name}")
    if name in pickled.__all__:
        return getattr(pickled, name)
    hint = ""
    if not name.startswith("_") and name in import_module(f"{__name__}.parametrizations").__all__:
        hint = f". It is {__name__}.parametrizations.{name}"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")


def __dir__() -> list[str]:
    return ["__version__", *__all__]
