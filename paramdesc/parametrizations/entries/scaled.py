"""Tensors times a learnable scale.

No `from __future__ import annotations`: TorchScript needs the annotations of the class as objects.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from paramdesc.chain.cuts import Cuts, cuts_of_broadcast
from paramdesc.chain.parametrization import Parametrization

__all__ = ["ReZero", "Scaled"]


class Scaled(Parametrization):
    """Multiply `layer.weight` by a trainable real scale: `Y = scale * X`.

    The scale is the parameter `scale` of the map: one number for the whole tensor, or one for each
    index of the axes `dim`. It is created at registration with the dtype of the weight; pass it to
    the optimizer.

    Shapes `(*) -> (*)`; real and complex. Cost: one pass.

    Assignment and registration keep any value: `X = Y / scale`. Where the scale is zero, the value
    is zero too, and `X` becomes `Y`, which takes effect when the scale grows.

    Args:
        dim: the axes along which the scale varies; for example, `dim=0` gives each row of a matrix
            its own. By default, there is a single scale.
        init: the initial value of the scale.

    Raises:
        ValueError: if `init` is not finite.
        IndexError: if the weight has no such axes.

    Source: T. Salimans, D. P. Kingma, *Weight normalization*, NeurIPS 2016, section 2, without
    the norm.

    >>> linear = register_parametrization(torch.nn.Linear(3, 2), "weight", Scaled(dim=0))
    >>> linear.parametrizations.weight[0].scale.shape
    torch.Size([2, 1])
    """

    scale: Tensor

    def __init__(
        self,
        dim: int | Sequence[int] | None = None,
        *,
        init: float = 1.0,
        strict: bool = False,
    ) -> None:
        super().__init__(strict=strict)
        if not math.isfinite(init):
            raise ValueError(f"init must be finite. Got init={init}.")
        self.axes = () if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
        self.init = float(init)
        self.register_parameter("scale", None)

    def forward(self, X: Tensor) -> Tensor:
        if self.scale is None:  # it is registered on nothing yet
            return X * self.init
        return X * self.scale

    def cuts(self, dim: int, ndim: int) -> Cuts | None:
        return (dim,), cuts_of_broadcast({"scale": self.scale}, dim, ndim)

    @torch.inference_mode(False)  # a base made there could not be trained on elsewhere
    @torch.no_grad()
    def right_inverse(self, Y: Tensor) -> Tensor:
        if self.scale is None:
            self.scale = Parameter(
                torch.full(self.shape_of(Y), self.init, dtype=Y.real.dtype, device=Y.device)
            )
        zero = self.scale == 0
        return torch.where(zero, Y, Y / torch.where(zero, 1, self.scale))

    def shape_of(self, Y: Tensor) -> list[int]:
        """The shape of the scale."""
        if not self.axes:
            return []
        shape = [1] * Y.ndim
        for axis in self.axes:
            if not -Y.ndim <= axis < Y.ndim:
                raise IndexError(f"a weight of shape {list(Y.shape)} has no axis {axis}.")
            shape[axis] = Y.shape[axis]
        return shape

    def extra_repr(self) -> str:
        return f"dim={self.axes or None}, init={self.init}"


class ReZero(Scaled):
    """Start `layer.weight` at zero, as `scale * X` with a trainable scale that is initially zero.

    The weight on which it is registered becomes `X`; the first training steps move the scale away
    from zero. A residual branch whose last layer has this parametrization starts as the identity.

    Shapes, dtypes and cost are those of `Scaled`. Registration makes the value zero. Later
    assignments keep the value where the scale is not zero.

    Args:
        dim: as in `Scaled`.

    Source: T. Bachlechner et al., *ReZero is all you need: fast convergence at large depth*,
    UAI 2021, equation 1.

    >>> linear = register_parametrization(torch.nn.Linear(3, 2), "weight", ReZero())
    >>> bool(linear.weight.any())
    False
    """

    def __init__(self, dim: int | Sequence[int] | None = None, *, strict: bool = False) -> None:
        super().__init__(dim, init=0.0, strict=strict)
