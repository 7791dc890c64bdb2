"""Kernels of convolutions as polynomials with matrix coefficients.

No `from __future__ import annotations`: TorchScript needs the annotations of a function as objects.
"""

from typing import List  # noqa: UP035 - TorchScript knows it

import torch
from torch import Tensor

from paramdesc.linalg.precision import matmul

__all__ = [
    "as_weight",
    "autocorrelation",
    "by_taps",
    "check_convolution",
    "lags",
    "polyphase",
    "spatial_dims",
]


def spatial_dims(given: List[int], count: int, name: str) -> List[int]:  # noqa: UP006
    """One number for each of `count` spatial dimensions, from one or `count` numbers."""
    if len(given) == 1:
        return given * count
    if len(given) != count:
        raise ValueError(f"{name}={given} does not fit {count} spatial dimensions.")
    return given


def polyphase(weight: Tensor, stride: List[int], groups: int) -> Tensor:  # noqa: UP006
    """The equivalent kernel without strides, for images cut into blocks of size `stride`.

    Shapes `(out, in, *kernel) -> (groups, out, phases * in, *taps)`, where `out` and `in` are those
    of one group on the right. Kernels are filled up with zeros to multiples of the stride.
    """
    count = weight.ndim - 2
    K = weight.reshape([groups, weight.shape[0] // groups] + list(weight.shape[1:]))  # noqa: RUF005
    for axis in range(count):
        s, k = stride[axis], K.shape[3 + axis]
        if s > 1:
            missing = -k % s
            if missing > 0:
                shape = list(K.shape)
                shape[3 + axis] = missing
                K = torch.cat([K, K.new_zeros(shape)], dim=3 + axis)
            shape = list(K.shape)
            block = [(k + missing) // s, s]
            blocks = shape[: 3 + axis] + block + shape[4 + axis :]
            K = K.reshape(blocks).movedim(4 + axis, 2).flatten(2, 3)
    return K


def as_weight(
    K: Tensor,
    stride: List[int],  # noqa: UP006
    kernel_size: List[int],  # noqa: UP006
) -> Tensor:
    """The inverse of `polyphase`, for a kernel of this size."""
    for back in range(len(kernel_size)):
        axis = len(kernel_size) - 1 - back
        s = stride[axis]
        if s > 1:
            shape = list(K.shape)
            phases = [s, shape[2] // s]
            K = K.reshape(shape[:2] + phases + shape[3:]).movedim(2, 4 + axis)
            K = K.flatten(3 + axis, 4 + axis).narrow(3 + axis, 0, kernel_size[axis])
    weight: Tensor = K.flatten(0, 1)
    return weight


def by_taps(K: Tensor) -> Tensor:
    """`(groups, a, b, *taps) -> (groups, *taps, a, b)`: the coefficients as matrices."""
    return K.movedim(1, -1).movedim(1, -1)


def lags(taps: List[int]) -> List[List[int]]:  # noqa: UP006
    """The differences between two taps, up to sign; zero comes first."""
    none: List[int] = []  # noqa: UP006
    found = [none]
    for size in taps:
        longer: List[List[int]] = []  # noqa: UP006
        for lag in found:
            # zero so far: only one sign is needed
            low = 1 - size
            if len(lag) == 0 or (min(lag) == 0 and max(lag) == 0):
                low = 0
            for i in range(low, size):
                longer.append(lag + [i])  # noqa: PERF401, RUF005 (for TorchScript)
        found = longer
    return found


def autocorrelation(K: Tensor, lag: List[int]) -> Tensor:  # noqa: UP006
    """`sum K[t]ᴴ K[t + lag]` over the taps `t`, for coefficients as from `by_taps`.

    `(groups, *taps, a, b) -> (groups, b, b)`.
    """
    early, late = K, K
    for i, shift in enumerate(lag):
        overlap = K.shape[1 + i] - abs(shift)
        early = early.narrow(1 + i, max(0, -shift), overlap)
        late = late.narrow(1 + i, max(0, shift), overlap)
    return matmul(early.flatten(1, -2).mH, late.flatten(1, -2))


def check_convolution(weight: Tensor, groups: int) -> None:
    """Raise an error unless `X` is the weight of a convolution with these groups."""
    if not 3 <= weight.ndim <= 5 or weight.shape[0] % groups != 0:
        raise ValueError(
            "the weight of a convolution is (out, in / groups, *kernel), of one to three spatial "
            f"dimensions, and groups divide its outputs. Got shape {list(weight.shape)} and "
            f"groups={groups}."
        )
