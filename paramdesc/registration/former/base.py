"""What pickles of earlier versions look for in `paramdesc.base`."""

from paramdesc.chain.parametrization import Parametrization

__all__ = ["Parametrization"]
