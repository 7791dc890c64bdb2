"""What pickles of earlier versions look for in `paramdesc.collection`."""

from paramdesc.registration.collection import ParametrizationSet

__all__ = ["ParametrizationSet"]
