"""Low-rank adaptation: a frozen weight plus a trainable product of thin factors."""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import Parameter

from paramdesc.chain.cuts import Cuts
from paramdesc.chain.parametrization import Parametrization
from paramdesc.linalg.precision import matmul
from paramdesc.linalg.shapes import check_matrix

__all__ = ["LoRA"]


class LoRA(Parametrization):
    """Add a trainable low-rank matrix to `layer.weight`: `Y = X + (alpha / rank) B A`.

    `A` and `B` are the parameters `lora_A`, `(*, rank, n)`, and `lora_B`, `(*, m, rank)`, of the
    map. They are created at registration, with the dtype and on the device of the weight; until
    then `Y = X`. `A` is random and `B` is zero, so registration does not change the value. Freeze
    `X` to train only the factors, or use `lora`, which does this. `merge_lora` turns the value into
    a plain weight.

    Shapes `(*, m, n) -> (*, m, n)`: each expert of a weight `(experts, m, n)` gets factors of its
    own. With `flatten`, the first dimension is `m`, and all others together are `n`, as for
    convolutions. Any floating point or complex dtype. The cost is that of the product, `2 m n rank`
    operations, twice that for the gradients, and a pass over the weight.

    Assignment keeps `A` and `B`, and sets `X` so that the value is the assigned tensor.

    Args:
        rank: the rank of the added matrix, positive.
        alpha: the scale of the added matrix, times `rank`. By default `rank`, which is a scale of
            one.
        flatten: whether to read the weight as a matrix whose rows are its first dimension.

    Raises:
        ValueError: if an argument is out of its range, the weight is not a matrix, or the map was
            already registered on a weight of another shape.

    Source: E. J. Hu et al., *LoRA: low-rank adaptation of large language models*, ICLR 2022,
    section 4.1. `A` is initialized as in their code and in PEFT, uniformly between `±1 / sqrt(n)`,
    from the seed set by `torch.manual_seed`, without advancing the random number generator.

    >>> linear = register_parametrization(torch.nn.Linear(5, 4), "weight", LoRA(2))
    >>> [(name, tuple(x.shape)) for name, x in linear.parametrizations.weight[0].named_parameters()]
    [('lora_A', (2, 5)), ('lora_B', (4, 2))]
    """

    if TYPE_CHECKING:  # TorchScript takes its type from what it holds
        lora_A: Tensor | None  # noqa: N815  # as checkpoints of PEFT have it
        lora_B: Tensor | None  # noqa: N815

    def __init__(self, rank: int = 8, alpha: float | None = None, *, flatten: bool = False) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank must be positive. Got rank={rank}.")
        alpha = float(rank) if alpha is None else alpha
        if not math.isfinite(alpha):
            raise ValueError(f"alpha must be finite. Got alpha={alpha}.")
        self.rank = rank
        self.alpha = alpha
        self.flatten = flatten
        self.register_parameter("lora_A", None)
        self.register_parameter("lora_B", None)

    def forward(self, X: Tensor) -> Tensor:
        A, B = self.lora_A, self.lora_B
        if A is None or B is None:
            return X
        added = matmul(B, A).reshape(X.shape)
        return torch.add(X, added, alpha=self.alpha / self.rank).to(X.dtype)

    def cuts(self, dim: int, ndim: int) -> Cuts | None:
        if self.lora_A is None:
            return (dim,), {}
        if self.flatten:
            return ((dim,), {"lora_B": 0}) if dim == 0 else None
        if dim == ndim - 2:
            return (dim,), {"lora_B": dim}
        return (dim,), {"lora_A": dim} if dim == ndim - 1 else {"lora_A": dim, "lora_B": dim}

    @torch.inference_mode(False)  # a base made there could not be trained on elsewhere
    @torch.no_grad()
    def right_inverse(self, Y: Tensor) -> Tensor:
        check_matrix(Y, "adapted")
        matrix = Y.flatten(1) if self.flatten else Y
        *batch, m, n = matrix.shape
        is_empty = self.lora_A is not None and self.lora_A.is_meta and not Y.is_meta
        if self.lora_A is None or self.lora_B is None or is_empty:
            self.lora_A = Parameter(random_factor(Y, [*batch, self.rank, n]))
            self.lora_B = Parameter(Y.new_zeros([*batch, m, self.rank]))
        if self.lora_A.shape != (*batch, self.rank, n) or self.lora_B.shape[-2] != m:
            raise ValueError(
                f"this LoRA has factors of shapes {list(self.lora_B.shape)} and "
                f"{list(self.lora_A.shape)}, which do not fit a weight of shape {list(Y.shape)}. "
                "Register one LoRA(...) for each weight."
            )
        added = matmul(self.lora_B, self.lora_A).reshape(Y.shape)
        return torch.sub(Y, added, alpha=self.alpha / self.rank).to(Y.dtype)

    def extra_repr(self) -> str:
        shown = f"rank={self.rank}, alpha={self.alpha:g}"
        return shown + ", flatten=True" * self.flatten


def random_factor(Y: Tensor, shape: list[int]) -> Tensor:
    """Uniform random numbers between `±1 / sqrt(n)`, with the dtype and device of `Y`."""
    # a generator of its own: registering a map must not shift the user's random numbers
    # and mixed with the weight: adapters of two layers must not start with the same numbers
    some = [] if Y.is_meta else Y.detach().flatten()[:256].tolist()
    seed = (torch.initial_seed() + zlib.crc32(repr(some).encode())) % 2**63
    generator = torch.Generator("cpu").manual_seed(seed)
    bound = 1 / max(1, shape[-1]) ** 0.5
    numbers = torch.empty([*shape, 2] if Y.is_complex() else shape, device="cpu")
    numbers.uniform_(-bound, bound, generator=generator)
    return (torch.view_as_complex(numbers) if Y.is_complex() else numbers).to(Y.device, Y.dtype)
