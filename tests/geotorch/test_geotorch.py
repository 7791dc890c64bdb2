"""The constraints of geotorch, registered through paramdesc, are what they are through torch."""

from __future__ import annotations

import pytest
import torch

import paramdesc
from tests.geotorch.constraints import CONSTRAINTS, QUESTIONS, answers, geotorch, registered

NO_RIGHT_INVERSE = {"Symmetric", "Symmetric, upper"}
LOCAL_FUNCTIONS = {"SL"}
"""What cannot be pickled with them."""


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_a_constraint_works_unchanged(name: str) -> None:
    found = dict(zip(QUESTIONS, answers(name), strict=True))
    assert found == {
        "values and training as in torch": "yes",
        "assignment": "no" if name in NO_RIGHT_INVERSE else "yes",
        "deepcopy, state_dict": "yes",
        "pickle": "no" if name in LOCAL_FUNCTIONS else "yes",
    }


def test_all_constraints_of_geotorch_are_here() -> None:
    classes = {name for name in geotorch.__all__ if name[0].isupper()}
    assert classes - {name.partition(",")[0] for name in CONSTRAINTS} == {"ProductManifold"}


def test_a_value_outside_is_refused_by_geotorch_and_changes_nothing() -> None:
    module, _ = registered("SO", paramdesc)
    before = module.weight.detach().clone()
    with pytest.raises(ValueError, match="Tensor not contained in SO"):
        module.weight = torch.zeros(4, 4, dtype=torch.float64)
    assert module.weight.equal(before)


def test_the_one_without_a_right_inverse_is_not_assigned_to() -> None:
    module, _ = registered("Symmetric", paramdesc)
    with pytest.raises(RuntimeError, match="Symmetric does not implement right_inverse"):
        module.weight = torch.eye(4, dtype=torch.float64)
