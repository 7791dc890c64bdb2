"""Tied tensors of a model share one parametrization."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import paramdesc as P
from paramdesc.errors import MissingTensorError, PlacementError, TyingError
from paramdesc.parametrizations import (
    Orthogonal,
    Positive,
    SpectralNorm,
    Sphere,
    Symmetric,
    WeightNorm,
)
from tests.helpers import Double, chain_of
from tests.models.architectures import LanguageModel, trained

pytestmark = pytest.mark.usefixtures("nothing_frozen")

TOKENS = torch.tensor([[1, 2, 3], [4, 5, 6]])
MAPS = [Sphere, WeightNorm, SpectralNorm]


def is_tied(model: LanguageModel) -> bool:
    return chain_of(model.embed) is chain_of(model.head) and bool(
        torch.equal(model.embed.weight, model.head.weight)
    )


def tied(make: Any = Sphere) -> LanguageModel:
    model = LanguageModel()
    P.parametrize(model, {nn.Embedding: make})
    return model


@pytest.mark.parametrize("make", MAPS)
def test_one_parametrization_for_both(make: Any) -> None:
    model = LanguageModel()
    result = P.parametrize(model, {nn.Embedding: make})
    assert result.done == ["embed.weight", "head.weight"]
    assert result.outcomes[1].what == "tied"
    assert is_tied(model)
    assert P.get_parametrizations(model).names() == ["embed.weight"]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    before = model.head.weight.detach().clone()
    trained(model, optimizer, TOKENS)
    assert is_tied(model)
    assert not model.head.weight.allclose(before)


@pytest.mark.parametrize("make", MAPS)
@pytest.mark.parametrize(
    "convert",
    [
        copy.deepcopy,
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: model.double(),
        lambda model: model.to(torch.bfloat16),
        lambda model: model.to("meta").to_empty(device="cpu"),
        lambda model: model.eval(),
    ],
)
def test_the_tie_is_kept(make: Any, convert: Any) -> None:
    model = convert(tied(make))
    assert chain_of(model.embed) is chain_of(model.head)
    assert len(P.get_parametrizations(model).originals()) == (2 if make is WeightNorm else 1)
    assert model.embed.weight.dtype == model.head.weight.dtype
    model(TOKENS)


def test_a_copy_is_apart_from_the_model() -> None:
    model = tied()
    twin = copy.deepcopy(model)
    twin.embed.weight = torch.eye(7, 4) + 1
    assert is_tied(twin)
    assert is_tied(model)
    assert not twin.head.weight.allclose(model.head.weight)


@pytest.mark.parametrize("assign", [False, True])
def test_state_dicts(assign: bool) -> None:
    model, other = tied(), tied()
    saved = model.state_dict()
    assert [key for key in saved if "original" in key] == [
        f"{name}.parametrizations.weight.original" for name in ("embed", "head")
    ]
    other.load_state_dict(saved, assign=assign)
    assert is_tied(other)
    assert other.head.weight.equal(model.head.weight)


def test_a_scope_evaluates_it_once() -> None:
    model = tied()
    with P.cached(model) as scope:
        model(TOKENS)
    assert (scope.hits, scope.misses) == (1, 1)


def test_assignment_changes_both() -> None:
    model = tied()
    model.head.weight = torch.eye(7, 4) + 1
    assert is_tied(model)


@pytest.mark.parametrize("make", MAPS)
@pytest.mark.parametrize("first", ["embed", "head"])
def test_removing_leaves_the_other_holder_as_it_is(make: Any, first: str) -> None:
    model = tied(make).eval()
    value = model.embed.weight.detach().clone()
    P.remove_parametrizations(model, f"{first}.weight")
    other = {"embed": "head", "head": "embed"}[first]
    assert P.get_parametrizations(model).names() == [f"{other}.weight"]
    for layer in (model.embed, model.head):
        torch.testing.assert_close(layer.weight.detach(), value)
    original = chain_of(model.get_submodule(other)).originals()[0]
    P.remove_parametrizations(model, f"{other}.weight")
    torch.testing.assert_close(model.get_parameter(f"{other}.weight").detach(), value)
    if make is not WeightNorm:
        assert model.get_parameter(f"{other}.weight") is original
    assert not P.get_parametrizations(model)


def test_base_points_move_with_the_training() -> None:
    model = LanguageModel()
    P.parametrize(model, {nn.Embedding: lambda: Orthogonal(rebase=2)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    base = chain_of(model.embed)[0].base.clone()
    trained(model, optimizer, TOKENS)
    assert not chain_of(model.embed)[0].base.equal(base)
    assert is_tied(model)
    gram = model.head.weight.T @ model.head.weight
    torch.testing.assert_close(gram, torch.eye(4), atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "ship",
    [
        P.jit.script,
        lambda model: torch.jit.trace(model, TOKENS),  # type: ignore[no-untyped-call]
        lambda model: torch.export.export(model, (TOKENS,)).module(),
        lambda model: torch.compile(model, backend="eager", fullgraph=True),
    ],
)
def test_it_is_shipped(ship: Any) -> None:
    model = tied(SpectralNorm).eval()
    torch.testing.assert_close(ship(model)(TOKENS), model(TOKENS))


def test_a_holder_outside_of_the_model_is_not_overwritten() -> None:
    model, outside = LanguageModel(), nn.Linear(4, 7, bias=False)
    outside.weight = model.head.weight
    before = outside.weight.detach().clone()
    with pytest.raises(ValueError, match="same tensor as"):
        P.parametrize(model, {nn.Embedding: Double})
    assert outside.weight.equal(before)
    assert outside.weight is model.embed.weight is model.head.weight


def test_an_excluded_holder() -> None:
    result = P.parametrize(
        LanguageModel(), {(nn.Embedding, nn.Linear): Sphere}, exclude="head.weight"
    )
    assert result.done == ["block.weight"]
    assert "excluded" in result.left["embed.weight"]
    with pytest.raises(PlacementError, match="excluded"):
        P.parametrize(LanguageModel(), {"embed.weight": Sphere}, exclude="head.weight")


def test_the_original_of_another_tensor_is_told_apart() -> None:
    model = LanguageModel()
    P.register_parametrization(model, "embed.weight", torch.exp)
    with pytest.raises(PlacementError, match="tie_weights"):
        P.parametrize(model, {"head.weight": Sphere})
    P.tie_weights(model, "embed.weight", "head.weight")
    assert is_tied(model)


def test_a_tensor_is_tied_to_a_parametrized_one() -> None:
    model = LanguageModel(is_tied=False)
    optimizer = torch.optim.Adam(model.parameters())
    trained(model, optimizer, TOKENS)
    P.register_parametrization(model, "embed.weight", Sphere())
    assert P.tie_weights(model, "embed.weight", "head.weight", optimizer=optimizer) is model
    assert is_tied(model)
    listed = [id(x) for group in optimizer.param_groups for x in group["params"]]
    assert sorted(listed) == sorted(id(x) for x in model.parameters())
    P.tie_weights(model, "embed.weight", "head.weight")  # again: nothing happens
    trained(model, optimizer, TOKENS)


def test_plain_tensors_are_tied() -> None:
    model = LanguageModel(is_tied=False)
    P.tie_weights(model, "embed.weight", "head.weight")
    assert model.embed.weight is model.head.weight


def test_what_cannot_be_tied() -> None:
    model = LanguageModel(is_tied=False)
    P.register_parametrization(model, "embed.weight", Sphere())
    with pytest.raises(TyingError, match="shape is"):
        P.tie_weights(model, "embed.weight", "block.weight")
    with pytest.raises(TyingError, match="parametrized itself"):
        P.tie_weights(model, "head.weight", "embed.weight")
    with pytest.raises(MissingTensorError, match="Did you mean 'weight'"):
        P.tie_weights(model, "embed.weight", "head.wieght")
    assert not P.is_parametrized(model, "head.weight")
    P.parametrize(model, {"block.weight": Symmetric})


def test_an_untied_optimizer_warns() -> None:
    model = LanguageModel(is_tied=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    P.register_parametrization(model, "embed.weight", Sphere())
    P.tie_weights(model, "embed.weight", "head.weight")
    with pytest.warns(UserWarning, match="'weight' of Linear"):
        trained(model, optimizer, TOKENS)


@pytest.mark.parametrize("way", ["by path", "other path", "excluded", "submodule", "all"])
@pytest.mark.parametrize("kind", [Orthogonal, Positive])
def test_baking_one_of_two_tied_tensors_leaves_the_other(kind: Any, way: str) -> None:
    model: Any = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    P.parametrize(model, {"0.weight": kind})
    with torch.no_grad():
        for original in P.get_parametrizations(model).originals():
            original.add_(0.3)
    values = [layer.weight.detach().clone() for layer in model]
    if way == "by path":
        P.bake(model, "0.weight")
    elif way == "other path":
        P.bake(model, "1.weight")
    elif way == "excluded":
        P.bake(model, exclude=["1.weight"])
    elif way == "submodule":
        P.bake(model[0])
    else:
        P.bake(model)
        assert model[0].weight is model[1].weight
    for layer, value in zip(model, values, strict=True):
        torch.testing.assert_close(layer.weight.detach(), value)
