"""One row of the table: a change, and what becomes of a cached value in each kind of scope."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import FunctionType, MethodType
from typing import Any, Literal

import torch
from torch import Tensor

import paramdesc as P
from tests.caching.dependencies.kinds import (
    IN_A_BLOCK,
    LASTING,
    Reader,
    Weight,
    auto_cached,
    entered_anew,
    weighing,
)
from tests.helpers import Double, chain_of

__all__ = ["NO", "NOT_COMPARED", "Case", "Columns", "outcomes"]

Columns = tuple[dict[str, Reader], ...]

YES, NO, KEPT, NOT_KEPT, NONE = "yes", "**no**", "unaffected", "freed", "-"

NOT_COMPARED: dict[str, Reader] = {
    "persistent": partial(entered_anew, check_contents=False),
    "auto_cache": partial(auto_cached, check_contents=False),
}
"""What outlives a block where nothing is compared, as on a GPU."""

PERSISTENT = "in a persistent block"
COLUMNS = ({k: v for k, v in IN_A_BLOCK.items() if k != PERSISTENT}, LASTING, NOT_COMPARED)


def expect_fresh(layer: Weight) -> Tensor:
    value: Tensor = chain_of(layer)()
    return value


def doubling() -> Weight:
    return weighing(Double())


@dataclass(frozen=True)
class Case:
    """What is done between two reads of a weight.

    Args:
        title: what the table says.
        change: does it to the layer; what it gives back undoes it.
        make: the layer.
        of: what is changed: something of the layer, the kept value itself, or a mode of torch.
        columns: the kinds of scope by column, where not all of them apply.
        try_: says the outcome in one kind of scope, where the ordinary way does not do.
    """

    title: str
    change: Callable[[Any], Any]
    make: Callable[[], Weight] = doubling
    of: Literal["layer", "value", "mode"] = "layer"
    columns: Columns = COLUMNS
    try_: Callable[[Case, Reader], str] | None = None


def outcomes(case: Case) -> tuple[str, ...]:
    """What each column says: all kinds of scope in it must agree."""
    cells = []
    for kinds in case.columns:
        found = {name: (case.try_ or attempt)(case, kind) for name, kind in kinds.items()}
        assert len(set(found.values())) <= 1, (case.title, found)
        cells.append(next(iter(found.values()), NONE))
    if case.columns is COLUMNS:  # in a block, what lasts is compared at its beginning only
        expected = cells[0] if cells[1] == NOT_KEPT else cells[2]
        assert attempt(case, IN_A_BLOCK[PERSISTENT]) == expected, case.title
    return tuple(cells)


def attempt(case: Case, kind: Reader) -> str:
    """The outcome in one kind of scope."""
    layer = case.make()
    with kind(layer) as read:
        before, again = read(), read()
        old = before.detach().clone()
        undo = change(case, layer, before)
        try:
            value = read()
            says = compare(case, layer, before, old, value)
            if says == NO:
                P.invalidate(layer)  # which the page says helps
                assert is_same(read(), expect_fresh(layer)), case.title
        finally:
            if isinstance(undo, (FunctionType, MethodType)):
                undo()
    return NOT_KEPT if again is not before else says


def change(case: Case, layer: Weight, value: Tensor) -> Any:
    if case.of != "layer":
        return case.change(value)
    with torch.inference_mode(False), torch.no_grad():
        return case.change(layer)


def compare(case: Case, layer: Weight, before: Tensor, old: Tensor, value: Tensor) -> str:
    """Whether `value` is what a fresh evaluation gives, and another tensor where it must be."""
    expected = expect_fresh(layer)
    if value is not before:
        assert is_same(value, expected), case.title
        return YES
    return KEPT if is_same(expected, old) and case.of != "value" else NO


def is_same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one.detach(), other.detach())
