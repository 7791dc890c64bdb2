"""Cases of the maps for Lipschitz layers."""

from __future__ import annotations

import math

import torch

from paramdesc.parametrizations.lipschitz.orthogonal_convolution import OrthogonalConvolution
from paramdesc.parametrizations.lipschitz.rescaled import LipschitzRescaled
from paramdesc.parametrizations.lipschitz.residual import LipschitzResidual
from paramdesc.parametrizations.norms.absolute_sums import AbsoluteSums
from paramdesc.parametrizations.orthogonality.bjorck import Bjorck
from tests.parametrizations.cases.case import Case

__all__ = ["CASES"]

# kernels have no batches: all their dimensions belong to the one operator
CASES: dict[str, Case] = {
    "orthogonal convolution": Case(OrthogonalConvolution, 4, 4, 3, 3, batch=False),
    "orthogonal convolution, more outputs": Case(OrthogonalConvolution, 5, 2, 4, batch=False),
    "orthogonal convolution, strided in groups": Case(
        lambda: OrthogonalConvolution(2, 2), 4, 2, 3, 2, batch=False
    ),
    "orthogonal convolution, complex": Case(
        OrthogonalConvolution,
        weight=lambda: torch.randn(2, 3, 3, dtype=torch.complex64),
        batch=False,
    ),
    "rescaled, matrix": Case(LipschitzRescaled, 5, 3, batch=False),
    "rescaled, rows of a matrix": Case(lambda: LipschitzRescaled(dim=0), 5, 3, batch=False),
    "rescaled, complex": Case(
        LipschitzRescaled, weight=lambda: torch.randn(3, 4, dtype=torch.complex64), batch=False
    ),
    "rescaled, convolution": Case(LipschitzRescaled, 4, 3, 3, 3, batch=False),
    "rescaled, large kernel": Case(LipschitzRescaled, 2, 3, 11, batch=False),
    "rescaled, strided in groups": Case(lambda: LipschitzRescaled(2, 2), 4, 2, 3, 2, batch=False),
    "residual, matrix": Case(LipschitzResidual, 4, 3, batch=False),
    "residual, convolution in groups": Case(
        lambda: LipschitzResidual(groups=2), 4, 2, 3, batch=False
    ),
    # what is orthogonal to the accuracy alone comes back a little nearer to orthogonal
    "bjorck, tall": Case(lambda: Bjorck(1e-6, condition=1e3), 5, 3, tolerance=1e-5),
    "bjorck, wide and complex": Case(
        lambda: Bjorck(1e-6, condition=1e3),
        weight=lambda: torch.randn(2, 4, dtype=torch.complex64),
        tolerance=1e-5,
    ),
    "absolute sums": Case(AbsoluteSums, 4, 3, batch=False),
    "absolute sums of each column": Case(lambda: AbsoluteSums(0.5, dim=-2, by="each"), 4, 3),
    "absolute sums, nearest": Case(lambda: AbsoluteSums(0.5, by="nearest"), 4, 3),
    "absolute sums, nearest, complex": Case(
        lambda: AbsoluteSums(0.5, dim=None, by="nearest"),
        weight=lambda: torch.randn(4, 3, dtype=torch.complex64),
        batch=False,
    ),
    "absolute sums in groups": Case(
        lambda: AbsoluteSums(math.pi, dim=(0, 2), by="each", groups=2), 4, 3, 3, batch=False
    ),
}
