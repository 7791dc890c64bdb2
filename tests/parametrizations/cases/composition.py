"""Maps made of other maps, and maps of entries that take no other group in."""

from __future__ import annotations

import torch

from paramdesc.parametrizations.composition.blocks import Blocks, Stacked
from paramdesc.parametrizations.composition.compose import Compose
from paramdesc.parametrizations.composition.flattened import Flattened
from paramdesc.parametrizations.composition.joint import Transposed
from paramdesc.parametrizations.entries.frozen import Frozen
from paramdesc.parametrizations.entries.scaled import ReZero, Scaled
from paramdesc.parametrizations.entries.straight_through import Rounded, StraightThrough
from paramdesc.parametrizations.norms.weight_norm import WeightNorm
from paramdesc.parametrizations.orthogonality.torch_layouts import TorchOrthogonal
from paramdesc.parametrizations.spectra.low_rank import LowRank
from paramdesc.parametrizations.structure.symmetric import Symmetric
from tests.parametrizations.cases.case import Case

__all__ = ["CASES"]

STEPS = {
    "gradient": "what is passed on is not the derivative, which is zero",
    "second gradient": "what is passed on is not the derivative, which is zero",
}
AT_INTEGERS = {
    "gradient": "the diagonal holds integers, where the integer part jumps, and gets no gradient",
    "second gradient": "the diagonal holds integers, where the integer part jumps",
}
UNCONSTRAINED = {"strict": "the last map reaches every tensor"}

CASES: dict[str, Case] = {
    "compose": Case(lambda: Compose(Scaled(), Symmetric()), 3, 3),
    "compose, several originals": Case(
        lambda: Compose(WeightNorm(), Scaled()),
        *(4, 3),
        right_inverse="identity",
        batch=False,
    ),
    "compose, one map": Case(lambda: Compose(TorchOrthogonal("cayley")), 5, 3, unsafe=True),
    "blocks": Case(lambda: Blocks(TorchOrthogonal("cayley"), 2), 6, 3, batch=False),
    "blocks, sizes": Case(lambda: Blocks([Symmetric(), None], [3, 2]), *(5, 3), batch=False),
    "blocks, columns": Case(lambda: Blocks(Symmetric(), 2, dim=-1), 3, 6),
    "stacked": Case(lambda: Stacked(TorchOrthogonal("cayley"), 2), 6, 3, batch=False),
    "stacked, columns": Case(lambda: Stacked(Symmetric(), 2, dim=1), 3, 6, batch=False),
    "flattened": Case(lambda: Flattened(TorchOrthogonal("cayley")), 4, 3, 2, batch=False),
    "flattened, two rows": Case(lambda: Flattened(Symmetric(), (2, 0)), 3, 6, 2, batch=False),
    "flattened, several originals": Case(lambda: Flattened(LowRank(2), 1), *(3, 4, 2), batch=False),
    "frozen": Case(lambda: Frozen(torch.ones(3, 4).triu().bool()), 3, 4),
    "frozen rows": Case(lambda: Frozen([0, 2]), 3, 4, batch=False),
    "scaled": Case(Scaled, 3, 4, right_inverse="identity", batch=False),
    "scaled rows": Case(lambda: Scaled(-2), 3, 4, right_inverse="identity"),
    "rezero": Case(
        ReZero,
        *(3, 4),
        batch=False,
        without={"right inverse": "registering makes the value zero, whatever it was"},
    ),
    "rounded": Case(Rounded, 5, 4, batch=False, without=STEPS),
    "rounded, channels": Case(
        lambda: Rounded(4, dim=0, symmetric=False), *(5, 4), batch=False, without=STEPS
    ),
    "straight through": Case(lambda: StraightThrough(torch.sign), 3, 4, without=STEPS),
    "transposed": Case(Transposed, 3, 3, right_inverse="identity"),
    "torch's matrix_exp": Case(lambda: TorchOrthogonal("matrix_exp"), 4, 4),
    "torch's cayley, tall": Case(lambda: TorchOrthogonal("cayley"), 5, 3),
    "torch's householder, wide": Case(
        lambda: TorchOrthogonal("householder"), *(3, 5), without=AT_INTEGERS
    ),
    "torch's householder, no base": Case(
        lambda: TorchOrthogonal("householder", use_trivialization=False),
        *(4, 4),
        without=AT_INTEGERS,
    ),
    "torch's cayley, complex": Case(
        lambda: TorchOrthogonal("cayley"),
        weight=lambda: torch.randn(4, 4, dtype=torch.complex64),
    ),
}
