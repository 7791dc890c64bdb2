"""What pickles of earlier versions look for in `paramdesc.decorator`."""

from paramdesc.registration.decorator import parametrized

__all__ = ["parametrized"]
