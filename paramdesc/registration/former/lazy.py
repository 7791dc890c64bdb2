"""What pickles of earlier versions look for in `paramdesc.lazy`."""

from paramdesc.registration.lazy import PendingRegistration

__all__ = ["PendingRegistration"]
