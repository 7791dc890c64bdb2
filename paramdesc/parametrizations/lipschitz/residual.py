"""Weights of 1-Lipschitz residual layers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from paramdesc.linalg.precision import widened
from paramdesc.parametrizations.lipschitz.balance import balance, row_ratios
from paramdesc.parametrizations.lipschitz.rescaled import Rescaling
from paramdesc.torch_internals.placeholders import is_placeholder

__all__ = ["LipschitzResidual"]


class LipschitzResidual(Rescaling):
    """Make the residual layer `x - 2 Yᵀ f(Y x + b)` with `Y = layer.weight` 1-Lipschitz.

    This holds for any activation `f` with slopes between zero and one, such as ReLU, tanh and
    sigmoid. For ReLU it is the SDP-based Lipschitz layer (SLL), `x - 2 Xᵀ T⁻¹ f(X x + b)`, with
    another bias: the weight is `Y = T^(-1/2) X`, where `T` is diagonal and
    `T_ii = sum_j |X Xᴴ|_ij q_j / q_i`, with positive numbers `q`. The originals are

    - `original0`, the matrix or kernel `X`,
    - `original1`, the logarithms of `q`, one for each row.

    The shapes, the possible values and the effect of assignment are as in `LipschitzRescaled` with
    `dim=0`; `q` only changes how the weight is trained. After an assignment, `X` is the weight.

    Args:
        stride, groups: the arguments of the convolution.
        strict: whether to reject a weight that is not a value of the map instead of scaling it.

    Raises:
        ValueError: as in `LipschitzRescaled`.

    Source: A. Araujo et al., *A unified algebraic perspective on Lipschitz neural networks*, ICLR
    2023, theorem 3.

    >>> linear = register_parametrization(torch.nn.Linear(3, 5), "weight", LipschitzResidual())
    >>> def layer(x):
    ...     return x - 2 * torch.relu(linear(x)) @ linear.weight
    >>> x, y = torch.randn(3), torch.randn(3)
    >>> bool((layer(x) - layer(y)).norm() <= (x - y).norm())
    True
    """

    constraint = "rescaled to be 1-Lipschitz"

    def __init__(
        self, stride: int | Sequence[int] = 1, groups: int = 1, *, strict: bool = False
    ) -> None:
        super().__init__(stride, groups, dim=0, strict=strict)

    def forward(self, X: Tensor, q: Tensor) -> Tensor:
        K, A = self.brought_to_one(X)
        weights = torch.exp(widened(q)).reshape(K.shape[0], K.shape[1])
        return self.divided(K, row_ratios(A, weights), X)

    @torch.no_grad()
    def right_inverse(self, Y: Tensor) -> tuple[Tensor, Tensor]:
        self.check(Y)
        self.admit(Y)
        real = Y.real.dtype if Y.is_complex() else Y.dtype
        if is_placeholder(Y):
            return Y, Y.new_empty(Y.shape[0], dtype=real)
        weights = balance(self.gram(self.kernel(widened(Y))))
        middle = weights / weights.log().mean(-1, keepdim=True).exp()
        return Y, middle.log().flatten().to(real)
