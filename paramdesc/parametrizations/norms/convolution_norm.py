"""Convolutions of bounded operator norm.

Without postponed annotations: TorchScript takes those of a class as they are.
"""

import math
from collections.abc import Sequence
from typing import Any, List  # noqa: UP035 - TorchScript knows `List`

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn import functional as F

from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.precision import epsilon, smallest_normal, widened, without_autocast
from paramdesc.linalg.singular_iteration import (
    best_pair,
    first_left,
    improve_triple,
    orthogonal_part,
    scattered,
    some_vector,
)
from paramdesc.torch_internals.dynamo import is_dynamo_compiling

__all__ = ["ConvolutionSpectralNorm"]

MOST_ITERATIONS = 100
COMPILED_ITERATIONS = 8


class ConvolutionSpectralNorm(Parametrization):
    """`layer.weight` will make a convolution of operator norm `bound`: `Y = bound * X / sigma(X)`.

    `sigma` is the largest singular value of the linear map from images to images that the
    layer is without its bias, for images of the given size. `SpectralNorm` bounds the norm of
    the weight read as a matrix instead, and the operator's may be several times that. With
    `bound=1` a layer is 1-Lipschitz in the Euclidean norm.

    The singular vectors are images, a pair for each group. They are found by the iteration of
    `SpectralNorm`, on the convolution and its adjoint, and go on from the last solution at
    each training step.

    Shapes: weights of 1, 2 or 3 spatial dimensions, `(out, in / groups, *kernel)`, or
    `(in, out / groups, *kernel)` if `transposed`. Real; half precision is iterated in float32.
    A zero weight stays zero, with finite gradient. Cost of an evaluation: one convolution of
    one image, and one for the gradient; of a training step: 2 `n_power_iterations` more; of
    registering or assigning: 200 at most.

    Assigning, and registering on a weight, keeps a weight of that norm as it is, and scales
    any other one.

    `for_module(convolution, input_size)` reads the arguments from a layer.

    Args:
        input_size: the spatial size of the images that the layer takes, say `(32, 32)`. A
            smaller one has at most this norm; a larger one may have more.
        bound: the norm, positive.
        stride, padding, dilation, groups, output_padding: those of the layer; a number, or
            one for each spatial dimension.
        padding_mode: `"zeros"` or `"circular"`.
        transposed: whether the layer is a transposed convolution.
        n_power_iterations: how many iterations a training step makes, by default 3. With a
            `tolerance`, how many at most, by default 100.
        tolerance: the relative error of the norm up to which a training step iterates, as far
            as it can be estimated; in compiled code it makes 8 at most.
        only_shrink: whether a weight of smaller norm is left as it is.
        strict: whether to refuse a weight of another norm instead of scaling it.

    Raises:
        ValueError: if an argument is out of its range, or the weight has other dimensions; with
            `strict`, if a weight that is assigned has another norm.

    Source: H. Gouk et al., *Regularisation of neural networks by enforcing Lipschitz
    continuity*, Machine Learning 110 (2021), algorithm 2; Y. Tsuzuku, I. Sato and M. Sugiyama,
    *Lipschitz-margin training*, NeurIPS 2018.

    >>> convolution = torch.nn.Conv1d(2, 3, 5)
    >>> bounded = ConvolutionSpectralNorm.for_module(convolution, 16)
    >>> _ = register_parametrization(convolution, "weight", bounded)
    >>> with torch.no_grad():  # what it does to one image, without the bias
    ...     images = torch.eye(32).reshape(32, 2, 16)
    ...     operator = torch.conv1d(images, convolution.weight).flatten(1)
    >>> round(torch.linalg.matrix_norm(operator, 2).item(), 2)
    1.0
    """

    constraint = "of the given operator norm"
    warm_start = ("_u", "_v")
    _u: Tensor
    _v: Tensor
    # what TorchScript must know as lists of numbers
    input_size: List[int]  # noqa: UP006
    stride: List[int]  # noqa: UP006
    padding: List[int]  # noqa: UP006
    dilation: List[int]  # noqa: UP006
    output_padding: List[int]  # noqa: UP006
    sides: List[int]  # noqa: UP006

    def __init__(
        self,
        input_size: int | Sequence[int],
        bound: float = 1.0,
        *,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        output_padding: int | Sequence[int] = 0,
        padding_mode: str = "zeros",
        transposed: bool = False,
        n_power_iterations: int | None = None,
        tolerance: float | None = None,
        only_shrink: bool = False,
        strict: bool = False,
    ) -> None:
        super().__init__(strict=strict)
        size = [input_size] if isinstance(input_size, int) else list(input_size)
        if not 1 <= len(size) <= 3 or min(size) < 1:
            raise ValueError(
                f"input_size must be one to three positive numbers. Got input_size={input_size}."
            )
        if not 0 < bound < math.inf:
            raise ValueError(f"bound must be positive and finite. Got bound={bound}.")
        if padding_mode not in ("zeros", "circular"):
            raise ValueError(
                f"padding_mode must be 'zeros' or 'circular': others are not linear maps with an "
                f"adjoint known here. Got padding_mode={padding_mode!r}."
            )
        if transposed and padding_mode != "zeros":
            raise ValueError("a transposed convolution takes padding_mode='zeros' only.")
        if n_power_iterations is None:
            n_power_iterations = 3 if tolerance is None else MOST_ITERATIONS
        if n_power_iterations <= 0:
            raise ValueError(
                f"n_power_iterations must be positive. Got n_power_iterations={n_power_iterations}."
            )
        if tolerance is not None and not 0 < tolerance < 1:
            raise ValueError(f"tolerance must be between 0 and 1. Got tolerance={tolerance}.")
        self.input_size = size
        self.bound = bound
        self.stride = numbers("stride", stride, len(size), 1)
        self.padding = numbers("padding", padding, len(size), 0)
        self.dilation = numbers("dilation", dilation, len(size), 1)
        self.output_padding = numbers("output_padding", output_padding, len(size), 0)
        self.groups = groups
        self.circular = padding_mode == "circular"
        self.sides = [p for p in reversed(self.padding) for _ in (0, 1)]  # as F.pad takes them
        self.transposed = transposed
        self.n_power_iterations = n_power_iterations
        self.accuracy = tolerance
        self.compiled_iterations = min(
            n_power_iterations, n_power_iterations if tolerance is None else COMPILED_ITERATIONS
        )
        self.only_shrink = only_shrink

    @classmethod
    def for_module(
        cls, module: Module, input_size: int | Sequence[int], bound: float = 1.0, **arguments: Any
    ) -> "ConvolutionSpectralNorm":
        """The map for the weight of a convolution layer of torch, with what the layer says.

        Args:
            module: a `Conv1d`, `Conv2d`, `Conv3d`, or one of the `ConvTranspose`.
            input_size: the spatial size of its input.
            bound: the norm.
            arguments: the further ones of the class.

        Raises:
            TypeError: if it is no convolution.
            ValueError: if it pads in a way that is not supported.
        """
        read: Any = module
        if not isinstance(module, torch.nn.modules.conv._ConvNd):
            raise TypeError(
                f"for_module reads a convolution layer of torch. Got {type(module).__name__}. Pass "
                "stride, padding, ... to ConvolutionSpectralNorm instead."
            )
        size = [input_size] * len(read.kernel_size) if isinstance(input_size, int) else input_size
        padding = read.padding
        if padding == "valid":
            padding = 0
        elif padding == "same":
            total = [d * (k - 1) for d, k in zip(read.dilation, read.kernel_size, strict=True)]
            if any(t % 2 for t in total):
                raise ValueError(
                    f"padding='same' of a kernel of size {list(read.kernel_size)} pads more on one "
                    "side than on the other, which is not supported. Take odd sizes."
                )
            padding = [t // 2 for t in total]
        return cls(
            size,
            bound,
            stride=read.stride,
            padding=padding,
            dilation=read.dilation,
            groups=read.groups,
            output_padding=read.output_padding,
            padding_mode=read.padding_mode,
            transposed=read.transposed,
            **arguments,
        )

    def forward(self, X: Tensor) -> Tensor:
        self.follow(X)
        sigma = self.norm(X)
        limit = max(1.0, 4 * self.bound) * smallest_normal(sigma)
        if self.only_shrink:
            limit = self.bound
        # up to the limit, nothing is divided
        quotient = self.bound / torch.threshold(sigma, limit, self.bound)
        result: Tensor = widened(X) * quotient
        return result.to(X.dtype)

    def norm(self, X: Tensor) -> Tensor:
        """The operator norm of the convolution, from the state, differentiable: a real scalar."""
        kernel = widened(X)
        # the state is written in place by later steps, while this graph may still need it
        u = self._u.to(kernel.dtype, copy=True)
        v = self._v.to(kernel.dtype, copy=True)
        image = self.convolve(kernel, v)
        # a convolution in groups is one for each group, and the largest norm is that of all
        values = (u * image).view(self.groups, -1).sum(-1)
        return values.amax()

    def convolve(self, kernel: Tensor, images: Tensor) -> Tensor:
        """The layer without bias, outside of autocast."""
        # TorchScript wants the devices written out
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

    def right_inverse(self, Y: Tensor) -> Tensor:
        self.check(Y)
        self.admit(Y)
        return Y

    def check(self, X: Tensor) -> None:
        if X.ndim != len(self.input_size) + 2:
            raise ValueError(
                f"input_size={self.input_size} is of {len(self.input_size)} dimensions, so the "
                f"weight must have {len(self.input_size) + 2}. Got shape {list(X.shape)}."
            )
        if X.is_complex():
            raise ValueError("the norm of a convolution is found for real weights. Got complex.")

    def deviation(self, Y: Tensor) -> Tensor:
        """How far the norm is from the bound, or with `only_shrink` above it, over the bound."""
        excess: Tensor = self.converged_norm(Y) / self.bound - 1
        return excess.clamp_min(0) if self.only_shrink else excess.abs()

    def tolerance(self, Y: Tensor) -> float:
        """What rounding and the iteration leave."""
        return super().tolerance(Y) + (0.01 if self.accuracy is None else self.accuracy)

    @torch.no_grad()
    def converged_norm(self, X: Tensor) -> Tensor:
        """The operator norm, iterated anew."""
        kernel = widened(X)
        v = self.iterate(kernel, *self.start(kernel), 2 * MOST_ITERATIONS, epsilon(kernel))[1]
        image = self.convolve(kernel, v).view(self.groups, -1)
        lengths: Tensor = torch.linalg.vector_norm(image, 2, -1)
        return lengths.amax()

    def guess(self, X: Tensor) -> tuple[Tensor, ...]:
        self.check(X)
        u, v = self.iterate(widened(X), *self.start(X), MOST_ITERATIONS, epsilon(widened(X)))
        return u.to(X.dtype), v.to(X.dtype)

    def start(self, X: Tensor) -> tuple[Tensor, Tensor]:
        kernel = widened(X)
        channels = X.shape[0] if self.transposed else X.shape[1] * self.groups
        v = self.some_image(kernel.new_empty(1, channels, *self.input_size))
        return self.some_image(self.convolve(kernel, v)), v

    def some_image(self, like: Tensor) -> Tensor:
        """An image of the shape of `like`, the same in each group."""
        vector = some_vector(like.numel() // self.groups, like)
        return vector.expand(self.groups, -1).reshape(like.shape)

    def refine(self, X: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The leading singular images of the convolution, as much better as is asked for."""
        kernel = widened(X)
        left, right = u.to(kernel.dtype), v.to(kernel.dtype)
        count = self.n_power_iterations
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            groups = self.groups
            left, right = left.view(groups, -1), right.view(groups, -1)
            begin = right + 0.03 * scattered(right)
            better, inverse = first_left(
                self.convolve(kernel, begin.view_as(v)).view(groups, -1), left
            )
            lefts = [better]
            products = [self.adjoint(kernel, better.view_as(u), v).view(groups, -1) * inverse]
            most = min(self.compiled_iterations, left.shape[1], right.shape[1])
            for _ in range(most - 1):
                image = self.convolve(kernel, products[-1].view_as(v)).view(groups, -1)
                better, _length = orthogonal_part(image * inverse, lefts)
                lefts.append(better)
                image = self.adjoint(kernel, better.view_as(u), v).view(groups, -1)
                products.append(image * inverse)
            left, right = best_pair(lefts, products, left, right)
            return left.view_as(u).to(X.dtype), right.view_as(v).to(X.dtype)
        if is_dynamo_compiling():
            count = self.compiled_iterations
        # waves of other lengths are never met from one wave alone
        rows = right.view(self.groups, -1)
        begin = (rows + 0.03 * scattered(rows)).view_as(right)
        left, right = self.iterate(kernel, left, begin, count, self.accuracy)
        return left.to(X.dtype), right.to(X.dtype)

    @torch.jit.unused
    def iterate(
        self, kernel: Tensor, u: Tensor, v: Tensor, count: int, accuracy: float | None
    ) -> tuple[Tensor, Tensor]:
        groups = self.groups

        def apply(x: Tensor) -> Tensor:
            return self.convolved(kernel, x.view_as(v)).view(groups, -1)

        def adjoint(y: Tensor) -> Tensor:
            return self.adjoint(kernel, y.view_as(u), v).view(groups, -1)

        with without_autocast(kernel):
            left, right = improve_triple(
                apply, adjoint, u.view(groups, -1), v.view(groups, -1), count, accuracy
            )
        return left.view_as(u), right.view_as(v)

    def adjoint(self, kernel: Tensor, y: Tensor, v: Tensor) -> Tensor:
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

    def extra_repr(self) -> str:
        shown = [f"input_size={tuple(self.input_size)}", f"bound={self.bound}"]
        for name in ("stride", "padding", "dilation"):
            values = getattr(self, name)
            if set(values) != {0 if name == "padding" else 1}:
                shown.append(f"{name}={tuple(values)}")
        shown += [f"groups={self.groups}"] * (self.groups > 1)
        shown += ["padding_mode='circular'"] * self.circular + ["transposed=True"] * self.transposed
        shown += ["only_shrink=True"] * self.only_shrink + ["strict=True"] * self.strict
        return ", ".join(shown)


def numbers(name: str, given: int | Sequence[int], count: int, least: int) -> list[int]:
    """One number for each of `count` spatial dimensions."""
    found = [given] * count if isinstance(given, int) else list(given)
    if len(found) != count or min(found) < least:
        raise ValueError(
            f"{name} must be {count} numbers, at least {least} each, as input_size has {count}. "
            f"Got {name}={given}."
        )
    return found


def folded(image: Tensor, padding: list[int]) -> Tensor:
    """The adjoint of circular padding: what was copied to the sides is added where it was."""
    for i, p in enumerate(padding):
        axis = i + 2
        if p:
            n = image.shape[axis] - 2 * p
            inner = image.narrow(axis, p, n).clone()
            inner.narrow(axis, n - p, p).add_(image.narrow(axis, 0, p))
            inner.narrow(axis, 0, p).add_(image.narrow(axis, n + p, p))
            image = inner
    return image
