"""TorchScript for models with parametrized modules."""

from paramdesc.jit.scripting import script

__all__ = ["script"]
