"""Warnings of torch about itself, which tell nothing about the map that is checked."""

from __future__ import annotations

import warnings

__all__ = ["ignore_warnings_about_torch"]

TORCHSCRIPT = r"`torch\.jit\.\w+` is (deprecated|not supported in Python)"
"""The checks compile and trace maps with TorchScript, on purpose: some users still do. torch calls
it deprecated, by a DeprecationWarning or, since 2.14, by a FutureWarning. It does the same for uses
of its own, in forward-mode derivatives and in exported programs."""

SLOW_GUARDS = r"Guards may run slower on Python 3\.13\.0"
"""What `torch.compile` says once in each process, under this version of Python."""


def ignore_warnings_about_torch() -> None:
    """Ignore them until the innermost `warnings.catch_warnings` ends."""
    warnings.filterwarnings("ignore", TORCHSCRIPT, DeprecationWarning)
    warnings.filterwarnings("ignore", TORCHSCRIPT, FutureWarning)
    warnings.filterwarnings("ignore", SLOW_GUARDS, RuntimeWarning)
