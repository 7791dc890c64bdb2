"""What pickles of earlier versions look for in `paramdesc.adoption`."""

from paramdesc.registration.adoption import WeightNormNames

__all__ = ["WeightNormNames"]
