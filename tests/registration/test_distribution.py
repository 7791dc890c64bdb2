"""`distribute_module` on parametrized modules, where the caller's function fails or deletes."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn
from torch.distributed.tensor import distribute_module

import paramdesc as P
from paramdesc.parametrizations import Symmetric
from tests.caching.deferred.test_deferred_distributed import group_of_one


def two_layers() -> Any:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    P.parametrize(model, {nn.Linear: Symmetric})
    return model


@pytest.mark.parametrize("raises", [True, False])
def test_a_function_that_deletes_a_tensor_leaves_all_parametrized(raises: bool) -> None:
    model = two_layers()
    originals = P.get_parametrizations(model).originals()

    def partition(name: str, module: Any, mesh: Any) -> None:
        if name == "0":
            del module.weight
            if raises:
                raise ValueError("in the function of the caller")

    with group_of_one() as mesh:
        if raises:
            with pytest.raises(ValueError, match="in the function of the caller"):
                distribute_module(model, mesh, partition)
        else:
            distribute_module(model, mesh, partition)
    assert P.get_parametrizations(model).names() == ["0.weight", "1.weight"]
    if raises:
        found = P.get_parametrizations(model).originals()
        assert all(a is b for a, b in zip(found, originals, strict=True))
