"""The functions of matrices that the maps are made of."""

from paramdesc.linalg.singular import largest_singular_triple

__all__ = ["largest_singular_triple"]
