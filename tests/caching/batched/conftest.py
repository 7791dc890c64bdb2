"""Small groups are evaluated together as well, though it does not pay on a CPU."""

from __future__ import annotations

import pytest
from torch import Tensor

from paramdesc.caching import together


def fewest_together(X: Tensor, is_matrix_function: bool, is_iterative: bool) -> int | None:
    return 2 if X.numel() < 10_000 else None


@pytest.fixture(autouse=True)
def batches_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "fewest_together", fewest_together)
