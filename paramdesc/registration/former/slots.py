"""What pickles of earlier versions look for in `paramdesc.slots`."""

from paramdesc.caching.slots import Slot

__all__ = ["Slot"]
