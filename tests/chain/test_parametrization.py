"""What is a `Parametrization`: what has a forward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from paramdesc import (
    InvertibleParametrizationProto,
    Parametrization,
    ParametrizationProto,
    register_parametrization,
)
from tests.chain.steps import Steps
from tests.helpers import Double, chain_of


def test_map_without_state_needs_only_forward() -> None:
    class Negated(Parametrization):
        def forward(self, X: Tensor) -> Tensor:
            return -X

    layer = nn.Linear(3, 3)
    before = layer.weight.detach().clone()
    register_parametrization(layer, "weight", Negated())
    assert layer.weight.equal(-before)
    chain_of(layer)[0].reset(before)
    assert not list(layer.buffers())


class NoModule:
    """Not an `nn.Module`, and a map all the same."""

    def forward(self, X: Tensor) -> Tensor:
        return 3 * X


@pytest.mark.parametrize("parametrization", [Double(), Steps(), NoModule()])
def test_what_has_a_forward_is_a_parametrization(parametrization: object) -> None:
    assert isinstance(parametrization, ParametrizationProto)


def test_what_has_none_is_no_parametrization() -> None:
    assert not isinstance(3, ParametrizationProto)
    assert not isinstance(torch.exp, ParametrizationProto)


def test_right_inverse_makes_it_invertible() -> None:
    assert isinstance(Double(), InvertibleParametrizationProto)
    assert not isinstance(NoModule(), InvertibleParametrizationProto)


def test_object_that_is_no_module_is_registered_through_its_forward() -> None:
    layer = nn.Linear(3, 3)
    before = layer.weight.detach().clone()
    register_parametrization(layer, "weight", NoModule())
    assert layer.weight.equal(3 * before)
