"""`functional_call` and transforms of compiled code."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

import paramdesc as P
from tests.graphs.backend import READS_GRAD, Graphs
from tests.graphs.compile.models import INPUT
from tests.helpers import original_of

pytestmark = READS_GRAD


def test_functional_call_in_the_compiled_code_gets_what_it_gives(
    graphs: Graphs, layer: nn.Linear
) -> None:
    def run(given: Tensor, x: Tensor) -> Any:
        lent = {"parametrizations.weight.original": given}
        return torch.func.functional_call(layer, lent, (x,)) - layer(x)

    given = torch.zeros(3, 3, requires_grad=True)
    compiled = graphs.compile(run)
    for scope in (nullcontext(), P.cached(layer)):
        with scope:
            for _ in range(2):
                expected, output = run(given, INPUT), compiled(given, INPUT)
                torch.testing.assert_close(output, expected)
    wanted = torch.autograd.grad(run(given, INPUT).sum(), (given, original_of(layer)))
    with P.cached(layer):
        found = torch.autograd.grad(compiled(given, INPUT).sum(), (given, original_of(layer)))
    torch.testing.assert_close(found, wanted)


def test_functional_call_of_compiled_code_gets_what_it_gives(
    graphs: Graphs, layer: nn.Linear
) -> None:
    compiled = graphs.compile(layer)
    given = torch.zeros(3, 3)
    with P.cached(layer):
        for _ in range(2):
            for name, module in (("_orig_mod.", compiled), ("", layer)):
                lent = {f"{name}parametrizations.weight.original": given}
                output = torch.func.functional_call(module, lent, (INPUT,))
                torch.testing.assert_close(output, 3 + layer.bias.expand(2, 3))
            torch.testing.assert_close(compiled(INPUT), layer(INPUT))


def test_transforms_in_the_compiled_code_evaluate_in_the_graph(
    graphs: Graphs, layer: nn.Linear
) -> None:
    def run(x: Tensor) -> tuple[Any, Any]:
        gradient = torch.func.grad(lambda v: layer(v).sum())(x)
        return torch.func.vmap(lambda v: layer(v))(x), gradient

    compiled, expected = graphs.compile(run), run(INPUT)
    with P.cached(layer):
        for _ in range(2):
            torch.testing.assert_close(compiled(INPUT), expected)
    assert graphs.evaluations == [2]
