"""The five variants that are compared: how each makes the network, and where it caches."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from torch.nn.utils import parametrize as torch_engine

from paramdesc.caching.cached import cached
from paramdesc.commands.demo.maps import CountedOrthogonal
from paramdesc.commands.demo.model import (
    N_POWER_ITERATIONS,
    BoundedReadout,
    Cell,
    OrthogonalCell,
    Reader,
    Readout,
)
from paramdesc.parametrizations import SpectralNorm

__all__ = ["VARIANTS", "Variant"]

MakeScope = Callable[[Reader], AbstractContextManager[Any]]


def no_scope(model: Reader) -> AbstractContextManager[Any]:
    return nullcontext()


def torch_scope(model: Reader) -> AbstractContextManager[Any]:
    return torch_engine.cached()


class Variant(NamedTuple):
    """One way to train the network. All of them draw the same initial values."""

    name: str
    make: Callable[[], Reader]
    step_scope: MakeScope = no_scope
    """Open around a whole training step, optimizer step included."""
    forward_scope: MakeScope = no_scope
    """Open around the forward pass and the loss only."""


def make_plain() -> Reader:
    """Without any map."""
    return Reader(Cell(), Readout())


def make_with_torch() -> Reader:
    """With the maps under `torch.nn.utils.parametrize`."""
    cell, readout = Cell(), Readout()
    torch_engine.register_parametrization(cell, "weight_hh", CountedOrthogonal())
    norm = SpectralNorm(n_power_iterations=N_POWER_ITERATIONS)
    torch_engine.register_parametrization(readout, "weight", norm)
    return Reader(cell, readout)


def make_with_paramdesc() -> Reader:
    """With the maps under paramdesc."""
    return Reader(OrthogonalCell(), BoundedReadout())


VARIANTS = (
    Variant("plain RNN", make_plain),
    Variant("torch", make_with_torch),
    # after the optimizer's step torch's cache would hold a weight that is out of date
    Variant("torch, cached", make_with_torch, forward_scope=torch_scope),
    Variant("paramdesc", make_with_paramdesc),
    Variant("paramdesc, cached", make_with_paramdesc, step_scope=cached),
)
