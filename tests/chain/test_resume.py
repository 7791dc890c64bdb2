"""A resumed run goes on as the run that was not interrupted, bit by bit."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim.swa_utils import AveragedModel

from paramdesc import get_parametrizations
from tests.chain.resuming import REGISTER, WARM_MAPS, Run, norm_of

BEFORE, AFTER = range(20), range(20, 30)

every_map = pytest.mark.parametrize("name", REGISTER)
every_optimizer = pytest.mark.parametrize("optimizer", ["Adam", "SGD"])


def check_the_same(run: Run, other: Run, numbers: range = AFTER) -> None:
    """Both go on with the same losses, and end with the same weights, states and values."""
    assert run.train(numbers) == other.train(numbers)
    ours, theirs = run.tensors(), other.tensors()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def saved(run: Run) -> tuple[Any, Any]:
    """The state_dicts as they are now, through a file."""
    file = io.BytesIO()
    torch.save((run.model.state_dict(), run.optimizer.state_dict()), file)
    file.seek(0)
    states: tuple[Any, Any] = torch.load(file, weights_only=False)
    return states


def resumed(run: Run, name: str, states: tuple[Any, Any], **arguments: Any) -> Run:
    """Another run, which began with other numbers and has loaded those of `run`."""
    other = Run(name, seed=1, optimizer=type(run.optimizer).__name__)
    other.train(range(100, 103))
    other.model.load_state_dict(states[0], **arguments)
    if arguments.get("assign"):
        other.optimizer = type(run.optimizer)(other.model.parameters(), lr=0.05)
    other.optimizer.load_state_dict(states[1])
    return other


def test_the_runs_are_of_all_maps_with_a_warm_start() -> None:
    assert sorted(WARM_MAPS) == ["ConvolutionSpectralNorm", "SpectralNorm"]
    found = {type(module).__name__ for name in REGISTER for module in Run(name).model.modules()}
    assert found >= WARM_MAPS


# through each format


def torch_file(run: Run, name: str, folder: Path) -> Run:
    return resumed(run, name, saved(run))


def weights_only_file(run: Run, name: str, folder: Path) -> Run:
    torch.save((run.model.state_dict(), run.optimizer.state_dict()), folder / "file.pt")
    return resumed(run, name, torch.load(folder / "file.pt", weights_only=True))


def assigned(run: Run, name: str, folder: Path) -> Run:
    return resumed(run, name, saved(run), assign=True)


def not_strict(run: Run, name: str, folder: Path) -> Run:
    return resumed(run, name, saved(run), strict=False)


def without_metadata(run: Run, name: str, folder: Path) -> Run:
    """As safetensors has it: names and tensors."""
    states, optimizer = saved(run)
    return resumed(run, name, ({key: value.clone() for key, value in states.items()}, optimizer))


def from_a_saved_model(run: Run, name: str, folder: Path) -> Run:
    other = Run(name, seed=1)
    other.model = pickle.loads(pickle.dumps(run.model))
    return with_optimizer_of(run, other)


def from_a_copy(run: Run, name: str, folder: Path) -> Run:
    other = Run(name, seed=1)
    other.model = copy.deepcopy(run.model)
    return with_optimizer_of(run, other)


def both_copied(run: Run, name: str, folder: Path) -> Run:
    """The model and its optimizer in one copy."""
    return copy.deepcopy(run)


def with_optimizer_of(run: Run, other: Run) -> Run:
    other.optimizer = type(run.optimizer)(other.model.parameters(), lr=0.05)
    other.optimizer.load_state_dict(saved(run)[1])
    return other


def distributed(run: Run, name: str, folder: Path) -> Run:
    """`torch.distributed.checkpoint`, in one process."""
    save({"model": get_model_state_dict(run.model)}, checkpoint_id=folder, no_dist=True)
    other = Run(name, seed=1, optimizer=type(run.optimizer).__name__)
    loaded = {"model": get_model_state_dict(other.model)}
    load(loaded, checkpoint_id=folder, no_dist=True)
    set_model_state_dict(other.model, loaded["model"])
    return with_optimizer_of(run, other)


def distributed_with_optimizer(run: Run, name: str, folder: Path) -> Run:
    """The state_dicts that are made for it, passed on directly."""
    states = get_model_state_dict(run.model)
    optimizer = get_optimizer_state_dict(run.model, run.optimizer)
    states, optimizer = copy.deepcopy((states, optimizer))
    other = Run(name, seed=1, optimizer=type(run.optimizer).__name__)
    set_model_state_dict(other.model, states)
    set_optimizer_state_dict(other.model, other.optimizer, optimizer)
    return other


FORMATS: list[Callable[[Run, str, Path], Run]] = [
    torch_file,
    weights_only_file,
    assigned,
    not_strict,
    without_metadata,
    from_a_saved_model,
    from_a_copy,
    both_copied,
    distributed,
    distributed_with_optimizer,
]
KEEP_THE_MOMENT = [
    form
    for form in FORMATS
    if form not in (without_metadata, distributed, distributed_with_optimizer)
]
"""Those that can say whether a step is pending."""

every_format = pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.__name__)
every_full_format = pytest.mark.parametrize("form", KEEP_THE_MOMENT, ids=lambda form: form.__name__)


@every_map
@every_format
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_resumed_after_a_step(
    form: Callable[[Run, str, Path], Run], name: str, tmp_path: Path
) -> None:
    run = Run(name)
    run.train(BEFORE)
    check_the_same(run, form(run, name, tmp_path))


@every_map
@pytest.mark.parametrize("optimizer", ["SGD", "RMSprop"])
def test_resumed_after_a_step_of_other_optimizers(
    name: str, optimizer: str, tmp_path: Path
) -> None:
    run = Run(name, optimizer=optimizer)
    run.train(BEFORE)
    check_the_same(run, torch_file(run, name, tmp_path))


# at each moment


@every_map
@every_full_format
def test_resumed_between_the_forward_pass_and_the_step(
    form: Callable[[Run, str, Path], Run], name: str, tmp_path: Path
) -> None:
    run = Run(name)
    run.train(BEFORE)
    run.loss(50)
    other = form(run, name, tmp_path)
    for each in (run, other):
        each.finish(each.loss(50))
    check_the_same(run, other)


@every_map
@every_full_format
def test_resumed_before_the_first_step(
    form: Callable[[Run, str, Path], Run], name: str, tmp_path: Path
) -> None:
    run = Run(name)
    check_the_same(run, form(run, name, tmp_path))


@every_map
@every_full_format
@pytest.mark.parametrize("evaluates", [False, True])
def test_resumed_from_what_was_saved_in_evaluation_mode(
    form: Callable[[Run, str, Path], Run], name: str, evaluates: bool, tmp_path: Path
) -> None:
    run = Run(name)
    run.train(BEFORE)
    run.model.eval()
    if evaluates:
        run.loss(50)
    other = form(run, name, tmp_path)
    other.model.eval()
    assert run.loss(51) == other.loss(51)
    for each in (run, other):
        each.model.train()
    check_the_same(run, other)


@every_map
def test_resumed_by_a_model_that_has_its_own_steps_pending_and_by_one_that_has_not(
    name: str,
) -> None:
    run = Run(name)
    run.train(BEFORE)
    states = saved(run)
    others = [Run(name, seed=1) for _ in range(2)]
    others[0].train(range(3))
    others[1].loss(0)
    losses = run.train(AFTER)
    for other in others:
        other.model.load_state_dict(states[0])
        other.optimizer.load_state_dict(copy.deepcopy(states[1]))  # it takes the tensors themselves
        assert other.train(AFTER) == losses


@every_map
def test_rolled_back_in_the_same_model(name: str) -> None:
    run = Run(name)
    run.train(BEFORE)
    states = saved(run)
    losses = run.train(AFTER)
    run.model.load_state_dict(states[0])
    run.optimizer.load_state_dict(states[1])
    assert run.train(AFTER) == losses


# saving, and what runs next to the training


def save_all(run: Run, folder: Path) -> None:
    saved(run)
    copy.deepcopy(run.model)
    pickle.dumps(run.model)
    get_model_state_dict(run.model)


def save_in_evaluation_mode(run: Run, folder: Path) -> None:
    run.model.eval()
    run.loss(1000)
    saved(run)
    run.model.train()


def load_own(run: Run, folder: Path) -> None:
    states = saved(run)
    run.model.load_state_dict(states[0])


@every_map
@pytest.mark.parametrize(
    "disturb", [save_all, save_in_evaluation_mode, load_own], ids=lambda function: function.__name__
)
def test_saving_changes_nothing_in_the_run(
    name: str, disturb: Callable[[Run, Path], None], tmp_path: Path
) -> None:
    run, other = Run(name), Run(name)
    for number in range(10):
        loss = run.loss(number)
        its_loss = other.loss(number)
        assert loss == its_loss
        disturb(other, tmp_path)
        run.finish(loss)
        other.finish(its_loss) if disturb is not load_own else other.finish(other.loss(number))
        disturb(other, tmp_path)
    check_the_same(run, other)


@every_map
def test_averaged_model_next_to_it_changes_nothing(name: str) -> None:
    run, other = Run(name), Run(name)
    averaged = AveragedModel(other.model, use_buffers=False)
    for number in range(10):
        assert run.step(number) == other.step(number)
        averaged.update_parameters(other.model)
        averaged.eval()
        averaged(torch.ones(1, 16))
    check_the_same(run, other)


# what a checkpoint may lack


def without_states(run: Run) -> dict[str, Tensor]:
    names = get_parametrizations(run.model).warm_start_names()
    assert len(names) == 4
    states: dict[str, Tensor] = saved(run)[0]
    return {name: value for name, value in states.items() if name not in names}


@every_map
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("assign", [True, False])
def test_norm_is_right_at_once_without_the_state(name: str, training: bool, assign: bool) -> None:
    run, other = Run(name), Run(name, seed=1)
    run.train(BEFORE)
    other.train(range(3))
    other.model.train(training)
    other.model.load_state_dict(without_states(run), strict=False, assign=assign)
    for index in (0, 2):
        assert norm_of(other.model, index) == pytest.approx(bound_of(name), rel=2e-3)


@every_map
@pytest.mark.parametrize("training", [True, False])
def test_norm_is_right_at_once_with_the_originals_of_another_layer(
    name: str, training: bool
) -> None:
    run, other = Run(name), Run(name, seed=1)
    run.train(BEFORE)
    run.loss(0)
    other.model.train(training)
    states = saved(run)[0]
    first = {key: value for key, value in states.items() if key.startswith("0.")}
    swapped = {key.replace("0.", "2.", 1): value for key, value in first.items()}
    only_originals = {key: value for key, value in swapped.items() if key.endswith("original")}
    assert len(only_originals) == 1
    other.model.load_state_dict(only_originals, strict=False)
    assert norm_of(other.model, 2) == pytest.approx(bound_of(name), rel=2e-3)


def bound_of(name: str) -> float:
    return 0.5 if "inside" in name else 1.0
