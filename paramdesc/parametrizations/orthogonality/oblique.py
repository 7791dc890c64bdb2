"""Matrices whose columns have length one."""

from paramdesc.parametrizations.base_point import shown_rebase
from paramdesc.parametrizations.orthogonality.sphere import Sphere

__all__ = ["Oblique"]


class Oblique(Sphere):
    """Give the columns of `layer.weight` length `radius`, by default one.

    Shapes `(*, m, n) -> (*, m, n)`. This is `Sphere` with `dim=-2`: zero columns, dtypes,
    assignment and cost are as described there.

    Args:
        radius: the length, positive.
        rebase: the number of training steps after which the original is reset to the value; None
            for never.
        strict: whether to reject columns of another length instead of scaling them.

    Raises:
        ValueError: as in `Sphere`.

    Source: P.-A. Absil, K. Gallivan, *Joint diagonalization on the oblique manifold for
    independent component analysis*, ICASSP 2006, section 3.

    >>> linear = register_parametrization(torch.nn.Linear(2, 3), "weight", Oblique())
    >>> torch.allclose(linear.weight.norm(dim=0), torch.ones(2))
    True
    """

    constraint = "of columns of the given length"

    def __init__(
        self, radius: float = 1.0, *, rebase: int | None = 50, strict: bool = False
    ) -> None:
        super().__init__(radius, -2, rebase=rebase, strict=strict)

    def extra_repr(self) -> str:
        shown = [f"radius={self.radius}", *shown_rebase(self)]
        return ", ".join(shown + ["strict=True"] * self.strict)
