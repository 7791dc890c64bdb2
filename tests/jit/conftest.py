"""Programs, and the two ways to script, that the tests of TorchScript are given."""

from typing import Any

import pytest
import torch
from torch import nn

import paramdesc as P
from tests.helpers import linear
from tests.jit.models import Counted, saved_and_loaded


@pytest.fixture(params=[torch.jit.script, P.jit.script], ids=["torch", "paramdesc"])
def script(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=["scripted", "loaded"])
def program(request: pytest.FixtureRequest) -> Any:
    """Two layers, of which the first is called twice."""
    first, second = linear(Counted()), linear(Counted())
    program = P.jit.script(nn.Sequential(first, second, first))
    return program if request.param == "scripted" else saved_and_loaded(program)
