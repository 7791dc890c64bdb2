"""What pickles of earlier versions look for in `paramdesc.steps`."""

from paramdesc.chain.states import count_loaded

__all__ = ["count_loaded"]
