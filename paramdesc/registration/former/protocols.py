"""What pickles of earlier versions look for in `paramdesc.protocols`."""

from paramdesc.chain.protocols import (
    InvertibleParametrizationProto,
    ParametrizationProto,
    TensorMap,
)

__all__ = ["InvertibleParametrizationProto", "ParametrizationProto", "TensorMap"]
