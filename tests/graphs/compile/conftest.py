"""A backend that counts, and a layer with the map that it counts."""

from __future__ import annotations

import pytest
from torch import nn

from tests.graphs.backend import Graphs
from tests.helpers import Exp, linear


@pytest.fixture
def graphs() -> Graphs:
    return Graphs()


@pytest.fixture
def layer() -> nn.Linear:
    return linear(Exp())
