"""A recipe describes the maps of a model in JSON, and makes them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.errors import RecipeError
from paramdesc.integrations.descriptions import make_map
from paramdesc.integrations.recipes import (
    apply_recipe,
    load_recipe,
    recipe_of,
    save_recipe,
)
from paramdesc.parametrizations import Masked, SpectralNorm, Sphere, Symmetric, orthogonal
from tests.parametrizations.all_cases import CASES

REFUSED = {"straight through", "interval, of tensors"}  # functions, and numbers in tensors


class Shifted(nn.Module):
    """A map from outside of the library."""

    def __init__(self, by: float = 1.0) -> None:
        super().__init__()
        self.by = by

    def forward(self, X: Tensor) -> Tensor:
        return X + self.by

    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y - self.by


class Added(nn.Module):
    """A map with a tensor, kept in one of three ways."""

    by: Tensor

    def __init__(self, by: Tensor) -> None:
        super().__init__()
        self.keep(by)

    def keep(self, by: Tensor) -> None:
        self.register_buffer("by", by)

    def forward(self, X: Tensor) -> Tensor:
        return X + self.by


class AddedPlain(Added):
    def keep(self, by: Tensor) -> None:
        self.by = by


class AddedTemporary(Added):
    def keep(self, by: Tensor) -> None:
        self.register_buffer("by", by, persistent=False)


@pytest.mark.parametrize("name", CASES)
def test_maps_of_the_library_are_made_again(name: str) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    host, other = nn.Module(), nn.Module()
    host.weight, other.weight = (nn.Parameter(case.weight()) for _ in range(2))
    P.register_parametrization(host, "weight", case.make())
    if name in REFUSED or name.startswith("distributions"):
        with pytest.raises(RecipeError, match="cannot be described"):
            recipe_of(host)
        return
    apply_recipe(other, json.loads(json.dumps(recipe_of(host))))
    other.load_state_dict(host.state_dict())
    torch.testing.assert_close(other.weight, host.weight)


def test_maps_of_a_model_go_through_a_file(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    orthogonal(model[0])
    P.register_parametrization(model, "1.weight", Symmetric())
    P.register_parametrization(model, "1.weight", SpectralNorm(0.5))
    save_recipe(recipe_of(model), tmp_path)
    other = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    assert apply_recipe(other, load_recipe(tmp_path)) == []
    assert repr(other) == repr(model)
    save_recipe({}, tmp_path)
    assert load_recipe(tmp_path) == {}


def test_a_tie_is_kept() -> None:
    def make() -> nn.ModuleDict:
        return nn.ModuleDict({"embed": nn.Embedding(6, 3), "head": nn.Linear(3, 6)})

    model, other = make(), make()
    P.register_parametrization(model, "embed.weight", Sphere())
    P.tie_weights(model, "embed.weight", "head.weight")
    apply_recipe(other, recipe_of(model))
    found: Any = other
    chains = [found[name].parametrizations.weight for name in ("embed", "head")]
    assert chains[0] is chains[1]


def test_a_map_from_outside_is_named_by_the_caller() -> None:
    model, other = nn.Linear(3, 3), nn.Linear(3, 3)
    found: Any = other
    P.register_parametrization(model, "weight", Shifted(2.0))
    recipe = recipe_of(model)
    with pytest.raises(RecipeError, match="cannot choose which code runs"):
        apply_recipe(other, recipe)
    apply_recipe(other, recipe, [Shifted])
    assert found.parametrizations.weight[0].by == 2.0


def test_a_plain_function_is_refused() -> None:
    model = P.register_parametrization(nn.Linear(3, 3), "weight", torch.exp)
    with pytest.raises(RecipeError, match="plain function"):
        recipe_of(model)


def test_tensors_that_a_checkpoint_has_are_described() -> None:
    model, other = nn.Linear(3, 3), nn.Linear(3, 3)
    P.register_parametrization(model, "bias", Added(torch.rand(3)))
    apply_recipe(other, json.loads(json.dumps(recipe_of(model))), [Added])
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.bias, model.bias)


@pytest.mark.parametrize("cls", [AddedPlain, AddedTemporary])
def test_tensors_that_no_checkpoint_has_are_refused(cls: type[Added]) -> None:
    model = P.register_parametrization(nn.Linear(3, 3), "bias", cls(torch.rand(3)))
    with pytest.raises(RecipeError, match="persistent buffers"):
        recipe_of(model)


def test_a_map_with_numbers_on_several_tensors_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    one: Any = Added(torch.rand(3))
    for each in model:
        P.register_parametrization(each, "bias", one)
    with pytest.raises(RecipeError, match=r"both '0\.bias' and '1\.bias'"):
        recipe_of(model)


def test_a_map_without_numbers_may_be_on_several_tensors() -> None:
    model, other = (nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)) for _ in range(2))
    one = Symmetric()
    for each in model:
        P.register_parametrization(each, "weight", one)
    apply_recipe(other, recipe_of(model))
    assert repr(other) == repr(model)


def test_functions_are_not_maps() -> None:
    with pytest.raises(RecipeError, match="not in paramdesc"):
        make_map({"map": "load_adapters"})


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "parametrizations.json").write_text('{"format": 2}')
    with pytest.raises(RecipeError, match="has format 2"):
        load_recipe(tmp_path)


def make_pair() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))


SPHERE = {"map": "Sphere"}
MALFORMED: list[Any] = [
    [],
    {"0.weight": []},
    {"0.weight": {"maps": {}}},
    {"0.weight": {"tied": 3}},
    {"0.weight": {"maps": [{"bound": 1.0}]}},
    {"0.weight": {"maps": ["Sphere"]}},
    {"0.weight": {"maps": [{"map": 3}]}},
    {"0.weight": {"maps": [{"map": "Sphere", "size": 3}]}},
    {"0.weight": {"maps": [{"map": "Compose", "*": 3}]}},
    {"0.weight": {"maps": [{"map": "Masked", "mask": {"tensor": 3, "dtype": "bool"}}]}},
    {"0.weight": {"maps": [{"map": "Masked", "mask": {"tensor": [3], "dtype": "nn"}}]}},
    {"0.weight": {"maps": [{"map": "Masked", "mask": {}}]}},
    {"0.weight": {"maps": [{"map": "Masked", "mask": {"tensor": [10**12], "dtype": "bool"}}]}},
    {"0.weight": {"maps": [SPHERE]}, "1.weight": {"maps": [SPHERE, {"map": "load_adapters"}]}},
]


@pytest.mark.parametrize("recipe", MALFORMED, ids=str)
def test_a_malformed_recipe_changes_nothing(recipe: Any) -> None:
    model = make_pair()
    before = dict(model.named_parameters())
    with pytest.raises(RecipeError):
        apply_recipe(model, recipe)
    assert not P.get_parametrizations(model)
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)


def test_a_map_that_cannot_be_registered_undoes_the_others() -> None:
    model = make_pair()
    before = model.state_dict()
    values = {name: tensor.clone() for name, tensor in before.items()}
    two = {"maps": [SPHERE, {"map": "PositiveDefinite"}]}
    with pytest.raises(ValueError, match="bias"):
        apply_recipe(model, {"0.weight": {"maps": [SPHERE]}, "0.bias": two})
    assert not P.get_parametrizations(model)
    assert model.state_dict().keys() == before.keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, values[name])
    assert apply_recipe(model, {"0.weight": {"maps": [SPHERE]}}) == []


def test_maps_that_are_there_already_are_left() -> None:
    model, other = make_pair(), make_pair()
    for each in (model, other):
        P.register_parametrization(each, "1.weight", Masked(torch.eye(3) > 0))
    orthogonal(model[0])
    chain = other[1].parametrizations.weight
    apply_recipe(other, recipe_of(model))
    assert other[1].parametrizations.weight is chain
    assert repr(other) == repr(model)
    P.register_parametrization(model, "1.weight", Sphere())
    with pytest.raises(ValueError, match="already parametrized"):
        apply_recipe(other, recipe_of(model))


@pytest.mark.parametrize("text", ["[]", "{", '{"format": 1}', '{"format": 1, "tensors": [3]}'])
def test_a_malformed_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "parametrizations.json").write_text(text)
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path)
