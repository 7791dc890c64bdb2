"""Tensors of any shape, read as matrices.

No `from __future__ import annotations`: TorchScript needs the annotations of the class as objects.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from paramdesc.chain.parametrization import Move, Parametrization
from paramdesc.chain.protocols import ParametrizationProto, TensorMap
from paramdesc.parametrizations.composition.compose import count_originals
from paramdesc.parametrizations.composition.nested import (
    MovesInner,
    assign_inner,
    constraint_of,
    inner_map,
    movable_in,
    other_axes,
)

__all__ = ["Flattened"]


class Flattened(MovesInner):
    """Apply a map of matrices to `layer.weight`, read as a matrix.

    The axes `rows` become the rows, in that order, and all other axes become the columns, in their
    order. With `rows=(0,)`, a convolution's `(out, in, height, width)` is read as the matrix
    `(out, in * height * width)`, as in papers on orthogonal and low-rank convolutions. Without
    flattening, maps of matrices use the last two axes, so each kernel is a matrix of its own.

    Shapes `(*) -> (*)`; dtypes are those of the map, which may take up to three originals; these
    are the ones that its `right_inverse` returns for the matrix. A single original has the shape of
    the weight. Assignment and registration call the `right_inverse` of the map. The cost is that of
    the map, plus a copy each way if `rows` are not the leading axes.

    Args:
        parametrization: the map of matrices.
        rows: the axes that become the rows.
        strict: whether to reject a value that the map does not reach.

    Raises:
        ValueError: if the weight has no such axes, or one is named twice.

    >>> conv = torch.nn.Conv2d(3, 2, 5)
    >>> flat = Flattened(SpectralNorm(), rows=(0,))
    >>> conv = register_parametrization(conv, "weight", flat)
    >>> round(torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item(), 3)
    1.0
    """

    __constants__ = ("takes_one", "takes_two")  # TorchScript must not compile the other branches

    constraint = "a matrix that the map reaches"
    rows: list[int]
    shape: list[int]

    def __init__(
        self,
        parametrization: ParametrizationProto | TensorMap,
        rows: int | Sequence[int] = (0,),
        *,
        strict: bool = False,
    ) -> None:
        super().__init__(strict=strict)
        self.map = inner_map(parametrization)
        self.rows = [rows] if isinstance(rows, int) else list(rows)
        self.shape = []
        self.takes_one, self.takes_two = True, False

    def order(self, ndim: int) -> list[int]:
        """The axes of the rows, then those of the columns."""
        rows: list[int] = []
        for axis in self.rows:
            if not -ndim <= axis < ndim or axis % ndim in rows:
                raise ValueError(
                    f"rows={self.rows} are not {len(self.rows)} different axes of a weight with "
                    f"{ndim} dimensions."
                )
            rows.append(axis % ndim)
        return rows + other_axes(rows, ndim)

    def to_matrix(self, X: Tensor) -> Tensor:
        order = self.order(X.ndim)
        m, n = 1, 1
        for i, axis in enumerate(order):
            if i < len(self.rows):
                m *= X.shape[axis]
            else:
                n *= X.shape[axis]
        return X.permute(order).reshape([m, n])

    def from_matrix(self, matrix: Tensor, shape: list[int]) -> Tensor:
        order = self.order(len(shape))
        back = [order.index(axis) for axis in range(len(order))]
        return matrix.reshape([shape[axis] for axis in order]).permute(back)

    def forward(self, X: Tensor, X1: Tensor | None = None, X2: Tensor | None = None) -> Tensor:
        if self.takes_one:
            return self.from_matrix(self.map(self.to_matrix(X)), list(X.shape))
        if self.takes_two:
            assert X1 is not None
            matrix: Tensor = self.map(X, X1)
        else:
            assert X1 is not None
            assert X2 is not None
            matrix = self.map(X, X1, X2)
        return self.from_matrix(matrix, self.shape)

    def right_inverse(self, Y: Tensor) -> Any:
        self.admit(Y)
        result = assign_inner(self.map, self.to_matrix(Y))
        self.takes_one, self.takes_two = count_originals(result)
        self.shape = list(Y.shape)
        if not self.takes_one:
            return result
        return self.from_matrix(result, self.shape).contiguous()  # for FSDP

    def movable(self) -> list[Parametrization]:
        return movable_in([self.map])

    def moved(self, *originals: Tensor, steps: int | None = None) -> Move:
        (inner,) = self.movable()
        if not self.takes_one:
            return inner.moved(*originals, steps=steps)
        (matrix,), bases = inner.moved(self.to_matrix(originals[0]), steps=steps)
        return (self.from_matrix(matrix, list(originals[0].shape)),), bases

    def deviation(self, Y: Tensor) -> Tensor:
        """The deviation of the matrix from the constraint of the map."""
        return constraint_of(self.map, self.to_matrix(Y))[0]

    def tolerance(self, Y: Tensor) -> float:
        return constraint_of(self.map, self.to_matrix(Y))[1]

    def extra_repr(self) -> str:
        return f"rows={tuple(self.rows)}" + ", strict=True" * self.strict
