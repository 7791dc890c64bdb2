"""The note on an error of a map never hides the error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P


class OwnError(Exception):
    """What the map raises."""


class Fails(nn.Module):
    """A map that raises where `fails` is set."""

    fails = False

    def forward(self, X: Tensor) -> Tensor:
        if self.fails:
            raise OwnError("of the map")
        return 2 * X


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = P.register_parametrization(nn.Linear(3, 3), "weight", Fails())

    def forward(self, X: Tensor) -> Any:
        return self.layer(X)


class RaisesAtOnce(Model):
    def named_modules(self, *args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError("of named_modules")


class RaisesMidway(Model):
    def named_modules(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        yield "layer", nn.Identity()
        raise ZeroDivisionError("of named_modules")


class GivesNonsense(Model):
    def named_modules(self, *args: Any, **kwargs: Any) -> Any:
        return [1, 2]


class GivesNone(Model):
    def named_modules(self, *args: Any, **kwargs: Any) -> Any:
        return None


class Unprintable(Model):
    def __repr__(self) -> str:
        raise ZeroDivisionError("of repr")

    def extra_repr(self) -> str:
        raise ZeroDivisionError("of extra_repr")


def fail(model: Any) -> None:
    model.layer.parametrizations.weight[0].fails = True


MODELS = [Model, RaisesAtOnce, RaisesMidway, GivesNonsense, GivesNone, Unprintable]


@pytest.mark.parametrize("is_cached", [False, True])
@pytest.mark.parametrize("model_class", MODELS)
def test_the_error_of_a_map_reaches_the_caller(model_class: Any, is_cached: bool) -> None:
    model = model_class()
    fail(model)
    targets = [model.layer] if is_cached else [nn.Identity()]
    with P.cached(*targets), pytest.raises(OwnError, match="of the map") as caught:
        model(torch.ones(1, 3))
    (note,) = caught.value.__notes__
    assert "'weight'" in note
    assert "map 0, Fails" in note


def test_the_path_is_in_the_note_where_the_model_tells_it() -> None:
    outer = nn.Sequential(Model())
    fail(outer[0])
    with pytest.raises(OwnError) as caught:
        outer(torch.ones(1, 3))
    assert "at '0.layer'" in caught.value.__notes__[0]


@pytest.mark.parametrize("model_class", [RaisesAtOnce, RaisesMidway])
def test_the_modules_inside_of_such_a_model_tell_the_path(model_class: Any) -> None:
    inner = Model()
    fail(inner)
    outer = model_class()
    outer.layer = nn.Sequential(inner)
    with pytest.raises(OwnError) as caught:
        outer(torch.ones(1, 3))
    assert "at '0.layer'" in caught.value.__notes__[0]
