"""What pickles of earlier versions look for in `paramdesc.record`."""

from paramdesc.caching.record import Cause, Reason

__all__ = ["Cause", "Reason"]
