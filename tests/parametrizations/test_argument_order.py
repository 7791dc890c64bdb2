"""All one-line functions take the module, the name, then the arguments of the map."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

import pytest
import torch
from torch import nn

import paramdesc as P
from paramdesc.parametrizations import banded, functions, kernel_spectral_norm, low_rank
from tests.helpers import chain_of

NOT_OF_ONE_TENSOR = {
    "adapter_state_dict",
    "assign_jointly",
    "joint",
    "load_adapters",
    "load_old",
    "magnitude_mask",
    "merge_lora",
    "tie",
    "unmerge_lora",
}


def one_line_functions() -> dict[str, Any]:
    found = {}
    for info in pkgutil.iter_modules(functions.__path__, f"{functions.__name__}."):
        module = importlib.import_module(info.name)
        for name in getattr(module, "__all__", ()):
            if inspect.isfunction(getattr(module, name)):
                found[name] = getattr(module, name)
    return {name: x for name, x in found.items() if name not in NOT_OF_ONE_TENSOR | {"name_first"}}


@pytest.mark.parametrize("name", one_line_functions())
def test_the_order_is_module_then_name(name: str) -> None:
    first, second = list(inspect.signature(one_line_functions()[name]).parameters.values())[:2]
    assert first.name == "module"
    assert (second.name, second.default) == ("name", "weight")


def test_all_functions_are_found() -> None:
    assert len(one_line_functions()) > 50


OLD: dict[str, Any] = {
    'low_rank(module, "weight", rank=2)': lambda call, layer: call(layer, 2),
    'low_rank(module, "other", rank=2)': lambda call, layer: call(layer, 2, "other"),
    'fixed_rank(module, "other", rank=2)': lambda call, layer: call(layer, 2, name="other"),
    'banded(module, "other", lower=1, upper=0)': lambda call, layer: call(layer, 1, 0, "other"),
    'operator_norm_inf(module, "weight", bound=2.0)': lambda call, layer: call(layer, 2.0),
    'masked(module, "weight", mask=...)': lambda call, layer: call(layer, torch.eye(4).bool()),
    'lora(module, "other", rank=2)': lambda call, layer: call(layer, rank=2, tensor_name="other"),
}


def layer_with_two() -> Any:
    layer: Any = nn.Linear(4, 4)
    layer.other = nn.Parameter(torch.randn(4, 4))
    return layer


@pytest.mark.parametrize("line", OLD)
def test_the_old_order_works_and_shows_the_new_line(line: str) -> None:
    old: Any = layer_with_two()
    with pytest.warns(DeprecationWarning, match="one-line functions take") as caught:
        OLD[line](one_line_functions()[line[: line.index("(")]], old)
    assert f"Write {line}." in str(caught[0].message)
    assert caught[0].filename == __file__
    name = "other" if "other" in line else "weight"
    assert P.get_parametrizations(old).names() == [name]
    new = layer_with_two()
    eval(
        f"f{line[line.index('(') :]}".replace("...", "torch.eye(4).bool()"),
        {
            "f": one_line_functions()[line[: line.index("(")]],
            "module": new,
            "torch": torch,
        },
    )
    assert repr(chain_of(new, name)[0]) == repr(chain_of(old, name)[0])


def test_arguments_may_stand_by_position_after_the_name() -> None:
    call: Any = banded
    layer = call(layer_with_two(), "other", 1, 0)
    assert layer.other.count_nonzero() == 7


def test_an_argument_given_twice_is_refused() -> None:
    call: Any = low_rank
    with pytest.raises(TypeError, match="rank"):
        call(layer_with_two(), "weight", 2, rank=3)
    with pytest.raises(TypeError):
        call(layer_with_two(), "weight", 2, 3, 4, 5)


def test_a_missing_argument_is_told() -> None:
    call: Any = low_rank
    with pytest.raises(TypeError, match="required keyword-only argument: 'rank'"):
        call(layer_with_two())


def test_a_convolution_in_the_old_order() -> None:
    call: Any = kernel_spectral_norm
    with pytest.warns(DeprecationWarning, match="bound=2.0"):
        call(nn.Conv2d(2, 2, 3), 2.0)
