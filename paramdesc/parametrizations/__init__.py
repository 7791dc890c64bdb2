"""The ready-made maps."""

from paramdesc.parametrizations.spectral_norm import SpectralNorm
from paramdesc.parametrizations.symmetric import Symmetric

__all__ = ["SpectralNorm", "Symmetric"]
