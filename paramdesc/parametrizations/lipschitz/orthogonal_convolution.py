"""Convolutions that preserve the norm of every image.

No `from __future__ import annotations`: TorchScript needs the annotations of the class as objects.
"""

import math
from collections.abc import Sequence
from typing import Any, List  # noqa: UP035 - TorchScript knows `List`

import torch
from torch import Tensor
from torch.nn import Module

from paramdesc.chain.parametrization import Move, Parametrization
from paramdesc.linalg.precision import epsilon, widened
from paramdesc.parametrizations.base_point import check_rebase, shown_rebase
from paramdesc.parametrizations.composition.nested import MovesInner, movable_in
from paramdesc.parametrizations.lipschitz.factorization import distance, factorized
from paramdesc.parametrizations.lipschitz.kernels import (
    autocorrelation,
    by_taps,
    check_convolution,
    lags,
    polyphase,
    spatial_dims,
)
from paramdesc.parametrizations.lipschitz.projectors import factor_order, multiplied
from paramdesc.parametrizations.orthogonality.grassmann import Grassmann
from paramdesc.parametrizations.orthogonality.orthogonal import Orthogonal
from paramdesc.torch_internals.placeholders import is_placeholder

__all__ = ["OrthogonalConvolution"]


class OrthogonalConvolution(MovesInner):
    """Make `layer.weight` the kernel of an orthogonal convolution.

    The convolution is orthogonal as a linear map from images to images. If the layer has at least
    as many outputs as inputs, counted with the stride, `out >= in * stride ** dimensions`, it
    preserves the norm of each image: all singular values are one. If it has fewer, its adjoint
    preserves norms: all nonzero singular values are one. The padding determines what happens at the
    borders:

    - With circular padding by `kernel - stride` pixels in total, this is exact, for images whose
      size is a multiple of the stride.
    - With zero padding, no singular value is above one, so the layer is 1-Lipschitz; singular
      values that belong to the borders may be smaller. Two cases are exact: full padding, by
      `kernel - 1` on each side, with at least as many outputs as inputs; and no padding, with at
      most as many.

    A transposed convolution is the adjoint, and takes the same weight. With `padding=0`, it
    preserves norms exactly if it has at least as many outputs as inputs, counted with the stride:
    `out * stride ** dimensions >= in`. Dilation is allowed if it has no common divisor with the
    stride.

    Shapes: weights of 1, 2 or 3 spatial dimensions, `(out, in / groups, *kernel)`, or
    `(in, out / groups, *kernel)` for transposed ones. Any kernel size; real and complex; half
    precision is computed in float32. The kernel is a product: along each axis
    `kernel - stride` factors `I - P + P z`, where `z` shifts by a pixel, and `P` is a projection of
    rank `c // 2`, or of rank `c - c // 2` for every other factor; and a matrix. Without stride, `c`
    is the larger number of channels of a group, and the matrix is `c x n` for the smaller number
    `n`. With a stride, `c` is the number of inputs, and the matrix takes all pixels that the stride
    covers to the outputs. There are two originals:

    - `original0` determines the matrix, whose columns or rows are orthonormal, as in `Orthogonal`,
    - `original1`, `(groups, factors, c, c // 2)`, determines bases of the ranges of the
      projections, as in `Grassmann`.

    Assignment and registration keep a value of the map, such as the one that `torch.nn.init.dirac_`
    creates for odd kernels, and replace any other with a nearby one, found by a search. The
    originals become zero, and the factors of the value become the base points. In one spatial
    dimension, without stride and with equally many outputs and inputs, the values are all
    orthogonal kernels whose determinant, a power of `z`, has half the largest degree. In more
    dimensions, they are all products of such kernels along each axis; not all orthogonal kernels of
    two dimensions are such products.

    Cost, for `c` channels and kernels of 3 x 3: 12 products of `c x c` matrices and the four
    projections. Registration costs about a hundred times as much.

    `for_module(layer)` reads the arguments from a layer.

    Args:
        stride: the stride of the layer, a number or one for each spatial dimension.
        groups: the number of groups of the layer.
        rebase: the number of training steps after which the base points of the matrix and of the
            subspaces move; None for never.
        strict: whether to reject a weight that is not a value of the map instead of replacing it.

    Raises:
        ValueError: if the weight is not that of a convolution, or no weight of its shape is
            orthogonal; with `strict`, if an assigned weight is not orthogonal or not a product of
            such factors; the error's `deviation` is the Frobenius norm of `Kᴴ K - I`.

    Source: T. Boissin et al., *An adaptive orthogonal convolution scheme for efficient and flexible
    CNN architectures*, ICML 2025, for strides and groups; J. Su, W. Byeon and F. Huang, *Scaling-up
    diverse orthogonal convolutional networks by a paraunitary framework*, ICML 2022, for the order
    of the factors; Q. Li et al., *Preventing gradient attenuation in Lipschitz constrained
    convolutional networks*, NeurIPS 2019, and L. Xiao et al., *Dynamical isometry and a mean field
    theory of CNNs*, ICML 2018, for kernels made of projections.

    >>> layer = torch.nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular", bias=False)
    >>> _ = register_parametrization(layer, "weight", OrthogonalConvolution())
    >>> signal = torch.randn(1, 4, 10)
    >>> torch.allclose(layer(signal).norm(), signal.norm())
    True
    """

    constraint = "an orthogonal convolution"

    # TorchScript needs the types of these lists
    stride: List[int]  # noqa: UP006
    weight_shape: List[int]  # noqa: UP006

    def __init__(
        self,
        stride: int | Sequence[int] = 1,
        groups: int = 1,
        *,
        rebase: int | None = 50,
        strict: bool = False,
    ) -> None:
        super().__init__(strict=strict)
        check_rebase(rebase)
        self.stride = [stride] if isinstance(stride, int) else list(stride)
        if not self.stride or min(self.stride) < 1 or groups < 1:
            raise ValueError(
                f"stride and groups must be positive. Got stride={stride}, groups={groups}."
            )
        self.groups = groups
        self.rebase = rebase
        self.matrix = Orthogonal(rebase=rebase)
        self.planes = Grassmann(rebase=rebase)
        self.weight_shape = []

    @classmethod
    def for_module(
        cls, module: Module, *, rebase: int | None = 50, strict: bool = False
    ) -> "OrthogonalConvolution":
        """Create the map for the weight of a convolution layer, with the stride of the layer.

        Raises:
            TypeError: if `module` is not a convolution.
            ValueError: if dilation and stride have a common divisor.
        """
        read: Any = module
        if not isinstance(module, torch.nn.modules.conv._ConvNd):
            raise TypeError(
                f"for_module takes a convolution layer. Got {type(module).__name__}. Pass stride "
                "and groups to OrthogonalConvolution instead."
            )
        pairs = zip(read.dilation, read.stride, strict=True)
        if any(math.gcd(dilation, stride) > 1 for dilation, stride in pairs):
            raise ValueError(
                "a convolution whose dilation and stride have a common divisor skips pixels. "
                f"Got dilation={read.dilation}, stride={read.stride}."
            )
        return cls(read.stride, read.groups, rebase=rebase, strict=strict)

    def forward(self, X: Tensor, planes: Tensor) -> Tensor:
        if len(self.weight_shape) == 0:
            raise RuntimeError("OrthogonalConvolution knows the kernel size once it is registered.")
        shape, stride = self.weight_shape, self.strides(self.weight_shape)
        taps = first_taps(shape, stride)
        M = self.matrix(widened(X))
        M = M.reshape([M.shape[0], planes.shape[-2]] + taps + [M.shape[-1]])  # noqa: RUF005
        bases = widened(planes)
        if planes.numel() > 0:
            bases = self.planes(bases)
        else:
            M = M + bases.sum()  # zero, so that each original has a gradient
        K = multiplied(M, bases, factor_order(counts(shape, stride)))
        if not is_outer(shape, stride, self.groups):
            K = K.transpose(1, -1)
        return K.movedim(-1, 2).flatten(0, 1).contiguous().to(X.dtype)

    @torch.inference_mode(False)  # an inference tensor could not be used in training later
    @torch.no_grad()
    def right_inverse(self, Y: Tensor) -> tuple[Tensor, Tensor]:
        self.check(Y)
        self.admit(Y)
        shape, stride = list(Y.shape), self.strides(list(Y.shape))
        K = widened(Y).reshape(self.groups, -1, *Y.shape[1:]).movedim(2, -1)
        if not is_outer(shape, stride, self.groups):
            K = K.transpose(1, -1)
        order = factor_order(counts(shape, stride))
        if is_placeholder(Y):
            M = K.new_empty(*K.shape[:2], *first_taps(shape, stride), K.shape[-1])
            bases = K.new_empty(K.shape[0], len(order), K.shape[1], K.shape[1] // 2)
        else:
            M, bases = factorized(K, order)
            if self.strict:
                self.check_reached(K, distance(K, M, bases, order))
        self.weight_shape = shape
        X = self.matrix.right_inverse(M.flatten(1, -2).to(K.dtype))
        planes = self.planes.right_inverse(bases.to(K.dtype)).to(Y.dtype)
        return X.to(Y.dtype), planes

    def movable(self) -> list[Parametrization]:
        return movable_in([self.matrix, self.planes])

    def moved(self, *originals: Tensor, steps: int | None = None) -> Move:
        X, planes = originals
        news, bases = self.matrix.moved(X)
        if planes.numel() == 0:
            return (*news, planes), bases
        turned, others = self.planes.moved(planes)
        return (*news, *turned), bases + others

    def check(self, Y: Tensor) -> None:
        check_convolution(Y, self.groups)
        shape, stride = list(Y.shape), self.strides(list(Y.shape))
        covered = [min(s, k) for s, k in zip(stride, shape[2:], strict=True)]
        if covered != stride and shape[0] // self.groups > shape[1] * math.prod(covered):
            raise ValueError(
                f"a kernel of size {shape[2:]} skips pixels at stride={stride}, so a layer with "
                "that many outputs cannot be orthogonal. Use a kernel at least as large as the "
                f"stride, or at most {shape[1] * math.prod(covered) * self.groups} outputs."
            )

    def check_reached(self, K: Tensor, error: float) -> None:
        allowed = 1e4 * epsilon(K) * torch.linalg.vector_norm(K).item()
        if not error <= allowed:
            raise ValueError(
                "this orthogonal convolution is not a product of factors of two taps along each "
                f"axis: the nearest product found is {error:.2g} away, where {allowed:.2g} is "
                "allowed. Use strict=False to take that one."
            )

    def strides(self, shape: List[int]) -> List[int]:  # noqa: UP006
        return spatial_dims(self.stride, len(shape) - 2, "stride")

    def deviation(self, Y: Tensor) -> Tensor:
        """The Frobenius norm of `Kᴴ K - I`, or of `K Kᴴ - I`, per pixel.

        `K` is the operator on images without borders; the second form applies if there are fewer
        outputs than inputs. The value is the largest over the groups.
        """
        self.check(Y)
        C = by_taps(polyphase(widened(Y), self.strides(list(Y.shape)), self.groups))
        if C.shape[-2] < C.shape[-1]:
            C = C.mH
        total = C.new_zeros(C.shape[0], dtype=C.real.dtype)
        for lag in lags(list(C.shape[1:-2])):
            G = autocorrelation(C, lag)
            if any(lag):
                total = total + 2 * torch.linalg.vector_norm(G, dim=(-2, -1)).square()
            else:
                identity = torch.eye(G.shape[-1], dtype=G.dtype, device=G.device)
                total = torch.linalg.vector_norm(G - identity, dim=(-2, -1)).square()
        return total.amax().sqrt()

    def tolerance(self, Y: Tensor) -> float:
        taps = math.prod(Y.shape[2:])
        return 20 * epsilon(Y) * math.sqrt(min(Y.shape[0] // self.groups, Y.shape[1]) * taps)

    def extra_repr(self) -> str:
        shown = [f"stride={tuple(self.stride)}"] if set(self.stride) != {1} else []
        shown += [f"groups={self.groups}"] * (self.groups > 1) + shown_rebase(self)
        return ", ".join(shown + ["strict=True"] * self.strict)


def first_taps(shape: List[int], stride: List[int]) -> List[int]:  # noqa: UP006
    """The taps of the innermost factor, which one stride covers."""
    found: List[int] = []  # noqa: UP006
    for i, s in enumerate(stride):
        found.append(min(s, shape[2 + i]))
    return found


def counts(shape: List[int], stride: List[int]) -> List[int]:  # noqa: UP006
    """The number of factors of two taps along each axis."""
    found: List[int] = []  # noqa: UP006
    for i, s in enumerate(stride):
        found.append(max(0, shape[2 + i] - s))
    return found


def is_outer(shape: List[int], stride: List[int], groups: int) -> bool:  # noqa: UP006
    """Whether the factors act on the outputs rather than on the inputs."""
    return max(stride) == 1 and shape[0] // groups >= shape[1]
