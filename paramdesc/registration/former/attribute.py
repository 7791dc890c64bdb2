"""What pickles of earlier versions look for in `paramdesc.attribute`."""

from paramdesc.registration.attribute import ParametrizedTensor

__all__ = ["ParametrizedTensor"]
