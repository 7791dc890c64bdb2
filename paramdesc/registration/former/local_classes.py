"""What pickles of earlier versions look for in `paramdesc.local_classes`."""

from paramdesc.registration.local_classes import new_instance

__all__ = ["new_instance"]
