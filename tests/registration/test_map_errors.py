"""Errors in maps are themselves, with the address of the map."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.errors import add_note
from tests.helpers import Double, chain_of, linear


def test_an_error_in_a_map_is_itself_with_its_address() -> None:
    def broken(X: Tensor) -> Tensor:
        return X.no_such_attribute  # type: ignore[attr-defined,no-any-return]

    model: Any = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(2, 2)))
    P.register_parametrization(model[1][0], "weight", Double())
    P.register_parametrization(model[1][0], "weight", broken, unsafe=True)
    with pytest.raises(AttributeError, match="no_such_attribute") as caught:
        model(torch.ones(1, 2))
    note = "while evaluating 'weight' of Linear at '1.0': map 1, FunctionMap"
    assert caught.value.__notes__ == [note]


def test_an_error_in_a_right_inverse_has_its_address_too() -> None:
    def refuse(X: Tensor) -> Tensor:
        if X.min() < 0:
            raise ValueError("negative")
        return X

    linear = P.register_parametrization(
        nn.Linear(2, 2), "bias", torch.abs, right_inverse=lambda X: X.abs()
    )
    P.register_parametrization(linear, "weight", lambda X: X.abs(), unsafe=True)
    chain: Any = linear.get_submodule("parametrizations.weight")
    chain[0].right_inverse = refuse
    with pytest.raises(ValueError, match="negative") as caught:
        linear.weight = -torch.ones(2, 2)
    assert caught.value.__notes__ == ["while assigning 'weight' of Linear: map 0, FunctionMap"]


class Bad(nn.Module):
    """A map whose forward and right_inverse are given."""

    def __init__(self, forward: Any, inverse: Any = None) -> None:
        super().__init__()
        self.functions = (forward, inverse)

    def forward(self, X: Tensor) -> Any:
        return self.functions[0](X)

    def right_inverse(self, X: Tensor) -> Any:
        if self.functions[1] is None:
            raise NotImplementedError
        return self.functions[1](X)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Bad(lambda X: (X, X)), "A parametrization must return a tensor. Got tuple"),
        (Bad(lambda X: X.double()), "may not change the dtype"),
        (Bad(lambda X: X[:1]), r"may not change the shape(.|\n)*weight\.shape: torch.Size\(\[2, 2"),
        (Bad(torch.sin, lambda X: (X, X)), "right_inverse must return a tensor. Got tuple"),
        (Bad(torch.sin, lambda X: X.double()), "right_inverse must have the same dtype"),
        (Bad(torch.sin, lambda X: X[:1]), "right_inverse must have the same shape"),
    ],
)
def test_a_map_that_does_not_fit_between_is_refused(wrong: Bad, message: str) -> None:
    linear = P.register_parametrization(nn.Linear(2, 2), "weight", Double())
    before = linear.weight.detach().clone()
    with pytest.raises(ValueError, match=message):
        P.register_parametrization(linear, "weight", wrong)
    torch.testing.assert_close(linear.weight.detach(), before)


def test_an_inverse_that_is_not_implemented_is_the_identity_at_registration() -> None:
    linear = P.register_parametrization(nn.Linear(2, 2), "weight", Double())
    before = linear.weight.detach().clone()
    P.register_parametrization(linear, "weight", Bad(torch.sin))
    torch.testing.assert_close(linear.weight.detach(), before.sin())
    with pytest.raises(NotImplementedError):
        linear.weight = torch.ones(2, 2)


def test_a_note_is_kept_where_exceptions_take_none() -> None:
    class OldError:
        pass

    error: Any = OldError()
    add_note(error, "where it was")
    assert error.__notes__ == ["where it was"]


class Based(nn.Module):
    """`X + base`, where assigning makes the value the base."""

    base: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("base", None)

    def forward(self, X: Tensor) -> Tensor:
        return X if self.base is None else X + self.base

    def right_inverse(self, Y: Tensor) -> Tensor:
        self.base = Y.clone()
        return torch.zeros_like(Y)


def test_the_trial_of_a_further_map_leaves_no_trace_in_it() -> None:
    layer = linear(Double())
    expected = layer.weight.detach().clone()
    P.register_parametrization(layer, "weight", Based())
    assert layer.weight.equal(expected)
    layer.weight = torch.eye(3)
    assert layer.weight.equal(torch.eye(3))
    assert chain_of(layer)[1].base.equal(torch.eye(3))
