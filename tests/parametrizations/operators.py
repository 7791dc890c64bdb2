"""The whole matrix of a convolution, to compare with what a map says about its kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["operator_matrix", "singular_values"]

PLAIN: tuple[Any, ...] = (F.conv1d, F.conv2d, F.conv3d)
TRANSPOSED: tuple[Any, ...] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


def operator_matrix(
    weight: Tensor,
    size: int,
    padding: str = "circular",
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    transposed: bool = False,
) -> Tensor:
    """The map from images of `size` pixels along each axis to images, as a matrix.

    `padding` is `"circular"`; `"zeros"`, by half the kernel on each side; `"full"`, where all
    windows that touch the image count; or `"none"`, where those within the image do.
    """
    count = weight.ndim - 2
    channels = weight.shape[0] if transposed else weight.shape[1] * groups
    pixels = channels * size**count
    images = torch.eye(pixels, dtype=weight.dtype).reshape(pixels, channels, *[size] * count)
    reach = [dilation * (k - 1) for k in weight.shape[2:]]
    amounts = [0] * count
    if padding == "circular":
        assert not transposed
        images = F.pad(images, [n for r in reversed(reach) for n in (0, r)], "circular")
    elif padding != "none":
        amounts = [r if padding == "full" else r // 2 for r in reach]
    function = (TRANSPOSED if transposed else PLAIN)[count - 1]
    made: Tensor = function(images, weight, None, stride, amounts, dilation=dilation, groups=groups)
    matrix: Tensor = made.flatten(1).T
    return matrix


def singular_values(weight: Tensor, size: int, padding: str = "circular", **how: Any) -> Tensor:
    with torch.no_grad():
        values: Tensor = torch.linalg.svdvals(operator_matrix(weight, size, padding, **how))
    return values
