"""Each model, and each way to copy it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from tests.registration.copies.models import COPIES, MODELS


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    return MODELS[request.param]()


@pytest.fixture(params=COPIES)
def make_copy(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    return COPIES[request.param]
