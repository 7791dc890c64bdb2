"""What the module shows of its parametrized names."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import paramdesc as P
from paramdesc.registration.namespace import AttributeNamespace
from tests.helpers import Double, original_of


def test_completion_repr_and_the_getters_answer() -> None:
    linear = P.register_parametrization(nn.Linear(2, 2), "weight", Double())
    assert "weight" in dir(linear)
    assert "Double()" in repr(linear)
    torch.testing.assert_close(linear.get_buffer("weight"), linear.weight)
    with pytest.raises(AttributeError, match="is not an nn.Parameter"):
        linear.get_parameter("weight")
    assert linear.get_parameter("parametrizations.weight.original") is original_of(linear)
    assert isinstance(linear.get_submodule("parametrizations.weight"), P.ParametrizationList)
    assert [name for name, _ in linear.named_buffers()] == []
    assert not hasattr(linear, "wieght")


def test_the_namespace_shows_real_buffers_only() -> None:
    module = nn.Module()
    module.register_buffer("real", torch.ones(1))
    module.register_buffer("mask", torch.ones(1))
    P.register_parametrization(module, "mask", Double())
    namespace: Any = module._buffers
    assert isinstance(namespace, AttributeNamespace)
    assert list(namespace) == ["real"]
    assert len(namespace) == 1
    assert namespace
    assert list(namespace.values()) == [module.real]
    assert set(namespace.keys()) == {"real", "mask"}
    assert namespace.get("mask") is not None
    assert namespace.get("other", 3) == 3
    assert namespace.pop("other", 3) == 3
    with pytest.raises(TypeError, match="cannot delete"):
        namespace.pop("mask")
    assert "mask" in repr(namespace)
    module.real = torch.zeros(1)
    assert list(copy.copy(namespace).items()) == [("real", module.real)]
    del module.real
    assert not namespace


def test_a_parameter_may_take_the_place_of_a_real_buffer() -> None:
    module: Any = nn.Module()
    module.register_buffer("real", torch.ones(1))
    module.register_buffer("mask", torch.ones(1))
    P.register_parametrization(module, "mask", Double())
    module.real = nn.Parameter(torch.zeros(1))
    assert list(dict(module.named_parameters())) == ["real"]
    assert "real" not in module._buffers
