"""Convolutions with bounded operator norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import Module

from paramdesc.parametrizations.norms.convolution_operator import ConvolutionOperator

__all__ = ["ConvolutionSpectralNorm"]


class ConvolutionSpectralNorm(ConvolutionOperator):
    """Give a convolution the operator norm `bound`: `Y = bound * X / sigma(X)`.

    `sigma` is the largest singular value of the layer without its bias, as a linear map between
    images of the given size. `SpectralNorm` instead bounds the norm of the weight read as a matrix;
    the norm of the operator can be several times larger. With `bound=1`, the layer is 1-Lipschitz
    in the Euclidean norm.

    The singular vectors are images, one pair for each group. They are computed as in
    `SpectralNorm`, by iterating the convolution and its adjoint; each training step continues from
    the vectors of the previous one.

    Shapes: weights of 1, 2 or 3 spatial dimensions, `(out, in / groups, *kernel)`, or
    `(in, out / groups, *kernel)` if `transposed`. Real; half precision is iterated in float32. A
    zero weight stays zero, with finite gradient. Cost of an evaluation: one convolution of one
    image, and one for the gradient; of a training step: 2 `n_power_iterations` more; of
    registration or assignment: at most 200.

    Assignment and registration keep a weight of this norm as it is and rescale any other.

    `for_module(convolution, input_size)` reads the arguments from a layer.

    Args:
        input_size: the spatial size of the images that the layer takes, such as `(32, 32)`. For
            smaller images, the norm is at most `bound`; for larger ones, it may be larger.
        bound: the norm, positive.
        stride, padding, dilation, groups, output_padding: the arguments of the layer; a number, or
            one for each spatial dimension.
        padding_mode: `"zeros"` or `"circular"`.
        transposed: whether the layer is a transposed convolution.
        n_power_iterations: the number of iterations in each training step, by default 3. With a
            `tolerance`, the largest number, by default 100.
        tolerance: the estimated relative error of the norm at which the iteration of a training
            step stops; compiled code makes at most 8 iterations.
        only_shrink: whether to leave a weight of smaller norm as it is.
        strict: whether to reject a weight of another norm instead of scaling it.

    Raises:
        ValueError: if an argument is out of its range, or the weight has other dimensions; with
            `strict`, if an assigned weight has another norm.

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
        super().__init__(
            bound,
            n_power_iterations=n_power_iterations,
            tolerance=tolerance,
            only_shrink=only_shrink,
            strict=strict,
        )
        size = [input_size] if isinstance(input_size, int) else list(input_size)
        if not 1 <= len(size) <= 3 or min(size) < 1:
            raise ValueError(
                f"input_size must be one to three positive numbers. Got input_size={input_size}."
            )
        if padding_mode not in ("zeros", "circular"):
            raise ValueError(
                "padding_mode must be 'zeros' or 'circular'; other modes are not supported. Got "
                f"padding_mode={padding_mode!r}."
            )
        if transposed and padding_mode != "zeros":
            raise ValueError("a transposed convolution supports only padding_mode='zeros'.")
        self.input_size = size
        self.stride = numbers("stride", stride, len(size), 1)
        self.padding = numbers("padding", padding, len(size), 0)
        self.dilation = numbers("dilation", dilation, len(size), 1)
        self.output_padding = numbers("output_padding", output_padding, len(size), 0)
        self.groups = groups
        self.circular = padding_mode == "circular"
        self.sides = [p for p in reversed(self.padding) for _ in (0, 1)]  # as F.pad takes them
        self.transposed = transposed

    @classmethod
    def for_module(
        cls, module: Module, input_size: int | Sequence[int], bound: float = 1.0, **arguments: Any
    ) -> ConvolutionSpectralNorm:
        """Create the map for the weight of a convolution layer, with the arguments of the layer.

        Args:
            module: a `Conv1d`, `Conv2d`, `Conv3d`, or one of the `ConvTranspose`.
            input_size: the spatial size of its input.
            bound: the norm.
            arguments: other arguments of the class.

        Raises:
            TypeError: if `module` is not a convolution.
            ValueError: if its padding mode is not supported.
        """
        read: Any = module
        if not isinstance(module, torch.nn.modules.conv._ConvNd):
            raise TypeError(
                f"for_module takes a convolution layer. Got {type(module).__name__}. Pass "
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
                    f"padding='same' of a kernel of size {list(read.kernel_size)} pads more on "
                    "one side than on the other, which is not supported. Use odd kernel sizes."
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
