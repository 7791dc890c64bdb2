"""Tensors with fixed entries under a mask.

No `from __future__ import annotations`: TorchScript needs the annotations of the class as objects.
"""

import torch
from torch import Tensor

from paramdesc.chain.cuts import Cuts, cuts_of_broadcast
from paramdesc.parametrizations.structure.linear_structure import LinearStructure

__all__ = ["Masked"]


class Masked(LinearStructure):
    """Set `layer.weight` to `fill` where `mask` is false; `Y = X` where it is true.

    This prunes the weight: masked entries of `X` have no effect and get no gradient, as long as
    they are finite.

    Shapes `(*) -> (*)`, of any dtype and number of dimensions. `mask` is broadcast to the
    shape of `X`. It is a buffer of zeros and ones, saved and moved with the map, and may be
    written to in place to prune more. Cost: one pass over the tensor.

    Assignment and registration keep a tensor with these entries as it is and replace any other with
    the nearest one in the Frobenius norm, by filling them.

    Args:
        mask: a mask of the free entries, which are true or nonzero.
        fill: the value of the other entries.
        strict: whether to reject a tensor with other values there instead of replacing it.

    Raises:
        TypeError: if `mask` is not a tensor.
        ValueError: if it cannot be broadcast to the shape of `X`; with `strict`, if an assigned
            tensor has other values where the mask is false; the error's `deviation` is the largest
            difference.

    Source: S. Han, J. Pool, J. Tran, W. J. Dally, *Learning both weights and connections for
    efficient neural networks*, NeurIPS 2015, section 3.

    >>> mask = torch.tensor([[True, False], [True, True]])
    >>> linear = register_parametrization(torch.nn.Linear(2, 2), "weight", Masked(mask))
    >>> linear.weight = torch.ones(2, 2)
    >>> linear.weight.tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """

    constraint = "filled where the mask is false"
    mask: Tensor

    def __init__(self, mask: Tensor, fill: float = 0.0, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        if not isinstance(mask, Tensor):
            raise TypeError(
                f"mask must be a tensor, got {type(mask).__name__}. Write torch.tensor(mask)."
            )
        # of the dtype that most weights have: a product with booleans takes twice the time
        self.register_buffer("mask", (mask.detach() != 0).to(torch.get_default_dtype()))
        self.fill = float(fill)

    def cuts(self, dim: int, ndim: int) -> Cuts | None:
        return (dim,), cuts_of_broadcast({"mask": self.mask}, dim, ndim)

    def project(self, X: Tensor) -> Tensor:
        check_broadcast(self.mask, X)
        if self.fill == 0:
            return X * self.mask.to(X.dtype)  # several times as fast as a choice
        fill = torch.full([], self.fill, dtype=X.dtype, device=X.device)
        return torch.where(self.mask != 0, X, fill)

    def extra_repr(self) -> str:
        shown = [f"mask={list(self.mask.shape)}", f"fill={self.fill}"]
        return ", ".join(shown + ["strict=True"] * self.strict)


def check_broadcast(mask: Tensor, X: Tensor) -> None:
    """Raise an error unless the mask broadcasts to the shape of `X`."""
    leading = X.ndim - mask.ndim
    fits = leading >= 0
    for dim in range(mask.ndim if fits else 0):
        fits = fits and (mask.shape[dim] == 1 or mask.shape[dim] == X.shape[leading + dim])
    if not fits:
        raise ValueError(
            f"a mask of shape {list(mask.shape)} does not broadcast to a tensor of shape "
            f"{list(X.shape)}."
        )
