"""torch's stick-breaking transform without a wait for the device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.distributions import biject_to
from torch.distributions import constraints as typed_constraints
from torch.distributions.transforms import ExpTransform, StickBreakingTransform

from paramdesc.linalg import devices
from paramdesc.parametrizations.entries.stick_breaking import StickBreaking, without_wait

constraints: Any = typed_constraints

CONSTRAINTS = {
    "simplex": constraints.simplex,
    "independent": constraints.independent(constraints.simplex, 1),
    "parts": constraints.cat([constraints.positive, constraints.simplex], -2, [2, 1]),
    "stack": constraints.stack([constraints.simplex, constraints.simplex], -2),
}


@pytest.mark.parametrize("is_cpu", [True, False])
@pytest.mark.parametrize("name", ["simplex", "independent", "stack"])
def test_values_and_gradients_are_torchs(
    name: str, is_cpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    transform = biject_to(CONSTRAINTS[name])
    X = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    X.data[0, 1] = 800.0  # where the sigmoid rounds to one
    expected = transform(X)
    G = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad(expected, X, G)
    monkeypatch.setattr(devices, "COUNTED_BY_SIZE", {"cpu"} if is_cpu else set())
    value = without_wait(transform)(X)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value, X, G)[0], gradient)


def test_parts_are_replaced_and_others_are_left() -> None:
    parts = without_wait(biject_to(CONSTRAINTS["parts"])).transforms
    assert [isinstance(part, StickBreakingTransform) for part in parts] == [False, True]
    assert isinstance(parts[1], StickBreaking)
    other = ExpTransform()
    assert without_wait(other) is other
