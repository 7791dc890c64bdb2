"""Models that several tests of registration start from."""

from __future__ import annotations

from torch import nn

import paramdesc as P
from tests.helpers import Double, Shift, Sum, chain_of, linear


def nested() -> nn.Linear:
    """A chain of two maps over two originals, one of which is parametrized in its turn."""
    layer = linear(Sum())
    P.register_parametrization(layer, "weight", Double())
    P.register_parametrization(chain_of(layer), "original0", Shift())
    return layer
