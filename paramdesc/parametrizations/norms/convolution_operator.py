"""A convolution as a linear map from images to images, and its norm.

No `from __future__ import annotations`: TorchScript needs the annotations of the class as objects.
"""

from typing import List  # noqa: UP035 - TorchScript knows `List`

import torch
from torch import Tensor
from torch.nn import functional as F

from paramdesc.linalg.precision import epsilon, widened, without_autocast
from paramdesc.linalg.singular_iteration import scattered
from paramdesc.parametrizations.norms.operator_norm import (
    MOST_ITERATIONS,
    OperatorNorm,
    start_vector,
)

__all__ = ["ConvolutionOperator"]


class ConvolutionOperator(OperatorNorm):
    """The operator norm of a convolution. Its singular vectors are images, one pair per group."""

    # TorchScript needs the types of these lists
    input_size: List[int]  # noqa: UP006
    stride: List[int]  # noqa: UP006
    padding: List[int]  # noqa: UP006
    dilation: List[int]  # noqa: UP006
    output_padding: List[int]  # noqa: UP006
    sides: List[int]  # noqa: UP006
    groups: int
    circular: bool
    transposed: bool

    def check(self, X: Tensor) -> None:
        if X.ndim != len(self.input_size) + 2:
            raise ValueError(
                f"input_size={self.input_size} is of {len(self.input_size)} dimensions, so the "
                f"weight must have {len(self.input_size) + 2}. Got shape {list(X.shape)}."
            )
        if X.is_complex():
            raise ValueError("the norm of a convolution needs real weights. Got complex.")

    def operator(self, X: Tensor) -> Tensor:
        return widened(X)

    def rows(self, vector: Tensor) -> Tensor:
        return vector.view(self.groups, -1)

    def image(self, operator: Tensor, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self.rows(self.convolve(operator, x.view_as(v)))

    def adjoint(self, operator: Tensor, y: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self.rows(self.convolve_back(operator, y.view_as(u), v))

    def norm(self, X: Tensor) -> Tensor:
        """The operator norm, computed from the state: a real scalar, differentiable."""
        kernel = widened(X)
        # the state is written in place by later steps, while this graph may still need it
        u = self._u.to(kernel.dtype, copy=True)
        v = self._v.to(kernel.dtype, copy=True)
        image = self.convolve(kernel, v)
        # the norm of a grouped convolution is the largest norm of a group
        values = self.rows(u * image).sum(-1)
        return values.amax(-1)

    def convolve(self, kernel: Tensor, images: Tensor) -> Tensor:
        """The layer without its bias, outside autocast."""
        # TorchScript needs literal device names
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
                return self.convolved(kernel, images)
        with without_autocast(kernel):
            return self.convolved(kernel, images)

    def convolved(self, kernel: Tensor, images: Tensor) -> Tensor:
        padding = self.padding
        if self.circular:
            images = F.pad(images, self.sides, "circular")
            padding = [0 for _ in padding]
        result: Tensor = torch.convolution(
            images,
            kernel,
            None,
            self.stride,
            padding,
            self.dilation,
            self.transposed,
            self.output_padding,
            self.groups,
        )
        return result

    @torch.no_grad()
    def exact_norm(self, X: Tensor) -> Tensor:
        kernel = widened(X)
        v = self.iterate(kernel, *self.start(kernel), 2 * MOST_ITERATIONS, epsilon(kernel))[1]
        lengths: Tensor = torch.linalg.vector_norm(self.rows(self.convolve(kernel, v)), 2, -1)
        return lengths.amax(-1)

    def start(self, operator: Tensor) -> tuple[Tensor, Tensor]:
        channels = operator.shape[0] if self.transposed else operator.shape[1] * self.groups
        v = self.some_image(operator.new_empty(1, channels, *self.input_size))
        return self.some_image(self.convolve(operator, v)), v

    def some_image(self, like: Tensor) -> Tensor:
        """An image with the shape of `like`, the same in each group."""
        vector = start_vector(like.numel() // self.groups, like)
        return vector.expand(self.groups, -1).reshape(like.shape)

    def refine(self, X: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Better leading singular images of the convolution."""
        kernel = widened(X)
        left, right = u.to(kernel.dtype), v.to(kernel.dtype)
        # from a single wave, the iteration never reaches waves of other lengths
        rows = self.rows(right)
        begin = (rows + 0.03 * scattered(rows)).view_as(right)
        left, right = self.improve(kernel, left, begin, self.n_power_iterations)
        return left.to(X.dtype), right.to(X.dtype)

    def convolve_back(self, kernel: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """The image `x` of the shape of `v` with `<x, v> = <y, convolution of v>` for all `v`."""
        shape = list(v.shape)
        padding = self.padding
        if self.circular:
            for i, p in enumerate(padding):
                shape[i + 2] += 2 * p
            padding = [0 for _ in padding]
        image: Tensor = torch.ops.aten.convolution_backward(
            y,
            y.new_empty(shape),
            kernel,
            None,
            self.stride,
            padding,
            self.dilation,
            self.transposed,
            self.output_padding,
            self.groups,
            [True, False, False],
        )[0]
        return folded(image, self.padding) if self.circular else image


def folded(image: Tensor, padding: list[int]) -> Tensor:
    """The adjoint of circular padding: adds the sides to the entries they were copied from."""
    for i, p in enumerate(padding):
        axis = i + 2
        if p:
            n = image.shape[axis] - 2 * p
            inner = image.narrow(axis, p, n).clone()
            inner.narrow(axis, n - p, p).add_(image.narrow(axis, 0, p))
            inner.narrow(axis, 0, p).add_(image.narrow(axis, n + p, p))
            image = inner
    return image
