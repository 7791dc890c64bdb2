"""Several maps as one.

No `from __future__ import annotations`: TorchScript needs the annotations of the class as objects.
"""

from typing import Any

from torch import Tensor, nn

from paramdesc.chain.parametrization import Move, Parametrization
from paramdesc.chain.protocols import ParametrizationProto, TensorMap
from paramdesc.errors import OriginalError
from paramdesc.parametrizations.composition.nested import (
    MovesInner,
    assign_inner,
    constraint_of,
    inner_map,
    movable_in,
)

__all__ = ["Compose", "count_originals"]


class Compose(MovesInner):
    """Apply several maps in turn: `layer.weight` is `maps[-1](... maps[1](maps[0](X)))`.

    Registering the maps one after the other gives the same value. A composition can be used where a
    single map is expected, for example in `Blocks` or `Flattened`. It is registered in one step, so
    the intermediate values need not fit the module.

    Shapes and dtypes are those of the maps. The first map may take up to three originals.
    Assignment and registration call the `right_inverse` of each map, from last to first; these
    determine what happens to a value that does not satisfy the constraint.

    Args:
        maps: at least one map, each a module or a function.
        strict: whether to reject a value that the last map does not reach.

    Raises:
        ValueError: if there are no maps.
        NotImplementedError: on assignment, if a map has no `right_inverse`.

    >>> both = Compose(Symmetric(), torch.matrix_exp)  # symmetric and positive definite
    >>> linear = register_parametrization(torch.nn.Linear(3, 3), "weight", both)
    >>> bool((torch.linalg.eigvalsh(linear.weight) > 0).all())
    True
    """

    __constants__ = ("takes_one", "takes_two")  # TorchScript must not compile the other branches

    constraint = "within reach of the last map"

    def __init__(
        self, *maps: ParametrizationProto | TensorMap | None, strict: bool = False
    ) -> None:
        super().__init__(strict=strict)
        if not maps:
            raise ValueError("Compose takes at least one map.")
        self.first = inner_map(maps[0])
        self.then = nn.ModuleList(inner_map(parametrization) for parametrization in maps[1:])
        self.takes_one, self.takes_two = True, False

    def maps(self) -> list[nn.Module]:
        """The maps, first to last."""
        return [self.first, *self.then]

    def forward(self, X: Tensor, X1: Tensor | None = None, X2: Tensor | None = None) -> Tensor:
        if self.takes_one:
            value: Tensor = self.first(X)
        elif self.takes_two:
            assert X1 is not None
            value = self.first(X, X1)
        else:
            assert X1 is not None
            assert X2 is not None
            value = self.first(X, X1, X2)
        for parametrization in self.then:
            value = parametrization(value)
        return value

    def right_inverse(self, Y: Tensor) -> Any:
        self.admit(Y)
        result: Any = Y
        for parametrization in reversed(self.maps()):
            result = assign_inner(parametrization, result)
        self.takes_one, self.takes_two = count_originals(result)
        return result

    def movable(self) -> list[Parametrization]:
        return movable_in([self.first])

    def moved(self, *originals: Tensor, steps: int | None = None) -> Move:
        return self.movable()[0].moved(*originals, steps=steps)

    def deviation(self, Y: Tensor) -> Tensor:
        """The deviation from the last map's constraint; zero if it reaches every tensor."""
        return constraint_of(self.maps()[-1], Y)[0]

    def tolerance(self, Y: Tensor) -> float:
        return constraint_of(self.maps()[-1], Y)[1]


def count_originals(result: object) -> tuple[bool, bool]:
    """Whether `right_inverse` returned one original, and whether it returned two."""
    if isinstance(result, Tensor):
        return True, False
    count = len(result) if isinstance(result, (list, tuple)) else 0
    if not 1 <= count <= 3:
        raise OriginalError(
            "a map inside another one may have at most three originals. right_inverse returned "
            f"{type(result).__name__} of length {count}."
        )
    return count == 1, count == 2
