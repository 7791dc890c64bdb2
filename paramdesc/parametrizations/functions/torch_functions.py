"""One-line functions in the style of `torch.nn.utils.parametrizations`.

`orthogonal`, `spectral_norm` and `weight_norm` replace torch's functions: they have the same
arguments, defaults and errors, and checkpoints give the same weight in both directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn import Module
from torch.nn.parameter import is_lazy

from paramdesc.errors import hint_for_tensor
from paramdesc.parametrizations.composition.flattened import Flattened
from paramdesc.parametrizations.functions.old_checkpoints import (
    OldSpectralNorm,
    OldWeightNorm,
    load_old,
)
from paramdesc.parametrizations.norms.frobenius_norm import FrobeniusNorm
from paramdesc.parametrizations.norms.spectral_norm import SpectralNorm
from paramdesc.parametrizations.norms.weight_norm import WeightNorm
from paramdesc.parametrizations.orthogonality.torch_layouts import TorchOrthogonal
from paramdesc.registration.host import check_target, locate
from paramdesc.registration.questions import is_parametrized
from paramdesc.registration.register import register_parametrization

__all__ = ["orthogonal", "spectral_norm", "weight_norm"]

M = TypeVar("M", bound=Module)

Flatten = int | Sequence[int] | None
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def register(
    module: M, name: str, parametrization: Module, flatten: Flatten = None, unsafe: bool = False
) -> M:
    """Register a map, with `flatten` on the tensor as a matrix whose rows are these axes."""
    if flatten is not None:
        parametrization = Flattened(parametrization, flatten)
    return register_parametrization(module, name, parametrization, unsafe=unsafe)


def find_weight(module: Module, name: str) -> Tensor:
    """The tensor of that name, looked up as in torch's functions."""
    owner, own_name = locate(module, name)
    weight = getattr(owner, own_name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(
            f"Module '{type(module).__name__}' has no parameter or buffer with name '{name}'."
            f"{hint_for_tensor(module, name)}"
        )
    return weight


def orthogonal(
    module: M,
    name: str = "weight",
    orthogonal_map: str | None = None,
    *,
    use_trivialization: bool = True,
    rebase: int | None = 50,
    flatten: Flatten = None,
) -> M:
    """Make `module.<name>` orthogonal, like `torch.nn.utils.parametrizations.orthogonal`.

    It has the same arguments, and a state_dict gives the same weight in both libraries. It also
    works in half precision and on the meta device, and is several times as fast, see
    `TorchOrthogonal`. `Orthogonal` is faster still, and projects to the nearest orthogonal matrix
    instead of using a factor of QR.

    Args:
        module: the module that has the tensor.
        name: the name or path of a parameter or buffer `(*, m, n)`, or of any shape with `flatten`.
        orthogonal_map: `"matrix_exp"`, `"cayley"` or `"householder"`; by default `"matrix_exp"` for
            square and complex matrices, and `"householder"` for others.
        use_trivialization: whether to keep a base, so that any value can be assigned.
        rebase: the number of training steps after which the base moves to the value; None for
            never, which reproduces torch's training steps.
        flatten: the axes that become the rows of a matrix, while all others become the columns; by
            default, the last two axes are the matrix, and the leading ones are batch dimensions.

    Returns:
        `module`, of the same type.

    Raises:
        ValueError: if there is no such tensor, it has fewer than two dimensions, the map is
            unknown, or the map is `householder` and the tensor is complex.

    >>> conv = orthogonal(torch.nn.Conv2d(4, 3, 2), flatten=0)
    >>> W = conv.weight.flatten(1)
    >>> torch.allclose(W @ W.T, torch.eye(3), atol=1e-6)
    True
    """
    check_target("orthogonal", module, name)
    if name in ("matrix_exp", "cayley", "householder") and not hasattr(module, name):
        raise ValueError(
            f"{name!r} is a map, which comes after the name of the tensor. Write "
            f'orthogonal(module, "weight", "{name}").'
        )
    weight = find_weight(module, name)
    if is_lazy(weight):
        if orthogonal_map is None:
            raise ValueError(
                f"{name!r} has no shape yet, but the default map depends on it. Write "
                f'orthogonal(module, "{name}", orthogonal_map="householder"), or choose another '
                "map."
            )
    elif weight.ndim < 2:
        raise ValueError(
            f"Expected a matrix or batch of matrices. Got a tensor of {weight.ndim} dimensions."
        )
    if orthogonal_map is None:
        m, n = matrix_shape(weight, flatten)
        orthogonal_map = "matrix_exp" if m == n or weight.is_complex() else "householder"
    parametrization = TorchOrthogonal(
        orthogonal_map, use_trivialization=use_trivialization, rebase=rebase
    )
    if weight.is_complex() and orthogonal_map == "householder":
        raise ValueError("The householder parametrization does not support complex tensors.")
    del weight  # registration looks for other holders of a tensor that is referred to elsewhere
    return register(module, name, parametrization, flatten, unsafe=True)


def matrix_shape(weight: Tensor, flatten: Flatten) -> tuple[int, int]:
    """The size of the matrix, or of each matrix in the batch."""
    if flatten is None:
        return weight.shape[-2], weight.shape[-1]
    matrix = Flattened(nn.Identity(), flatten).to_matrix(weight.detach().to("meta"))
    return matrix.shape[0], matrix.shape[1]


def spectral_norm(
    module: M,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
    *,
    bound: float = 1.0,
    only_shrink: bool = False,
) -> M:
    """Give `module.<name>` spectral norm 1, like `torch.nn.utils.parametrizations.spectral_norm`.

    It has the same arguments, and in evaluation mode a state_dict gives the same weight in both
    libraries. State_dicts of the older `torch.nn.utils.spectral_norm` load too. The power iteration
    advances once per training step, not at each read. A vector is divided by its length, which
    needs no state.

    Args:
        module: the module that has the tensor.
        name: the name or path of a parameter or buffer.
        n_power_iterations: the number of iterations in each training step.
        eps: a norm up to this value counts as zero.
        dim: the dimension that becomes the rows; by default 1 for transposed convolutions, and 0
            for all other modules.
        bound: the norm to set, instead of 1.
        only_shrink: whether to leave a tensor of smaller norm as it is.

    Returns:
        `module`, of the same type.

    Raises:
        ValueError: if there is no such tensor, or an argument is out of its range.
        IndexError: if the tensor has no such dimension.

    >>> linear = spectral_norm(torch.nn.Linear(4, 3))
    >>> round(torch.linalg.matrix_norm(linear.weight, 2).item(), 3)
    1.0
    """
    check_target("spectral_norm", module, name)
    weight = find_weight(module, name)
    owner, own_name = locate(module, name)
    if dim is None:
        dim = 1 if isinstance(owner, TRANSPOSED) else 0
    if is_lazy(weight):
        ndim = 0
    else:
        ndim = weight.ndim
        check_dimension(ndim, dim)
        dim %= ndim
    if n_power_iterations <= 0:
        raise ValueError(
            "Expected n_power_iterations to be positive, but "
            f"got n_power_iterations={n_power_iterations}"
        )
    parametrization: Module = SpectralNorm(
        bound, dim=dim, n_power_iterations=n_power_iterations, only_shrink=only_shrink, eps=eps
    )
    if ndim == 1:  # torch keeps no state for vectors
        parametrization = FrobeniusNorm(bound, only_shrink=only_shrink)
    index = count_maps(owner, own_name)
    register_parametrization(owner, own_name, parametrization)
    load_old(owner, OldSpectralNorm(own_name, dim, index))
    return module


def check_dimension(ndim: int, dim: int | None) -> None:
    """Refuse a dimension that a tensor does not have, as torch does."""
    if dim is not None and not -ndim <= dim < ndim:
        raise IndexError(
            "Dimension out of range (expected to be in range of "
            f"[-{ndim}, {ndim - 1}] but got {dim})"
        )


def count_maps(module: Module, name: str) -> int:
    """The number of maps on the tensor."""
    if not is_parametrized(module, name):
        return 0
    chains: Any = module.parametrizations
    return len(chains[name])


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Make `module.<name>` `g * v / |v|`, like `torch.nn.utils.parametrizations.weight_norm`.

    It has the same arguments, and a state_dict gives the same weight in both libraries. State_dicts
    of the older `torch.nn.utils.weight_norm` load too. Where `v` is zero, the weight is zero, with
    finite gradient.

    Args:
        module: the module that has the tensor.
        name: the name or path of a parameter or buffer.
        dim: the dimension that keeps one norm for each index; None, or -1 as in torch, for one norm
            of the whole tensor.

    Returns:
        `module`, of the same type. Its originals are new Parameters: `original0` is `g`, and
        `original1` is `v`.

    Raises:
        ValueError: if there is no such tensor, or it is already parametrized.
        IndexError: if the tensor has no such dimension.

    >>> linear = weight_norm(torch.nn.Linear(4, 3))
    >>> linear.parametrizations.weight.original0.shape
    torch.Size([3, 1])
    """
    check_target("weight_norm", module, name)
    owner, own_name = locate(module, name)
    if is_parametrized(owner, own_name):
        raise ValueError(
            f"{own_name!r} of {type(owner).__name__} is already parametrized, and a weight norm "
            "has two originals, so it must come first. Write "
            f'paramdesc.remove_parametrizations(module, "{name}"), then weight_norm, then the '
            "other parametrizations."
        )
    whole = dim is None or dim == -1
    weight = getattr(owner, own_name, None)
    if not whole and isinstance(weight, Tensor) and not is_lazy(weight):
        check_dimension(weight.ndim, dim)
    register_parametrization(owner, own_name, WeightNorm(None if whole else dim), unsafe=True)
    load_old(owner, OldWeightNorm(own_name, dim))
    return module
