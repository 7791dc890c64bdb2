"""Cases of the maps that bound an operator norm."""

from __future__ import annotations

import torch

from paramdesc.parametrizations.norms.convolution_norm import ConvolutionSpectralNorm
from paramdesc.parametrizations.norms.spectral_norm import SpectralNorm
from tests.parametrizations.cases.case import Case

__all__ = ["CASES"]

# no batches: further dimensions belong to the one operator
# and small enough, or iterated long enough, for the norm to be exact after each step
CASES: dict[str, Case] = {
    "spectral norm": Case(lambda: SpectralNorm(), 3, 3, batch=False),
    "spectral norm, tall": Case(lambda: SpectralNorm(2.0), 6, 3, batch=False),
    "spectral norm, to a tolerance": Case(lambda: SpectralNorm(tolerance=1e-15), 5, 7, batch=False),
    "spectral norm, at most": Case(lambda: SpectralNorm(only_shrink=True), 3, 5, batch=False),
    "spectral norm, complex": Case(
        lambda: SpectralNorm(), weight=lambda: torch.randn(4, 3, dtype=torch.complex64), batch=False
    ),
    "spectral norm, transposed": Case(lambda: SpectralNorm(dim=1), 4, 3, 2, batch=False),
    "spectral norm, vector": Case(lambda: SpectralNorm(), 5, batch=False),
    "convolution norm": Case(
        lambda: ConvolutionSpectralNorm((5, 4), padding=1, tolerance=1e-15), 3, 2, 3, 3, batch=False
    ),
    "convolution norm, circular": Case(
        lambda: ConvolutionSpectralNorm(
            8, 0.5, padding=1, padding_mode="circular", tolerance=1e-15
        ),
        2,
        2,
        3,
        batch=False,
    ),
    "convolution norm, transposed in groups": Case(
        lambda: ConvolutionSpectralNorm(
            (3, 4), stride=2, groups=2, transposed=True, tolerance=1e-15
        ),
        4,
        1,
        2,
        2,
        batch=False,
    ),
}
