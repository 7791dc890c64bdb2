"""What pickles of earlier versions look for in `paramdesc.container`."""

from paramdesc.registration.container import ParametrizationDict

__all__ = ["ParametrizationDict"]
