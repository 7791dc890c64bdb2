"""The descriptor: reading, writing and deleting a parametrized name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import paramdesc as P
from paramdesc.registration.attribute import ParametrizedTensor
from paramdesc.registration.namespace import namespace_of


def test_the_descriptor_reads_writes_and_refuses_to_be_deleted() -> None:
    layer = P.register_parametrization(
        nn.Linear(2, 2), "weight", torch.neg, right_inverse=torch.neg
    )
    (attribute,) = namespace_of(layer).attributes()
    assert attribute.__get__(None, ParametrizedTensor) is attribute
    torch.testing.assert_close(attribute.__get__(layer), layer.weight)
    attribute.__set__(layer, torch.ones(2, 2))
    torch.testing.assert_close(layer.weight.detach(), torch.ones(2, 2))
    with pytest.raises(TypeError, match="cannot delete 'weight'"):
        attribute.__delete__(layer)
    assert "weight" in repr(attribute)
