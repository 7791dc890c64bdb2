"""Every world takes what paramdesc parametrizes, and the page says what torch's engine does."""

from __future__ import annotations

import pytest
from torch import Tensor
from torch.nn.functional import linear

from tests.worlds.case import of_linear, of_loop
from tests.worlds.checks import WrongError, check_evaluated_once
from tests.worlds.engines import PARAMDESC, TORCH
from tests.worlds.page import (
    PAGE,
    WORLDS,
    World,
    attempt,
    outcome,
    read_page,
    shortened,
    torch_version,
    write,
)

# packages that a cell may need, and a user of it
OPTIONAL = {"onnx", "onnxruntime", "onnxscript", "torchao"}
VERSION, ROWS = read_page(PAGE.read_text(encoding="utf-8"))

every_world = pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)


def skip_without(error: ModuleNotFoundError) -> None:
    if error.name not in OPTIONAL:
        raise error
    pytest.skip(f"{error.name} is not installed")


@every_world
def test_paramdesc_works_in(world: World) -> None:
    try:
        attempt(world, PARAMDESC)
    except ModuleNotFoundError as error:
        skip_without(error)


@every_world
def test_the_page_says_what_torch_does_in(world: World) -> None:
    if torch_version() != VERSION:
        pytest.skip(f"the page was written with torch {VERSION}")
    try:
        found = outcome(world, TORCH)
    except ModuleNotFoundError as error:
        skip_without(error)
    assert ROWS[world.group, world.title] == (found, "yes")


def test_an_outcome_is_the_same_at_every_attempt() -> None:
    (scripted,) = (world for world in WORLDS if world.name == "constraining.scripted")
    first, second = (outcome(scripted, TORCH) for _ in range(2))
    assert first.startswith("no: ")
    assert second == first


def test_the_page_has_a_row_for_each_world_and_no_other() -> None:
    assert list(ROWS) == [(world.group, world.title) for world in WORLDS]


def test_the_readme_counts_the_rows() -> None:
    text = " ".join((PAGE.parents[1] / "README.md").read_text(encoding="utf-8").split())
    theirs = sum(found[0] == "yes" for found in ROWS.values())
    assert f"all {len(ROWS)} work; with `torch.nn.utils.parametrize`, {theirs} do." in text


def test_a_written_page_is_read_back_with_its_footnotes() -> None:
    reasons = ("no: 8 graphs", "yes", r"no: `E`: a \| b: c", "no: 8 graphs")
    rows = {world: (theirs, "yes") for world, theirs in zip(WORLDS[:4], reasons, strict=True)}
    text = write(rows)
    assert text.count("no[^1]") == 2
    assert text.count("no[^2]") == 1
    assert "[^3]" not in text
    named = {(world.group, world.title): found for world, found in rows.items()}
    assert read_page(text) == (torch_version(), named)


# what the cells check


def test_a_case_finds_what_is_wrong() -> None:
    case = of_linear(PARAMDESC)
    model, kept = case.model, []

    def constant(x: Tensor) -> Tensor:
        kept.append(model.weight.detach())  # of the first call, before the original changes
        right_gradient = model.weight - model.weight.detach()
        return linear(x, kept[0] + right_gradient, model.bias)

    def scaled_gradient(x: Tensor) -> Tensor:
        y: Tensor = 2 * model(x)
        return y - y.detach() / 2

    case.check(model)
    for run, mistake in (
        (lambda x: 2 * model(x), "wrong outputs"),
        (constant, "the weight is a constant"),
        (lambda x: linear(x, model.weight.detach(), model.bias), "no gradient reaches"),
        (lambda x: model(x).detach(), "no gradient reaches"),
        (scaled_gradient, "wrong gradients"),
    ):
        with pytest.raises(WrongError, match=mistake):
            case.check(run)


def test_evaluations_are_counted() -> None:
    case = of_loop(PARAMDESC)
    with PARAMDESC.cached(case.model):
        check_evaluated_once(lambda: case.model(*case.inputs))
        with pytest.raises(WrongError, match="never evaluated"):
            check_evaluated_once(lambda: case.model(*case.inputs))
    with pytest.raises(WrongError, match="evaluated 3 times"):
        check_evaluated_once(lambda: case.model(*case.inputs))
    with pytest.raises(WrongError, match="evaluated 2 times"):
        check_evaluated_once("aten::exp(%1) aten::exp(%2) aten::expand(%3)")


def test_a_message_is_told_without_what_differs_from_run_to_run() -> None:
    message = "\n at /a/b-c/d.py:3, <F object at 0x7f00>, __torch__.___torch_mangle_3.F\nmore"
    assert shortened(message) == r"at ...:3, \<F object at 0x...\>, \_\_torch\_\_.F"
    interpreter = "The following operation failed in the TorchScript interpreter.\nat\nE: why"
    assert shortened(interpreter) == "E: why"
    assert shortened("word " * 50).endswith("word word ...")
    assert shortened("") == ""
