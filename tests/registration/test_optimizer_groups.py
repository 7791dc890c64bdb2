"""Optimizers follow when what is trained for a tensor changes, and warn where they do not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import paramdesc as P
from paramdesc.errors import OptimizerError
from paramdesc.parametrizations import LoRA, LowRank, Scaled, SpectralNorm, Symmetric, WeightNorm
from tests.helpers import chain_of

pytestmark = pytest.mark.usefixtures("nothing_frozen")

OPTIMIZERS: list[Any] = [
    lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9),
    lambda groups: torch.optim.Adam(groups, lr=0.01, amsgrad=True),
    lambda groups: torch.optim.AdamW(groups, lr=0.01, fused=True),
    lambda groups: torch.optim.Adagrad(groups, lr=0.01),
    lambda groups: torch.optim.RMSprop(groups, lr=0.01),
    lambda groups: torch.optim.Adafactor(groups, lr=0.01),
]


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    def closure() -> Any:
        optimizer.zero_grad()
        loss: Any = model(torch.ones(2, 4)).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)


def two_groups(whole: nn.Sequential) -> list[dict[str, Any]]:
    return [
        {"params": list(whole[0].parameters()), "weight_decay": 0.0},
        {"params": list(whole[2].parameters()), "lr": 0.001},
    ]


def shapes(optimizer: torch.optim.Optimizer) -> list[list[tuple[int, ...]]]:
    return [[tuple(x.shape) for x in group["params"]] for group in optimizer.param_groups]


def trains_all(model: nn.Module, optimizer: torch.optim.Optimizer) -> bool:
    listed = [id(x) for group in optimizer.param_groups for x in group["params"]]
    return sorted(listed) == sorted(id(x) for x in model.parameters())


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_several_originals_take_the_place_of_the_weight(make: Any) -> None:
    whole = model()
    optimizer = make(two_groups(whole))
    step(whole, optimizer)
    state = optimizer.state[whole[2].weight]
    P.register_parametrization(whole, "2.weight", WeightNorm(), optimizer=optimizer)
    assert shapes(optimizer) == [[(4, 4), (4,)], [(4, 1), (4, 4), (4,)]]
    assert optimizer.param_groups[1]["lr"] == 0.001
    chain = chain_of(whole[2])
    assert optimizer.state[chain.original1] is state  # v has the numbers of the weight
    before = chain.original0.detach().clone()
    step(whole, optimizer)
    assert not chain.original0.equal(before)
    P.remove_parametrizations(whole, "2.weight", optimizer=optimizer)
    assert shapes(optimizer) == [[(4, 4), (4,)], [(4, 4), (4,)]]
    assert trains_all(whole, optimizer)
    assert set(optimizer.state) <= set(whole.parameters())
    step(whole, optimizer)
    copy.deepcopy(optimizer).load_state_dict(optimizer.state_dict())


def test_state_of_other_coordinates_is_not_taken() -> None:
    whole = model()
    optimizer = torch.optim.Adam(whole.parameters())
    step(whole, optimizer)
    P.register_parametrization(whole, "0.weight", LowRank(4), optimizer=optimizer)
    assert all(x not in optimizer.state for x in chain_of(whole[0]).originals())
    step(whole, optimizer)
    assert trains_all(whole, optimizer)


@pytest.mark.parametrize("make", [lambda: LoRA(1), Scaled])
def test_parameters_of_a_map_come_and_go(make: Any) -> None:
    whole = model()
    optimizer = torch.optim.Adam(two_groups(whole))
    step(whole, optimizer)
    weight = whole[2].weight
    P.register_parametrization(whole, "2.weight", make(), optimizer=optimizer)
    assert trains_all(whole, optimizer)
    assert optimizer.param_groups[1]["params"][0] is weight
    assert weight in optimizer.state
    step(whole, optimizer)
    P.remove_parametrizations(whole, "2.weight", optimizer=optimizer)
    assert shapes(optimizer) == [[(4, 4), (4,)], [(4, 4), (4,)]]
    assert whole[2].weight is weight


def test_names_of_parameters_follow() -> None:
    whole = model()
    optimizer = torch.optim.Adam(whole.named_parameters())
    P.register_parametrization(whole, "2.weight", WeightNorm(), optimizer=optimizer)
    expected = ["0.weight", "0.bias", "2.parametrizations.weight.original0"]
    assert optimizer.param_groups[0]["param_names"][:3] == expected
    P.remove_parametrizations(whole, "2.weight", optimizer=optimizer)
    names = {id(x): name for name, x in whole.named_parameters()}
    group = optimizer.param_groups[0]
    assert group["param_names"] == [names[id(x)] for x in group["params"]]


def test_lbfgs_starts_anew() -> None:
    whole = model()
    optimizer = torch.optim.LBFGS(whole.parameters(), max_iter=3)
    step(whole, optimizer)
    P.register_parametrization(whole, "0.weight", WeightNorm(), optimizer=optimizer)
    step(whole, optimizer)
    assert trains_all(whole, optimizer)


def test_a_whole_model() -> None:
    whole = model()
    optimizer = torch.optim.Adam(two_groups(whole))
    step(whole, optimizer)
    P.parametrize(whole, {nn.Linear: WeightNorm}, optimizer=optimizer)
    assert trains_all(whole, optimizer)
    assert shapes(optimizer) == [[(4, 1), (4, 4), (4,)]] * 2
    step(whole, optimizer)


def test_a_parameter_that_another_module_holds_stays() -> None:
    whole = model()
    whole[2].weight = whole[0].weight
    optimizer = torch.optim.Adam(whole.parameters())
    with pytest.warns(UserWarning, match="trained separately"):
        P.register_parametrization(whole, "0.weight", WeightNorm(), optimizer=optimizer)
    assert trains_all(whole, optimizer)


def test_a_parameter_that_the_optimizer_does_not_have_brings_none() -> None:
    whole = model()
    optimizer = torch.optim.Adam(whole[0].parameters())
    P.register_parametrization(whole, "2.weight", WeightNorm(), optimizer=optimizer)
    assert shapes(optimizer) == [[(4, 4), (4,)]]


def test_what_is_not_an_optimizer_is_refused() -> None:
    wrong: Any = "sgd"
    for call in (P.register_parametrization, P.parametrize):
        arguments: Any = ("0.weight", Symmetric()) if call is P.register_parametrization else ({},)
        with pytest.raises(OptimizerError, match="takes a torch optimizer"):
            call(model(), *arguments, optimizer=wrong)


def test_a_failure_leaves_the_optimizer_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = model()
    optimizer = torch.optim.Adam(whole.named_parameters())
    step(whole, optimizer)
    before = [list(optimizer.param_groups[0][name]) for name in ("params", "param_names")]
    states = dict(optimizer.state)

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("paramdesc.registration.optimizer_groups.pass_on_state", fail)
    with pytest.raises(KeyboardInterrupt):
        P.register_parametrization(whole, "0.weight", WeightNorm(), optimizer=optimizer)
    assert not P.is_parametrized(whole, "0.weight")
    assert [id(x) for x in optimizer.param_groups[0]["params"]] == [id(x) for x in before[0]]
    assert optimizer.param_groups[0]["param_names"] == before[1]
    assert {id(x): state for x, state in optimizer.state.items()} == {
        id(x): state for x, state in states.items()
    }
    assert trains_all(whole, optimizer)


def test_a_lazy_tensor_is_refused() -> None:
    lazy = nn.LazyLinear(2)
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))])
    with pytest.raises(OptimizerError, match="Call the module once"):
        P.register_parametrization(lazy, "weight", SpectralNorm(), optimizer=optimizer)


@pytest.mark.parametrize("change", ["register", "remove"])
def test_an_optimizer_with_a_parameter_that_is_gone_warns_once(change: str) -> None:
    whole = model()
    if change == "remove":
        P.register_parametrization(whole, "0.weight", WeightNorm())
    optimizer = torch.optim.Adam(whole.parameters())
    step(whole, optimizer)
    if change == "register":
        P.register_parametrization(whole, "0.weight", WeightNorm())
    else:
        P.remove_parametrizations(whole, "0.weight")
    with pytest.warns(
        UserWarning, match="Adam has a Parameter that is no longer part of a module"
    ) as caught:
        step(whole, optimizer)
    assert all(x.filename == __file__ for x in caught)
    step(whole, optimizer)


def test_an_optimizer_that_is_made_afterwards_does_not_warn() -> None:
    whole = model()
    step(whole, torch.optim.Adam(whole.parameters()))
    P.register_parametrization(whole, "0.weight", WeightNorm())
    step(whole, torch.optim.Adam(whole.parameters()))


def test_originals_by_name_each_once() -> None:
    whole = model()
    P.parametrize(whole, {"0.weight": WeightNorm, "2.weight": Symmetric})
    found = P.get_parametrizations(whole)
    assert [name for name, _ in found.named_originals()] == [
        "0.parametrizations.weight.original0",
        "0.parametrizations.weight.original1",
        "2.parametrizations.weight.original",
    ]
    names = {id(x): name for name, x in whole.named_parameters()}
    assert [names[id(x)] for x in found.originals()] == [n for n, _ in found.named_originals()]
    other = P.transfer_parametrizations_and_params(whole[0], nn.Linear(4, 4))
    assert len(P.get_parametrizations(whole, other).originals()) == 3
    torch.optim.Adam([{"params": found.named_originals(), "weight_decay": 0.0}])
