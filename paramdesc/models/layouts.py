"""The layouts of checkpoints."""

from paramdesc.chain.layouts import LAYOUTS, Stored, find_stored, keys_of, norm_of, plain_value

__all__ = ["LAYOUTS", "Stored", "find_stored", "keys_of", "norm_of", "plain_value"]
