"""The state of a `Parametrization`: when it moves, and when it stays."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from paramdesc import (
    cached,
    get_parametrizations,
    register_parametrization,
)
from tests.chain.steps import Steps
from tests.helpers import Double, chain_of, linear, saved_and_loaded, train_step

INPUTS = torch.linspace(-1, 1, 6).view(2, 3)


def steps(module: Any) -> float:
    """How far the state of `module.weight` has moved."""
    return float(chain_of(module)[0].count)


@pytest.fixture
def layer() -> nn.Linear:
    """A layer in training, its weight read once."""
    layer = linear(Steps())
    layer(INPUTS)
    return layer


def test_step_moves_the_state_once_at_the_first_evaluation_after_it(layer: nn.Linear) -> None:
    for number in range(1, 4):
        train_step(layer)
        assert steps(layer) == number - 1
        for _ in range(3):
            layer(INPUTS)
        assert steps(layer) == number


class Around(nn.Module):
    """Twice what the map inside of it gives of half its input."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, X: Tensor) -> Tensor:
        result: Tensor = 2 * self.inner(X / 2)
        return result

    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y


def test_maps_inside_of_others_follow_the_steps_of_the_chain() -> None:
    layer = linear(Around(Around(Steps())))
    count = chain_of(layer)[0].inner.inner
    for number in range(3):
        for _ in range(3):
            layer(INPUTS)
        assert count.count == number
        train_step(layer)
    layer.weight = torch.eye(3)
    assert count.count == 0
    assert get_parametrizations(layer).warm_start_names() == [
        "parametrizations.weight.0.inner.inner.count"
    ]


def test_maps_of_originals_that_are_parametrized_follow_their_own_chain() -> None:
    layer = linear(Double())
    register_parametrization(chain_of(layer), "original", Steps())
    inner = chain_of(chain_of(layer), "original")
    for number in range(1, 3):
        train_step(chain_of(layer), "original")
        layer(INPUTS)
        assert inner[0].count == number


def test_first_step_after_registration_counts() -> None:
    layer = linear(Steps())
    train_step(layer)
    layer(INPUTS)
    assert steps(layer) == 1


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_steps_of_optimizers_count(
    layer: nn.Linear, optimizer: Callable[..., torch.optim.Optimizer]
) -> None:
    stepper = optimizer(layer.parameters(), lr=0.1)
    for number in range(1, 4):
        stepper.zero_grad()
        (layer(INPUTS) - layer(2 * INPUTS)).square().sum().backward()
        stepper.step()
        layer(INPUTS)
        assert steps(layer) == number


def test_reads_do_not_move_it_in_any_mode(layer: nn.Linear) -> None:
    with torch.no_grad():
        layer(INPUTS)
    with torch.inference_mode():
        layer(INPUTS)
    layer.eval()
    layer(INPUTS)
    layer.train()
    layer(INPUTS)
    assert steps(layer) == 0


def test_evaluation_mode_does_not_move_it_even_after_a_step(layer: nn.Linear) -> None:
    layer.eval()
    train_step(layer)
    layer(INPUTS)
    assert steps(layer) == 0
    layer.train()
    layer(INPUTS)
    assert steps(layer) == 1


def test_gradient_accumulation_and_several_passes_in_a_step_see_one_state(
    layer: nn.Linear,
) -> None:
    train_step(layer)
    for _ in range(4):
        (layer(INPUTS) - layer(-INPUTS)).sum().backward()
    assert steps(layer) == 1


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoint_recomputes_with_the_same_state(layer: nn.Linear, use_reentrant: bool) -> None:
    train_step(layer)
    inputs = INPUTS.clone().requires_grad_()
    checkpoint(layer, inputs, use_reentrant=use_reentrant).sum().backward()
    assert steps(layer) == 1


def test_lent_tensors_do_not_move_it_nor_hide_a_step(layer: nn.Linear) -> None:
    lent = {"parametrizations.weight.original": torch.randn(3, 3)}
    torch.func.functional_call(layer, lent, (INPUTS,))
    assert steps(layer) == 0
    train_step(layer)
    torch.func.functional_call(layer, lent, (INPUTS,))
    layer(INPUTS)
    assert steps(layer) == 1


def test_transforms_do_not_move_it(layer: nn.Linear) -> None:
    weights = torch.randn(5, 3, 3)

    def call(weight: Tensor) -> Tensor:
        lent = {"parametrizations.weight.original": weight}
        outputs: Tensor = torch.func.functional_call(layer, lent, (INPUTS,))
        return outputs.sum()

    torch.func.vmap(torch.func.grad(call))(weights)
    assert steps(layer) == 0


@pytest.mark.parametrize("start", ["registration", "assignment", "reset"])
def test_state_made_in_inference_mode_can_be_trained_later(start: str) -> None:
    layer: Any = nn.Linear(3, 3) if start == "registration" else linear(Steps())
    with torch.inference_mode():
        if start == "registration":
            register_parametrization(layer, "weight", Steps())
        elif start == "assignment":
            layer.weight = torch.eye(3)
        else:
            chain_of(layer)[0].reset(torch.eye(3))
    layer(INPUTS).sum().backward()
    train_step(layer)
    layer(INPUTS).sum().backward()
    assert steps(layer) == 1


def test_conversion_does_not_move_it_and_the_next_step_does(layer: nn.Linear) -> None:
    layer.double()
    layer(INPUTS.double())
    assert steps(layer) == 0
    train_step(layer)
    layer(INPUTS.double())
    assert steps(layer) == 1


def test_conversion_by_swapping_likewise(layer: nn.Linear) -> None:
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        layer.double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    train_step(layer)
    layer(INPUTS.double())
    assert steps(layer) == 1


@pytest.mark.parametrize(
    "make_copy",
    [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module)), saved_and_loaded],
)
def test_copy_has_the_state_and_moves_on_its_own(
    layer: nn.Linear, make_copy: Callable[[Any], Any]
) -> None:
    train_step(layer)
    layer(INPUTS)
    twin = make_copy(layer)
    twin(INPUTS)
    assert steps(twin) == 1
    for _ in range(2):
        train_step(twin)
        twin(INPUTS)
    assert (steps(twin), steps(layer)) == (3, 1)


def test_step_directly_after_a_copy_counts(layer: nn.Linear) -> None:
    twin = copy.deepcopy(layer)
    train_step(twin)
    twin(INPUTS)
    assert steps(twin) == 1


@pytest.mark.parametrize("assign", [False, True])
def test_checkpoint_carries_the_state_and_loading_is_no_step(
    layer: nn.Linear, assign: bool
) -> None:
    for _ in range(3):
        train_step(layer)
        layer(INPUTS)
    other = linear(Steps())
    other.load_state_dict(layer.state_dict(), assign=assign)
    other(INPUTS)
    assert steps(other) == 3


def test_assignment_and_reset_start_anew(layer: nn.Linear) -> None:
    for restart in (
        lambda: setattr(layer, "weight", torch.eye(3)),
        lambda: chain_of(layer)[0].reset(torch.eye(3)),
    ):
        train_step(layer)
        layer(INPUTS)
        assert steps(layer) == 1
        restart()
        assert steps(layer) == 0


def test_scope_sees_the_step(layer: nn.Linear) -> None:
    with cached():
        for number in range(1, 3):
            train_step(layer)
            layer(layer(INPUTS)).sum().backward()
            assert steps(layer) == number


def test_frozen_chain_in_evaluation_mode_keeps_its_state(layer: nn.Linear) -> None:
    chain_of(layer).eval()
    train_step(layer)
    layer(INPUTS)
    assert steps(layer) == 0


def test_state_is_buffers_and_is_named_for_averaging(layer: nn.Linear) -> None:
    name = "parametrizations.weight.0.count"
    assert name in dict(layer.named_buffers())
    assert get_parametrizations(layer).warm_start_names() == [name]
    model = nn.Sequential(linear(), layer)
    names = get_parametrizations(model).warm_start_names()
    assert names == [f"1.{name}"]
    assert set(names) <= model.state_dict().keys()


def test_state_of_a_map_on_an_original_is_named_too() -> None:
    layer = linear()
    register_parametrization(chain_of(layer), "original", Steps())
    (name,) = get_parametrizations(layer).warm_start_names()
    assert name in layer.state_dict()


def test_state_keeps_its_tensors_so_that_replicas_and_graphs_do(layer: nn.Linear) -> None:
    state = chain_of(layer)[0].count
    train_step(layer)
    layer(INPUTS)
    assert chain_of(layer)[0].count is state


def test_state_without_a_first_guess_is_refused_by_name() -> None:
    class Unguessed(Steps):
        def guess(self, *originals: Tensor) -> tuple[Tensor, ...]:
            return super(Steps, self).guess(*originals)

    layer = nn.Linear(3, 3)
    weight = layer.weight
    with pytest.raises(NotImplementedError, match=r"Unguessed declares.*define guess"):
        register_parametrization(layer, "weight", Unguessed())
    assert layer.weight is weight


def test_a_step_before_a_conversion_is_followed_after_it(layer: nn.Linear) -> None:
    for number in range(1, 4):
        train_step(layer)
        layer.to("cpu")
        layer(INPUTS)
        assert steps(layer) == number
    layer.to("cpu")
    layer(INPUTS)
    assert steps(layer) == 3


def test_tensors_that_are_lent_and_die_make_no_step(layer: nn.Linear) -> None:
    for i in range(50):
        lent = torch.randn(3, 3)
        for _ in range(i % 3):
            lent.add_(1)  # another version, at a place that was used before
        torch.func.functional_call(layer, {"parametrizations.weight.original": lent}, (INPUTS,))
    assert steps(layer) == 0
