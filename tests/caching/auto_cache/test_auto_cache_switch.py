"""`auto_cache` on and off again, without trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import paramdesc as P
from tests.caching.auto_cache.models import INPUT, Twice, twice
from tests.helpers import Exp, linear


def state_of(model: nn.Module) -> dict[str, Any]:
    """The attributes of all modules, those that are collections by their items."""
    return {
        name: {
            key: (list(value.items()) if isinstance(value, dict) else value)
            for key, value in vars(module).items()
        }
        for name, module in model.named_modules()
    }


def test_off_again_leaves_no_trace() -> None:
    model = nn.Sequential(Twice(linear(Exp())), nn.ReLU())
    model.register_forward_hook(print_nothing)
    model.register_forward_pre_hook(print_nothing, prepend=True)
    before, text = state_of(model), repr(model)
    scope = P.auto_cache(model)
    assert state_of(model) != before
    model.train()(INPUT)
    with torch.no_grad():
        model.eval()(INPUT)
    assert len(scope) == 1
    model.train()
    P.auto_cache(model, enabled=False)
    assert state_of(model) == before
    assert repr(model) == text
    assert len(scope) == 0


def print_nothing(*_: Any) -> None:
    pass


def test_on_or_off_twice_is_as_once() -> None:
    model = Twice(linear(Exp()))
    before = state_of(model)
    P.auto_cache(model)
    once = state_of(model)
    P.auto_cache(model)
    assert state_of(model) == once
    Exp.evaluations = 0
    for _ in range(2):
        P.auto_cache(model, enabled=False)
        assert state_of(model) == before
        model(INPUT)
    assert Exp.evaluations == 4


def test_a_model_without_parametrizations_is_left_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    before = state_of(model)
    assert len(P.auto_cache(model)) == 0
    assert state_of(model) == before


def test_of_a_part_the_rest_is_left_as_it_is() -> None:
    model = nn.Sequential(Twice(linear(Exp())), Twice(linear(Exp()))).eval()
    before = state_of(model[1])
    Exp.evaluations = 0
    P.auto_cache(model[0])
    assert state_of(model[1]) == before
    with torch.no_grad():
        model(INPUT)
        model(INPUT)
    assert Exp.evaluations == 1 + 4
    P.auto_cache(model, enabled=False)
    with torch.no_grad():
        model(INPUT)
    assert Exp.evaluations == 5 + 4


def test_what_is_parametrized_later_needs_another_call() -> None:
    model = twice().eval()
    P.remove_parametrizations(model.layer, "weight")
    model(INPUT)
    P.register_parametrization(model.layer, "weight", Exp())
    with torch.no_grad():
        assert model.layer.weight is not model.layer.weight
        P.auto_cache(model)
        assert model.layer.weight is model.layer.weight
    P.auto_cache(model, enabled=False)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("wrong", [None, 3, "model", [nn.Linear(2, 2)], nn.Linear])
def test_what_is_no_module_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"takes an eager module\. Got .*Pass the model\."):
        P.auto_cache(wrong)


@pytest.mark.filterwarnings("ignore:.torch.jit")  # its end is announced, in a class that changes
def test_a_scripted_program_is_refused_with_what_to_write() -> None:
    program: Any = torch.jit.script(linear())
    with pytest.raises(TypeError, match=r"with cached\(program\):"):
        P.auto_cache(program)
    with torch.no_grad(), P.cached(program):
        program(INPUT)
