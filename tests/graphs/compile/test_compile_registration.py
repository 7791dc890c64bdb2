"""Registration, removal and assignment inside of compiled code."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.exc import Unsupported

import paramdesc as P
from tests.graphs.backend import READS_GRAD, Graphs
from tests.graphs.compile.models import INPUT, assert_same
from tests.helpers import Double, Exp, linear, original_of

pytestmark = READS_GRAD


def register(module: nn.Linear) -> None:
    P.register_parametrization(module, "weight", Double())


def register_another(module: nn.Linear) -> None:
    P.register_parametrization(module, "bias", Double())


def remove(module: nn.Linear) -> None:
    P.remove_parametrizations(module, "weight")


def remove_to_the_original(module: nn.Linear) -> None:
    P.remove_parametrizations(module, "weight", leave_parametrized=False)


def assign(module: nn.Linear) -> None:
    module.weight = module.weight.detach() + 1


@pytest.mark.parametrize("where", ["before", "after", "both"])
@pytest.mark.parametrize("scope", [nullcontext, P.cached])
@pytest.mark.parametrize(
    "change",
    [register, register_another, remove, remove_to_the_original, assign],
    ids=lambda f: f.__name__,
)
def test_a_change_in_compiled_code_is_left_to_python(
    change: Callable[[nn.Linear], None],
    scope: Callable[[], AbstractContextManager[Any]],
    where: str,
) -> None:
    """The module is called before the change, after it, or both."""

    def make() -> nn.Linear:
        torch.manual_seed(0)
        return nn.Linear(3, 3) if change is register else linear()

    def run(module: nn.Linear, x: Tensor) -> Tensor:
        y: Tensor = module(x) if where != "after" else x
        change(module)
        return module(y) if where != "before" else y

    compiled: Any = torch.compile(run, backend="eager")
    with scope():
        expected_module, module = make(), make()
        torch.testing.assert_close(compiled(module, INPUT), run(expected_module, INPUT))
        torch.testing.assert_close(compiled(make(), INPUT), run(make(), INPUT))
        torch.testing.assert_close(module(INPUT), expected_module(INPUT))
    torch.testing.assert_close(module.state_dict(), expected_module.state_dict())
    assert type(module) is nn.Linear


@pytest.mark.parametrize("change", [register, remove, assign], ids=lambda f: f.__name__)
def test_a_change_in_one_graph_is_refused_with_a_reason(
    change: Callable[[nn.Linear], None], graphs: Graphs
) -> None:
    module = nn.Linear(3, 3) if change is register else linear()
    names = list(module.state_dict())
    with pytest.raises(Unsupported, match="paramdesc leaves changes of a module to Python"):
        graphs.compile(lambda x: change(module))(INPUT)
    assert list(module.state_dict()) == names


def test_a_transfer_in_compiled_code_is_left_to_python(layer: nn.Linear) -> None:
    def run(module: nn.Linear, x: Tensor) -> Tensor:
        P.transfer_parametrizations_and_params(layer, module)
        result: Tensor = module(x)
        return result

    module = nn.Linear(3, 3)
    output = torch.compile(run, backend="eager")(module, INPUT)
    assert original_of(module) is original_of(layer)
    torch.testing.assert_close(output, module(INPUT))


def test_questions_about_a_module_are_answered_in_the_graph(
    graphs: Graphs, layer: nn.Linear
) -> None:
    def run(x: Tensor) -> Tensor:
        if P.is_parametrized(layer, "weight") and not P.is_parametrized(layer, "bias"):
            return x + 1
        return x

    assert graphs.compile(run)(INPUT).sum() == 12


def test_a_change_between_the_calls_compiles_anew(graphs: Graphs) -> None:
    layer = linear(Exp())
    compiled = graphs.compile(layer)
    for change in (lambda _: None, register, register_another, remove):
        change(layer)
        for scope in (nullcontext(), P.cached(layer)):
            with scope:
                assert_same(layer, compiled, INPUT)
    # one map more is no reason to compile for a scope anew: what is kept is an input
    assert graphs.evaluations == [1, 0, 1, 1, 0, 0, 0]
