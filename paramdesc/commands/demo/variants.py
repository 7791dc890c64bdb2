"""The variants that are compared: how each makes the network, trains it and serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

from torch.nn.utils import parametrizations as torch_parametrizations
from torch.nn.utils import parametrize as torch_engine

from paramdesc.caching.automatic import auto_cache
from paramdesc.caching.cached import cached
from paramdesc.commands.demo.model import HandWritten, Reader
from paramdesc.parametrizations import Orthogonal, SpectralNorm
from paramdesc.registration.register import register_parametrization

__all__ = ["VARIANTS", "Variant"]

MakeScope = Callable[[Reader], AbstractContextManager[Any]]


def no_scope(model: Reader) -> AbstractContextManager[Any]:
    return nullcontext()


def torch_scope(model: Reader) -> AbstractContextManager[Any]:
    return torch_engine.cached()


@contextmanager
def served(model: Reader) -> Iterator[None]:
    auto_cache(model)
    try:
        yield
    finally:
        auto_cache(model, enabled=False)


class Variant(NamedTuple):
    """One way to train the network. All start from the same values."""

    name: str
    make: Callable[[], Reader]
    training_scope: MakeScope = no_scope
    """Open around the forward and the backward pass."""
    serving_scope: MakeScope = no_scope
    """Open while a trained model answers requests."""


def make_with_torch() -> Reader:
    """With the parametrizations that torch ships, and their default arguments."""
    model = Reader()
    torch_parametrizations.orthogonal(model.cell, "weight_hh")
    torch_parametrizations.spectral_norm(model.readout)
    return model


def make_with_paramdesc() -> Reader:
    """With paramdesc's parametrizations, and their default arguments."""
    model = Reader()
    register_parametrization(model.cell, "weight_hh", Orthogonal())
    register_parametrization(model.readout, "weight", SpectralNorm())
    return model


VARIANTS = (
    Variant("plain", Reader),
    Variant("by hand", HandWritten),
    Variant("torch", make_with_torch, torch_scope, torch_scope),
    Variant("paramdesc", make_with_paramdesc, cached, served),
)
