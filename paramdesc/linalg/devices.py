"""What is cheap on which device: the algorithms of this room are chosen by it."""

from __future__ import annotations

from torch import Tensor
from torch.compiler import is_compiling
from torch.nn import Parameter

from paramdesc.torch_internals.mode import (
    has_dual_tensors,
    has_transforms,
    is_plain,
    is_tracing,
)
from paramdesc.torch_internals.placeholders import is_stand_in

__all__ = ["fewest_together", "is_bound_by_launches", "takes_algorithms", "takes_functions"]

COUNTED_BY_SIZE = frozenset({"cpu", "meta"})
"""The devices where small tensors are cheap, and where looking at a number costs nothing."""


def is_bound_by_launches(X: Tensor) -> bool:
    """Whether the number of operations counts more than their size, as on a GPU.

    There, an operation takes 8 to 10 microseconds to start, whatever its size, and a number that is
    looked at waits until the device has finished everything before it.
    """
    return X.device.type not in COUNTED_BY_SIZE


def fewest_together(X: Tensor, is_matrix_function: bool, is_iterative: bool) -> int | None:
    """From how many tensors like `X` on it is faster to evaluate them together; None if never.

    On a CPU, a batch has an overhead of about 200 microseconds, which pays off from 16 tensors on
    for inexpensive maps, and from 4 on for functions of matrices such as the Cayley transform. For
    large tensors, arithmetic dominates, not the number of operations: this begins at 32 x 32 for
    inexpensive maps, and at 64 x 64 for functions of matrices and for iterative maps. Measured with
    8 and 48 weights of 8 to 256 rows.
    """
    if is_bound_by_launches(X):
        return 2
    if X.numel() > (64 * 64 if is_matrix_function or is_iterative else 32 * 32):
        return None
    return 4 if is_matrix_function else 16


def takes_functions(X: Tensor) -> bool:
    """Whether an autograd function may take the place of the operations that it stands for.

    Not under transforms, in traces, or for a subclass of tensors. On a CPU a function may look at
    numbers, so meta and fake tensors are left to the operations.
    """
    is_own = (type(X) is Tensor or type(X) is Parameter) and not X.is_meta
    if is_bound_by_launches(X):
        return (is_own or is_stand_in(X)) and not (has_transforms() or is_tracing())
    return is_own and is_plain()


def takes_algorithms(X: Tensor) -> bool:
    """Whether to use an `Algorithm`: where launches count, in eager code outside of transforms."""
    if is_compiling() or not is_bound_by_launches(X):  # in this order: Dynamo cannot follow others
        return False
    return not (is_tracing() or has_transforms() or has_dual_tensors())
