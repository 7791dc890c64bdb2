"""`get_parametrizations`: what it finds, in which order, and its set."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paramdesc import (
    ParametrizationSet,
    cached,
    get_parametrizations,
    register_parametrization,
)
from paramdesc.parametrizations import Symmetric
from paramdesc.registration import collection
from tests.helpers import Double, Shift, chain_of, linear, torch_linear


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = linear()

    def forward(self, X: Tensor) -> Tensor:
        return X @ self.inner.weight


@pytest.fixture
def model() -> Any:
    """0: weight and bias; 1: two layers; 2: plain; 3: the first again."""
    first = register_parametrization(linear(), "bias", Shift())
    inner = nn.Sequential(linear(Symmetric()), register_parametrization(linear(), "bias", Double()))
    return nn.Sequential(first, inner, nn.Linear(3, 3), first)


def test_finds_all_in_the_order_of_named_modules_and_shared_modules_once(model: Any) -> None:
    found = get_parametrizations(model)
    assert found.names() == ["0.weight", "0.bias", "1.0.weight", "1.1.weight", "1.1.bias"]
    assert list(found)[:2] == [chain_of(model[0]), chain_of(model[0], "bias")]
    assert len(found) == 5


def test_order_is_that_of_named_modules_where_registration_came_late() -> None:
    model = nn.Sequential()
    model.append(nn.Sequential(nn.Linear(3, 3), linear()))
    model.append(linear())
    model.weight = nn.Parameter(torch.eye(3))
    register_parametrization(model, "weight", Twice())
    register_parametrization(model[0][0], "weight", Double())  # type: ignore[index]
    hosts = [
        f"{path}.{name}".lstrip(".")
        for path, module in model.named_modules()
        if "parametrizations" in module._modules
        for name in module.parametrizations
    ]
    assert get_parametrizations(model).names() == hosts


def test_finds_nested_ones_and_layers_inside_maps_under_their_paths() -> None:
    layer = linear(Twice())
    register_parametrization(chain_of(layer), "original", Shift())
    names = get_parametrizations(layer).names()
    assert names[0] == "weight"
    assert set(names[1:]) == {
        "parametrizations.weight.0.inner.weight",
        "parametrizations.weight.original",
    }
    for name in names:
        path, _, tensor_name = name.rpartition(".")
        assert isinstance(getattr(layer.get_submodule(path), tensor_name), Tensor)


def test_several_modules_are_taken_in_order_and_the_first_name_counts(model: Any) -> None:
    assert get_parametrizations(model[1], model).names()[:4] == [
        "0.weight",
        "1.weight",
        "1.bias",
        "0.weight",
    ]
    assert get_parametrizations(model, model) == get_parametrizations(model)
    assert not get_parametrizations()
    assert not get_parametrizations(nn.Linear(3, 3))


def test_modules_of_torchs_engine_are_not_among_them() -> None:
    assert not get_parametrizations(torch_linear())


def test_shared_chain_is_found_once_and_none_children_are_passed_over() -> None:
    first, second = linear(), linear()
    second.parametrizations["weight"] = chain_of(first)  # type: ignore[index, operator]
    model = nn.ModuleDict({"first": first, "second": second})
    model._modules["absent"] = None  # type: ignore[assignment]
    assert get_parametrizations(model).names() == ["first.weight"]


@pytest.mark.parametrize("target", [3, None, [nn.Linear(3, 3)]])
def test_what_is_no_module_is_a_type_error(target: Any) -> None:
    with pytest.raises(TypeError, match="[Mm]odule"):
        get_parametrizations(target)


# the set


def test_algebra_keeps_order_and_names(model: Any) -> None:
    everything, inner = get_parametrizations(model), get_parametrizations(model[1])
    assert (everything - inner).names() == ["0.weight", "0.bias"]
    assert (everything & inner).names() == ["1.0.weight", "1.1.weight", "1.1.bias"]
    assert (inner & everything).names() == inner.names()
    assert (inner | everything).names() == [*inner.names(), "0.weight", "0.bias"]
    assert (inner ^ everything).names() == ["0.weight", "0.bias"]


def test_sets_compare_by_what_they_hold(model: Any) -> None:
    everything: Any = get_parametrizations(model)
    inner: Any = get_parametrizations(model[1])
    assert everything == get_parametrizations(model)
    assert hash(everything) == hash(get_parametrizations(model))
    assert inner < everything
    assert not everything <= inner
    assert inner.isdisjoint(everything - inner)
    assert everything == set(everything)
    assert set(everything) | inner == everything


def test_membership_is_that_of_chains(model: Any) -> None:
    everything: Any = get_parametrizations(model)
    assert chain_of(model[0]) in everything
    assert chain_of(linear()) not in everything
    assert "0.weight" not in everything


def test_items_and_repr_show_the_names(model: Any) -> None:
    found = get_parametrizations(model[1])
    assert [chain for _, chain in found.items()] == list(found)
    assert [name for name, _ in found.items()] == found.names()
    assert repr(found) == "ParametrizationSet(['0.weight', '1.weight', '1.bias'])"


def test_set_made_of_chains_names_them_by_their_tensors(model: Any) -> None:
    chains = [chain_of(model[0], "bias"), chain_of(model[0]), chain_of(model[0])]
    assert ParametrizationSet(chains).names() == ["bias", "weight"]


def test_set_survives_pickling_with_its_names(model: Any) -> None:
    again = pickle.loads(pickle.dumps(get_parametrizations(model)))
    assert again.names() == get_parametrizations(model).names()


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({"tensor_name": "bias"}, ["0.bias", "1.1.bias"]),
        ({"tensor_name": "absent"}, []),
        ({"map_type": Symmetric}, ["1.0.weight"]),
        ({"map_type": (Symmetric, Shift)}, ["0.bias", "1.0.weight"]),
        ({"path": "1.*"}, ["1.0.weight", "1.1.weight", "1.1.bias"]),
        ({"path": "1.0"}, ["1.0.weight"]),
        ({"path": "?"}, ["0.weight", "0.bias"]),
        ({"path": "1.*", "tensor_name": "weight", "map_type": Double}, ["1.1.weight"]),
        ({}, ["0.weight", "0.bias", "1.0.weight", "1.1.weight", "1.1.bias"]),
    ],
)
def test_filter_keeps_what_matches_everything(
    model: Any, wanted: dict[str, Any], names: list[str]
) -> None:
    assert get_parametrizations(model).filter(**wanted).names() == names


def test_filter_by_the_empty_path_keeps_the_root(model: Any) -> None:
    assert get_parametrizations(model[0]).filter(path="").names() == ["weight", "bias"]


def test_part_of_a_set_is_what_a_scope_covers(model: Any) -> None:
    with cached(get_parametrizations(model).filter(tensor_name="weight")):
        assert model[0].weight is model[0].weight
        assert model[0].bias is not model[0].bias


def test_set_does_not_change_with_the_model(model: Any) -> None:
    found = get_parametrizations(model)
    register_parametrization(model[2], "weight", Double())
    assert len(found) == 5
    assert len(get_parametrizations(model)) == 6


class CountedSet(set[Any]):
    """Counts how often it is asked and told."""

    operations = 0

    def __contains__(self, item: object) -> bool:
        CountedSet.operations += 1
        return super().__contains__(item)

    def add(self, item: Any) -> None:
        CountedSet.operations += 1
        super().add(item)


def visits(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(collection, "set", CountedSet, raising=False)
    CountedSet.operations = 0
    assert get_parametrizations(model)
    return CountedSet.operations


def test_work_grows_with_the_modules_and_not_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(count: int) -> nn.Module:
        layers = [linear(n=1) if number % 10 == 0 else nn.Identity() for number in range(count)]
        groups = [nn.Sequential(*layers[i : i + 10]) for i in range(0, count, 10)]
        return nn.ModuleList(groups)

    small, large = visits(build(1_000), monkeypatch), visits(build(10_000), monkeypatch)
    assert small >= 1_000
    assert large <= 10 * small
