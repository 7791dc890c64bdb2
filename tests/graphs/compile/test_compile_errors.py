"""What cannot be kept, and maps that raise, in compiled code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from tests.graphs.backend import READS_GRAD, Graphs
from tests.graphs.compile.models import INPUT
from tests.helpers import Exp, linear

pytestmark = READS_GRAD


def test_what_cannot_be_kept_is_evaluated_in_the_graph(graphs: Graphs) -> None:
    with torch.inference_mode():
        layer = linear(Exp())
        compiled = graphs.compile(layer)
        with P.cached(layer) as scope:
            for _ in range(3):
                torch.testing.assert_close(compiled(INPUT), layer(INPUT))
            assert len(scope) == 0
    assert graphs.evaluations == [1]


@pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace")  # torch 2.10 to 2.12
def test_a_map_that_raises_says_so_itself_and_recovers(graphs: Graphs) -> None:
    class Moody(Exp):
        def __init__(self) -> None:
            super().__init__()
            self.is_angry = False

        def forward(self, X: Tensor) -> Tensor:
            if self.is_angry:
                raise ValueError("not today")
            return super().forward(X)

    moody = Moody()
    layer = linear(moody)
    compiled: Any = torch.compile(layer, backend=graphs)
    with P.cached(layer):
        torch.testing.assert_close(compiled(INPUT), layer(INPUT))
        moody.is_angry = True
        with pytest.raises(ValueError, match="not today"):
            compiled(INPUT)
        moody.is_angry = False
        torch.testing.assert_close(compiled(INPUT), layer(INPUT))
    with P.cached(layer) as scope:
        torch.testing.assert_close(compiled(INPUT), compiled(INPUT))
    assert scope.misses == 1


def test_a_map_that_raises_without_a_scope_says_so_itself() -> None:
    class Refusing(nn.Module):
        def forward(self, X: Tensor) -> Tensor:
            if X.shape == (3, 3) and self.training:
                raise ValueError("not in training")
            return X

    layer = P.register_parametrization(nn.Linear(3, 3).eval(), "weight", Refusing())
    compiled: Any = torch.compile(layer, backend="eager")
    compiled(INPUT)
    with pytest.raises(ValueError, match="not in training"):
        compiled.train()(INPUT)
