"""No test of the cache may leave a scope open."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from paramdesc.caching.active import active_scopes, close_innermost
from paramdesc.caching.traced_scopes import TRACED
from tests.helpers import Exp


@pytest.fixture(autouse=True)
def no_scope_is_left() -> Iterator[None]:
    Exp.evaluations = 0
    yield
    left = active_scopes()
    for scope in left:
        close_innermost([scope])  # so that one test fails and not all after it
    assert left == ()
    assert TRACED.scopes == ()
    assert not TRACED.opened.any


@pytest.fixture
def compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()
