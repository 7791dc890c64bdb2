"""Tensors with some frozen entries.

No `from __future__ import annotations`: TorchScript needs the annotations of the class as objects.
"""

from typing import Any

import torch
from torch import Tensor

from paramdesc.chain.cuts import Cuts, cuts_of_broadcast
from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.differences import largest_difference

__all__ = ["Frozen"]


class Frozen(Parametrization):
    """Freeze some entries of `layer.weight`: `Y = where(mask, value, X)`.

    Frozen entries get no gradient, and neither weight decay nor an optimizer's momentum changes
    them. They keep the values that the weight has at registration; these are stored in the buffer
    `value`, which has the shape of the weight. Use it, for example, for rows of an embedding that
    must not be trained.

    Shapes `(*) -> (*)`, of any dtype. The cost is one pass.

    Registration keeps the weight as it is. Assignment changes only the entries that are not frozen,
    so the weight becomes the nearest tensor with these frozen entries. To change the frozen values,
    write to `value`: `layer.parametrizations.weight[0].value.copy_(X)`.

    Args:
        mask: a mask that broadcasts to the shape of the weight and is True for frozen entries; or
            an index that selects them as `weight[mask]`: an integer, a slice, a list, or a tuple of
            these.
        strict: whether to reject a tensor with other values in those entries instead of replacing
            it.

    Raises:
        ValueError: if the mask does not fit the weight; with `strict`, if an assigned tensor has
            other frozen entries; the error's `deviation` is the largest difference.
        IndexError: if the index does not fit the weight.

    >>> embedding = torch.nn.Embedding(5, 3)
    >>> embedding = register_parametrization(embedding, "weight", Frozen(slice(4)))
    >>> embedding.weight.sum().backward()
    >>> embedding.parametrizations.weight.original.grad[:, 0].tolist()
    [0.0, 0.0, 0.0, 0.0, 1.0]
    """

    constraint = "unchanged in the frozen entries"
    mask: Tensor
    value: Tensor

    def __init__(self, mask: Any, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        is_mask = isinstance(mask, Tensor) and mask.dtype == torch.bool
        self.index = None if is_mask else mask
        self.register_buffer("mask", mask.clone() if is_mask else None)
        self.register_buffer("value", None)

    def forward(self, X: Tensor) -> Tensor:
        if self.value is None:
            return X  # it is registered on nothing yet
        return torch.where(self.mask, self.value, X)

    def cuts(self, dim: int, ndim: int) -> Cuts | None:
        return (dim,), cuts_of_broadcast({"mask": self.mask, "value": self.value}, dim, ndim)

    @torch.inference_mode(False)  # a base made there could not be trained on elsewhere
    @torch.no_grad()
    def right_inverse(self, Y: Tensor) -> Tensor:
        if self.value is None:
            self.mask = self.mask_of(Y)
            self.value = Y.detach().clone()
            return Y
        self.admit(Y)
        return torch.where(self.mask_of(Y), self.value, Y)

    def mask_of(self, Y: Tensor) -> Tensor:
        """The mask, for a weight like `Y`."""
        mask = self.mask
        if mask is None:
            mask = torch.zeros(Y.shape, dtype=torch.bool, device=Y.device)
            mask[self.index] = True
        pairs = zip(reversed(mask.shape), reversed(Y.shape), strict=False)
        if mask.ndim > Y.ndim or not all(size in (1, length) for size, length in pairs):
            raise ValueError(
                f"a mask of shape {list(mask.shape)} does not fit a weight of shape "
                f"{list(Y.shape)}."
            )
        return mask.to(Y.device)

    def deviation(self, Y: Tensor) -> Tensor:
        """The largest difference in a frozen entry."""
        if self.value is None:
            return torch.zeros((), device=Y.device)
        return largest_difference(torch.where(self.mask_of(Y), Y, self.value), self.value)

    def tolerance(self, Y: Tensor) -> float:
        return 0.0
