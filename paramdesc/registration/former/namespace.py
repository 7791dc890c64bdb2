"""What pickles of earlier versions look for in `paramdesc.namespace`."""

from paramdesc.registration.namespace import AttributeNamespace

__all__ = ["AttributeNamespace"]
