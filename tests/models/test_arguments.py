"""All functions for whole models take the same selectors, and say what is wrong with others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import paramdesc as P
from paramdesc.errors import ArgumentError, ModuleError, SelectionError
from paramdesc.parametrizations import Orthogonal, SpectralNorm, Symmetric


def plain() -> Any:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), nn.LayerNorm(3))
    model.add_module("head", nn.Linear(3, 3))
    return model


def parametrized() -> Any:
    model = plain()
    P.parametrize(model, {("0.*", "2.*"): Symmetric}, exclude="bias")
    return model


def converted(model: nn.Module, *selectors: Any, **options: Any) -> list[str]:
    values = P.plain_state_dict(model, *selectors, **options)
    return [name for name in ("0.weight", "2.weight") if name in values]


def disabled_in(model: Any, *selectors: Any, **options: Any) -> list[str]:
    with P.disabled(model, *selectors, **options):
        chains = P.get_parametrizations(model).items()
        return [name for name, x in chains if model[int(name[0])].weight is x.original]


FUNCTIONS: dict[str, Callable[..., list[str]]] = {
    "parametrize": lambda model, *selectors, **options: (
        P.parametrize(
            P.bake(model).model,
            dict.fromkeys(selectors or ["[02].weight"], Symmetric),
            **options,
        ).done
    ),
    "bake": lambda *arguments, **options: P.bake(*arguments, **options).names(),
    "bake a copy": lambda *arguments, **options: P.bake(*arguments, copy=True, **options).names(),
    "summary": lambda *arguments, **options: [x.name for x in P.summary(*arguments, **options)],
    "disabled": disabled_in,
    "plain_state_dict": converted,
    "plain_tensors": lambda *arguments, **options: [
        name for name, _ in P.plain_tensors(*arguments, **options) if name[2:] == "weight"
        and name[0] in "02"
    ],
}  # fmt: skip


@pytest.fixture(params=FUNCTIONS)
def call(request: pytest.FixtureRequest) -> Callable[..., list[str]]:
    return FUNCTIONS[request.param]


@pytest.mark.parametrize(
    "exclude",
    [
        "2.*",
        ["2.*"],
        ("2.*", nn.Conv2d),
        [("2.*", nn.Conv2d), "head.*"],
        {"2.*", "head.*"},
        lambda model: model[2],
        lambda model: (nn.Conv2d, (model[2],)),
        lambda model: (x for x in ["2.weight"]),
    ],
)
def test_an_exclusion_is_a_selector_or_several(call: Any, exclude: Any) -> None:
    model = parametrized()
    is_made = callable(exclude) and not isinstance(exclude, type)
    assert call(model, exclude=exclude(model) if is_made else exclude) == ["0.weight"]


@pytest.mark.parametrize("exclude", [nn.Linear, (nn.Conv2d, nn.Linear), [nn.Linear]])
def test_an_exclusion_may_be_a_type(call: Any, exclude: Any) -> None:
    assert call(parametrized(), exclude=exclude) == []


@pytest.mark.parametrize("exclude", [(), []])
def test_nothing_is_excluded_by_an_empty_collection(call: Any, exclude: Any) -> None:
    assert call(parametrized(), exclude=exclude) == ["0.weight", "2.weight"]


@pytest.mark.parametrize("key", [("2.weight", "9.weight"), (nn.Conv2d, ("2.weight",))])
def test_a_tuple_selects_what_one_of_its_members_does(call: Any, key: Any) -> None:
    assert call(parametrized(), key) == ["2.weight"]


@pytest.mark.parametrize("key", [("9.weight", "8.weight"), nn.Conv2d, "9.weight", ()])
def test_a_key_that_matches_nothing_raises(call: Any, key: Any) -> None:
    with pytest.raises(SelectionError, match="matches no"):
        call(parametrized(), key)


@pytest.mark.parametrize("exclude", ["haed.*", ["2.*", "haed.*"], ("haed.*", nn.Conv2d)])
def test_an_exclusion_that_matches_nothing_raises(call: Any, exclude: Any) -> None:
    with pytest.raises(SelectionError) as caught:
        call(parametrized(), exclude=exclude)
    assert "in exclude= matches no tensor of the model" in str(caught.value)
    assert "'head.*'" in str(caught.value)


@pytest.mark.parametrize("exclude", [3, None, [3], [["2.*"]]])
def test_what_is_no_selector_is_refused(call: Any, exclude: Any) -> None:
    with pytest.raises(SelectionError, match="a submodule, or a tuple of these. Got"):
        call(parametrized(), exclude=exclude)


def test_a_plain_tensor_may_be_excluded_where_only_parametrized_ones_are_selected() -> None:
    model = parametrized()
    assert len(P.summary(model, exclude="head.*")) == 2
    with P.disabled(model, exclude="head.*"):
        assert model[0].weight is P.chain_of(model, "0.weight").original


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(3))


@pytest.mark.parametrize(
    ("selector", "parts"),
    [
        ("0", ["'0' is the path of a module", "Write '0.*'"]),
        ("?", ["Write '?.*'"]),
        ("Linear", ["write the class itself: nn.Linear."]),
        ("nn.LayerNorm", ["write the class itself: nn.LayerNorm."]),
        ("heda.weight", ["Did you mean 'head.weight'"]),
        ("heda", ["Did you mean 'head.*'"]),
        ("*.wieght", ["Did you mean '*.weight'"]),
        (nn.Conv2d, ["Conv2d matches no tensor", "are of type LayerNorm, Linear."]),
        (nn.ReLU, ["are of type LayerNorm, Linear."]),
        (Scale, ["the tensors of Scale are 'factor'", "Select them by name: 'factor'."]),
        ((nn.Conv2d, "heda.*"), ["(Conv2d, 'heda.*') matches", "LayerNorm", "'head.*'"]),
        (nn.Linear(3, 3), ["and not of a copy", "model.get_submodule('0')", "'0.*'"]),
    ],
)
def test_what_was_meant(selector: Any, parts: list[str]) -> None:
    model = plain()
    model.add_module("scale", Scale())
    with pytest.raises(SelectionError) as caught:
        P.parametrize(model, {selector: Orthogonal})
    for part in parts:
        assert part in str(caught.value)
    assert "pattern is compared" not in str(caught.value) or "Did you mean" in str(caught.value)


def test_a_plain_tensor_is_not_said_to_be_missing() -> None:
    with pytest.raises(SelectionError, match=r"no parametrized tensor .* of type Linear\."):
        P.summary(parametrized(), nn.LayerNorm)
    with pytest.raises(SelectionError, match=r"'head\.\*' in values= matches no parametrized"):
        disabled_in(parametrized(), values={"head.*": torch.eye(3)})


TAKING_MODELS: dict[str, Callable[[Any], object]] = {
    "parametrize": lambda model: P.parametrize(model, {nn.Linear: Symmetric}),
    "bake": P.bake,
    "summary": P.summary,
    "disabled": P.disabled,
    "plain_state_dict": P.plain_state_dict,
    "plain_tensors": P.plain_tensors,
    "adopt": P.adopt,
    "tie_weights": lambda model: P.tie_weights(model, "0.weight", "1.weight"),
    "jit.script": P.jit.script,
    "get_parametrizations": P.get_parametrizations,
    "chain_of": lambda model: P.chain_of(model, "0.weight"),
}


@pytest.mark.parametrize("function", TAKING_MODELS)
@pytest.mark.parametrize("model", ["model", [nn.Linear(3, 3)], nn.Linear, torch.ones(3), None])
def test_what_is_no_module_is_refused(function: str, model: Any) -> None:
    with pytest.raises(ModuleError) as caught:
        TAKING_MODELS[function](model)
    assert f"{function}() takes" in str(caught.value)


@pytest.mark.parametrize(
    ("call_with", "line"),
    [
        (lambda: P.summary([nn.Linear(3, 3)]), "summary(nn.ModuleList(modules), ...)"),  # type: ignore[arg-type]
        (lambda: P.bake(nn.Linear), "bake(Linear(...), ...)"),  # type: ignore[type-var]
        (
            lambda: P.get_parametrizations([nn.Linear(3, 3)]),  # type: ignore[arg-type]
            "get_parametrizations(*modules)",
        ),
    ],
)
def test_the_line_for_several_modules(call_with: Callable[[], object], line: str) -> None:
    with pytest.raises(ModuleError) as caught:
        call_with()
    assert line in str(caught.value)
    assert len(P.summary(nn.ModuleList([parametrized(), parametrized()]))) == 4


@pytest.mark.parametrize(
    ("maps", "line"),
    [
        (Orthogonal, "{nn.Linear: Orthogonal}"),
        (Orthogonal(), "{nn.Linear: lambda: Orthogonal(...)}"),
        ([(nn.Linear, Orthogonal)], "{nn.Linear: ...}"),
        (lambda: Orthogonal(), "{nn.Linear: ...}"),
    ],
)
def test_maps_are_given_by_selectors(maps: Any, line: str) -> None:
    with pytest.raises(ArgumentError, match="takes a dict from selectors") as caught:
        P.parametrize(plain(), maps)
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("types", "line"),
    [
        (Symmetric(), "Symmetric."),
        ("SpectralNorm", "SpectralNorm."),
        ([Symmetric, SpectralNorm], "(Symmetric, SpectralNorm)."),
        ((Symmetric, "SpectralNorm"), "(Symmetric, SpectralNorm)."),
        (3, "Symmetric."),
    ],
)
def test_maps_are_chosen_by_their_types(types: Any, line: str) -> None:
    model = parametrized()
    with pytest.raises(ArgumentError) as caught:
        P.disabled(model, maps=types)
    assert str(caught.value).endswith(f"Write maps={line}")
    with pytest.raises(ArgumentError) as caught:
        P.get_parametrizations(model).filter(map_type=types)
    assert str(caught.value).endswith(f"Write map_type={line}")
    with P.disabled(model, maps=(Symmetric, SpectralNorm)):
        assert model[0].weight is P.chain_of(model, "0.weight").original


def test_values_are_given_by_patterns() -> None:
    values: Any = torch.eye(3)
    with pytest.raises(ArgumentError, match=r"values=\{\"0.weight\": tensor\}"):
        P.disabled(parametrized(), values=values)
