"""One-line functions for Lipschitz layers. They read the stride and groups of a convolution.

Each function registers the class of the same name on `module.<name>`, and returns the module. With
`strict=True`, a weight that does not satisfy the constraint is rejected with an error.

>>> layer = orthogonal_convolution(torch.nn.Conv2d(4, 16, 3, stride=2, padding=1))
>>> layer.parametrizations.weight[0]
OrthogonalConvolution(
  stride=(2, 2)
  (matrix): Orthogonal('cayley')
  (planes): Grassmann()
)
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

from torch.nn import Module
from torch.nn.modules.conv import _ConvNd

from paramdesc.parametrizations.functions.argument_order import name_first
from paramdesc.parametrizations.lipschitz.orthogonal_convolution import OrthogonalConvolution
from paramdesc.parametrizations.lipschitz.rescaled import LipschitzRescaled
from paramdesc.parametrizations.lipschitz.residual import LipschitzResidual
from paramdesc.parametrizations.norms.absolute_sums import AbsoluteSums
from paramdesc.parametrizations.norms.spectral_norm import SpectralNorm
from paramdesc.registration.register import register_parametrization

__all__ = [
    "kernel_spectral_norm",
    "lipschitz_rescaled",
    "lipschitz_residual",
    "operator_norm_1",
    "operator_norm_inf",
    "orthogonal_convolution",
]

M = TypeVar("M", bound=Module)


def orthogonal_convolution(
    module: M, name: str = "weight", *, rebase: int | None = 50, strict: bool = False
) -> M:
    """Make `module.<name>` the kernel of an orthogonal convolution: `OrthogonalConvolution`."""
    parametrization = OrthogonalConvolution.for_module(module, rebase=rebase, strict=strict)
    return register_parametrization(module, name, parametrization)


def lipschitz_rescaled(
    module: M, name: str = "weight", *, dim: int | None = None, strict: bool = False
) -> M:
    """Limit the operator norm of `module.<name>` to one: `LipschitzRescaled`."""
    stride, groups = read(module)
    parametrization = LipschitzRescaled(stride, groups, dim=dim, strict=strict)
    return register_parametrization(module, name, parametrization)


def lipschitz_residual(module: M, name: str = "weight", *, strict: bool = False) -> M:
    """Make `module.<name>` the weight of a 1-Lipschitz residual layer: `LipschitzResidual`."""
    stride, groups = read(module)
    return register_parametrization(module, name, LipschitzResidual(stride, groups, strict=strict))


@name_first("bound")
def kernel_spectral_norm(
    module: M, name: str = "weight", *, bound: float = 1.0, only_shrink: bool = False
) -> M:
    """Limit the operator norm of a convolution to `bound`, at low cost.

    Registers `SpectralNorm` on the kernel as a matrix, with a smaller bound: the norm of the
    operator is at most `sqrt(windows)` times that of the matrix, where `windows` is the number of
    windows of the kernel that contain a pixel, `ceil(kernel / stride)` along each axis. The norm
    reaches `bound` only for special kernels, and is often half of it. The bound holds for every
    image size. Use `ConvolutionSpectralNorm` for an exact norm.

    Args:
        module: a convolution layer of torch, transposed or not, with any padding.
        name: the name of the tensor.
        bound: the upper bound of the norm, up to the accuracy of the iteration in `SpectralNorm`.
        only_shrink: whether to leave a kernel of smaller norm as it is.

    Raises:
        TypeError: if `module` is not a convolution.

    Source: Y. Tsuzuku, I. Sato and M. Sugiyama, *Lipschitz-margin training*, NeurIPS 2018, theorem
    2; M. Serrurier et al., *Achieving robustness in classification using optimal transport with
    hinge regularization*, CVPR 2021, appendix C.

    >>> layer = kernel_spectral_norm(torch.nn.Conv2d(2, 8, 3))
    >>> round(torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item(), 3)
    0.333
    """
    read: Any = module
    if not isinstance(module, _ConvNd):
        raise TypeError(
            f"kernel_spectral_norm takes a convolution layer. Got {type(module).__name__}. For "
            "other layers use spectral_norm(module)."
        )
    windows = math.prod(
        math.ceil(kernel / (stride // math.gcd(stride, dilation)))
        for kernel, stride, dilation in zip(
            read.kernel_size, read.stride, read.dilation, strict=True
        )
    )
    parametrization = SpectralNorm(bound / math.sqrt(windows), only_shrink=only_shrink)
    return register_parametrization(module, name, parametrization)


@name_first("bound")
def operator_norm_1(
    module: M, name: str = "weight", *, bound: float = 1.0, by: str = "whole", strict: bool = False
) -> M:
    """Limit the operator norm of `module.<name>` in the 1-norm to `bound`: `AbsoluteSums`.

    For a matrix, this norm is the largest sum of absolute values in a column. With `by="each"` or
    `by="nearest"`, each input is bounded separately. The weights of convolutions are treated as
    linear maps from images to images.
    """
    parametrization = absolute_sums(module, name, bound, of_outputs=True, by=by, strict=strict)
    return register_parametrization(module, name, parametrization)


@name_first("bound")
def operator_norm_inf(
    module: M, name: str = "weight", *, bound: float = 1.0, by: str = "whole", strict: bool = False
) -> M:
    """Limit the operator norm of `module.<name>` in the maximum norm to `bound`: `AbsoluteSums`.

    For a matrix, this norm is the largest sum of absolute values in a row. With `by="each"` or
    `by="nearest"`, each output is bounded separately. The weights of convolutions are treated as
    linear maps from images to images.
    """
    parametrization = absolute_sums(module, name, bound, of_outputs=False, by=by, strict=strict)
    return register_parametrization(module, name, parametrization)


def absolute_sums(
    module: Module, name: str, bound: float, *, of_outputs: bool, by: str, strict: bool
) -> AbsoluteSums:
    """The map that bounds the sums over the outputs, or over the inputs, of a layer."""
    if not isinstance(module, _ConvNd):
        return AbsoluteSums(bound, dim=-2 if of_outputs else -1, by=by, strict=strict)
    channels = 0 if of_outputs != module.transposed else 1
    dim = (channels, *range(2, 2 + len(module.kernel_size)))
    return AbsoluteSums(bound, dim=dim, by=by, groups=module.groups, strict=strict)


def read(module: Module) -> tuple[int | tuple[int, ...], int]:
    """The stride and the groups of a layer; one if it is not a convolution."""
    return (module.stride, module.groups) if isinstance(module, _ConvNd) else (1, 1)
