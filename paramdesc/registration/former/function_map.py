"""What pickles of earlier versions look for in `paramdesc.function_map`."""

from paramdesc.chain.function_map import FunctionMap, InvertibleFunctionMap

__all__ = ["FunctionMap", "InvertibleFunctionMap"]
