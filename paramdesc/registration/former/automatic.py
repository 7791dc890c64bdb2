"""What pickles of earlier versions look for in `paramdesc.automatic`."""

from paramdesc.caching.automatic import enter_forward_pass, leave_forward_pass

__all__ = ["enter_forward_pass", "leave_forward_pass"]
