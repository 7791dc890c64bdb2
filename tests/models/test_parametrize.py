"""One call parametrizes a model: what is chosen, what is left, and all or nothing."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.errors import PlacementError, SelectionError
from paramdesc.parametrizations import (
    LoRA,
    LowRank,
    Orthogonal,
    Positive,
    SpectralNorm,
    Sphere,
    Stacked,
    Symmetric,
    WeightNorm,
    lora,
    orthogonal,
)
from tests.helpers import chain_of
from tests.models.architectures import Attention, Recurrent, convolutions, trained


def linears() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))


def test_attention() -> None:
    model: Any = Attention()
    result = P.parametrize(
        model, {"in_proj_weight": lambda: Stacked(Orthogonal(), 3), nn.Linear: orthogonal}
    )
    assert result.done == [
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "feed.0.weight",
        "feed.2.weight",
    ]
    assert not result.left
    trained(model, torch.optim.Adam(model.parameters()), torch.randn(2, 5, 4))
    for part in model.attention.in_proj_weight.chunk(3):
        torch.testing.assert_close(part @ part.T, torch.eye(4))
    columns = model.feed[0].weight
    torch.testing.assert_close(columns.T @ columns, torch.eye(4))


def test_convolutions_and_a_lazy_layer() -> None:
    model: Any = convolutions()
    key = (nn.Conv2d, nn.ConvTranspose2d)
    result = P.parametrize(model, {key: lambda: SpectralNorm(0.9), nn.Linear: LoRA})
    assert result.done == ["0.weight", "3.weight"]
    assert result.pending == ["5.weight"]
    assert P.get_parametrizations(model).names() == result.done
    model(torch.randn(2, 3, 8, 8))
    assert P.get_parametrizations(model).names() == [*result.done, "5.weight"]
    norm = torch.linalg.matrix_norm(model[0].weight.flatten(1), 2)
    assert norm.item() == pytest.approx(0.9, abs=1e-3)


def test_an_lstm() -> None:
    model: Any = Recurrent()
    result = P.parametrize(model, {"*weight_hh_*": lambda: Stacked(Orthogonal(), 4)})
    assert result.done == ["lstm.weight_hh_l0", "lstm.weight_hh_l1"]
    trained(model, torch.optim.Adam(model.parameters()), torch.randn(2, 5, 3))
    lstm: Any = model.lstm
    for gate in lstm.weight_hh_l1.chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(4))


def test_each_tensor_has_a_map_of_its_own() -> None:
    model = linears()
    P.parametrize(model, {nn.Linear: functools.partial(SpectralNorm, 0.5)})
    assert chain_of(model[0])[0] is not chain_of(model[2])[0]


@pytest.mark.parametrize(
    ("maps", "names"),
    [
        ({"weight": Sphere}, ["Sphere", "Sphere"]),
        ({nn.Linear: Sphere, "2.weight": WeightNorm}, ["Sphere", "WeightNorm"]),
        ({"2*": WeightNorm, nn.Linear: Sphere}, ["Sphere", "WeightNorm"]),
        ({"0.weight": Symmetric()}, ["Symmetric"]),
        ({nn.Linear: lambda module, name: Sphere() if module.out_features == 2 else LowRank(1)},
         ["LowRank", "Sphere"]),
        ({nn.Linear: lambda: torch.exp}, ["FunctionMap", "FunctionMap"]),
    ],
)  # fmt: skip
def test_which_key_decides(maps: dict[Any, Any], names: list[str]) -> None:
    model = linears()
    P.parametrize(model, maps, exclude="*.bias")
    found = [type(chain[0]).__name__ for chain in P.get_parametrizations(model)]
    assert found == names


def test_what_does_not_fit_is_left_with_its_reason() -> None:
    model = linears()
    result = P.parametrize(model, {nn.Linear: Symmetric, "*.bias": Positive})
    assert list(result.left) == ["2.weight"]
    assert "symmetric matrices are square" in result.left["2.weight"]
    assert "2.weight" in str(result)
    assert repr(result) == "ParametrizeResult(done=3, pending=0, left=1)"
    assert not P.is_parametrized(model, "2.weight")
    assert result.parametrizations == P.get_parametrizations(model)


def test_what_is_named_exactly_and_does_not_fit_raises() -> None:
    model = linears()
    with pytest.raises(ValueError, match="square") as caught:
        P.parametrize(model, {nn.Linear: Sphere, "2.weight": Symmetric})
    assert "2.weight" in str(caught.value.__notes__)
    assert not P.get_parametrizations(model)


def test_a_key_whose_map_fits_nothing_raises() -> None:
    model = linears()
    with pytest.raises(ValueError, match="square") as caught:
        P.parametrize(model, {"2*": Symmetric})
    assert "No tensor" in str(caught.value.__notes__)


def test_parametrized_tensors_are_left_unless_asked() -> None:
    model = linears()
    P.parametrize(model, {nn.Linear: Sphere})
    again = P.parametrize(model, {nn.Linear: Sphere})
    assert list(again.left) == ["0.weight", "2.weight"]
    with pytest.raises(PlacementError, match="append=True"):
        P.parametrize(model, {"0.weight": Sphere})
    P.parametrize(model, {nn.Linear: SpectralNorm}, append=True)
    assert [len(chain) for chain in P.get_parametrizations(model)] == [2, 2]


@pytest.mark.parametrize(
    ("maps", "error", "message"),
    [
        ({"0.wieght": Sphere}, SelectionError, "Did you mean"),
        ({nn.Conv2d: Sphere}, SelectionError, "matches no tensor"),
        ({nn.Linear: Symmetric()}, PlacementError, r"`lambda: Symmetric\(...\)`"),
        ({nn.Linear: LowRank}, PlacementError, r"`lambda: LowRank\(...\)`"),
        ({nn.Linear: torch.exp}, PlacementError, "`lambda: exp`"),
        ({nn.Linear: lambda X: X.triu()}, PlacementError, "neither without arguments"),
        ({nn.Linear: "Symmetric"}, PlacementError, "Write a class"),
        ({nn.Linear: Sphere, "*.weight": LoRA}, PlacementError, "earlier key"),
        ({"0.weight": lambda module, name: None}, PlacementError, "did not register a map"),
    ],
)  # fmt: skip
def test_mistakes(maps: dict[Any, Any], error: type[Exception], message: str) -> None:
    model = linears()
    with pytest.raises(error, match=message):
        P.parametrize(model, maps)
    assert not P.get_parametrizations(model)


def test_an_unknown_exclusion_raises() -> None:
    with pytest.raises(SelectionError):
        P.parametrize(linears(), {nn.Linear: Sphere}, exclude=["0.weight", "haed"])


def test_exceptions_of_a_factory_are_not_swallowed() -> None:
    def broken() -> nn.Module:
        raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        P.parametrize(linears(), {nn.Linear: broken})


class Interrupting(nn.Module):
    """Interrupts at the second tensor."""

    def forward(self, X: Tensor) -> Tensor:
        if X.shape == (2, 3):
            raise KeyboardInterrupt
        return X


def state(model: nn.Module) -> Any:
    return [
        (name, type(module), {key: value for key, value in vars(module).items() if key})
        for name, module in model.named_modules()
    ]


@pytest.mark.parametrize("value", [Interrupting, lambda module, name: Interrupting()])
def test_an_interrupt_leaves_the_model_as_it_was(value: Any) -> None:
    model = linears()
    optimizer = torch.optim.Adam(model.parameters())
    trained(model, optimizer, torch.randn(4, 3))
    before = [(name, x, x.detach().clone()) for name, x in model.named_parameters()]
    groups = [list(group["params"]) for group in optimizer.param_groups]
    was = state(model)
    with pytest.raises(KeyboardInterrupt):
        P.parametrize(model, {"*.bias": WeightNorm, nn.Linear: value}, optimizer=optimizer)
    now = [(name, x) for name, x in model.named_parameters()]
    assert [(name, id(x)) for name, x in now] == [(name, id(x)) for name, x, _ in before]
    assert all(x.equal(old) for _, x, old in before)
    assert [[id(x) for x in g["params"]] for g in optimizer.param_groups] == [
        [id(x) for x in group] for group in groups
    ]
    assert [x[:2] for x in state(model)] == [x[:2] for x in was]
    assert [x[2].keys() for x in state(model)] == [x[2].keys() for x in was]


def test_lora_is_undone_with_what_it_froze() -> None:
    model = linears()
    with pytest.raises(ValueError, match="square"):
        P.parametrize(model, {"0.weight": functools.partial(lora, rank=1), "2.weight": Symmetric})
    assert all(x.requires_grad for x in model.parameters())


def test_buffers_are_chosen_by_their_name_only() -> None:
    model = convolutions()[:2]
    result = P.parametrize(model, {"1*": Sphere}, exclude="*bias")
    assert result.done == ["1.weight"]
    assert P.parametrize(model, {"running_var": Positive}).done == ["1.running_var"]
