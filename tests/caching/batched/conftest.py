"""Small groups are evaluated together as well, though it does not pay on a CPU."""

from __future__ import annotations

import pytest
from torch import Tensor

from paramdesc.caching import together


def pays_together(X: Tensor, count: int, is_matrix_function: bool) -> bool:
    return count > 1 and X.numel() < 10_000


@pytest.fixture(autouse=True)
def batches_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "pays_together", pays_together)
