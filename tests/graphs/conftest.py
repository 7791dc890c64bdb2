"""Each test compiles anew, and leaves no scope to the next."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from paramdesc.caching.traced_scopes import TRACED
from tests.helpers import Exp


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    Exp.evaluations = 0
    yield
    assert TRACED.scopes == ()
    assert not TRACED.opened.any
