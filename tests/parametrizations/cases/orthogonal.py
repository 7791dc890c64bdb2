"""Cases of the maps in and around the orthogonal matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from paramdesc.parametrizations.orthogonality.almost_orthogonal import AlmostOrthogonal
from paramdesc.parametrizations.orthogonality.grassmann import Grassmann
from paramdesc.parametrizations.orthogonality.oblique import Oblique
from paramdesc.parametrizations.orthogonality.orthogonal import Orthogonal
from paramdesc.parametrizations.orthogonality.special_orthogonal import SpecialOrthogonal
from paramdesc.parametrizations.orthogonality.sphere import Sphere
from tests.parametrizations.cases.case import Case

__all__ = ["CASES"]


def complex_weight() -> Tensor:
    return torch.randn(4, 3, dtype=torch.complex64)


def small_rotation() -> Tensor:
    """A matrix whose polar factor has no eigenvalue near -1."""
    return torch.eye(4) + 0.2 * torch.randn(4, 4)


def without_base(orthogonal_map: str) -> Case:
    unreachable = "it assigns a matrix with an eigenvalue -1, which is refused without base point"
    return Case(
        lambda: Orthogonal(orthogonal_map, trivialization=False),
        weight=small_rotation,
        without=dict.fromkeys(("special points", "batch", "checkpoint"), unreachable),
    )


CASES: dict[str, Case] = {
    "orthogonal, square": Case(Orthogonal, 4, 4),
    "orthogonal, tall": Case(Orthogonal, 5, 3),
    "orthogonal, wide": Case(Orthogonal, 2, 5),
    "orthogonal, a column": Case(Orthogonal, 4, 1),
    "orthogonal, a number": Case(
        Orthogonal, 1, 1, without={"gradient": "the two numbers 1 and -1 have no tangent"}
    ),
    "orthogonal, batch": Case(Orthogonal, 2, 4, 3),
    "unitary, square": Case(Orthogonal, weight=lambda: torch.randn(3, 3, dtype=torch.complex64)),
    "unitary, tall": Case(Orthogonal, weight=complex_weight),
    "cayley without base": without_base("cayley"),
    "exponential, square": Case(lambda: Orthogonal("matrix_exp"), 4, 4),
    "exponential, tall": Case(lambda: Orthogonal("matrix_exp"), 5, 3),
    "exponential, complex": Case(lambda: Orthogonal("matrix_exp"), weight=complex_weight),
    "exponential without base": without_base("matrix_exp"),
    "householder, square": Case(lambda: Orthogonal("householder"), 4, 4),
    "householder, wide": Case(lambda: Orthogonal("householder"), 3, 5),
    "householder, complex": Case(lambda: Orthogonal("householder"), weight=complex_weight),
    "polar, square": Case(lambda: Orthogonal("polar"), 4, 4),
    "polar, wide": Case(lambda: Orthogonal("polar"), 3, 5),
    "polar, complex": Case(lambda: Orthogonal("polar"), weight=complex_weight),
    "special orthogonal": Case(SpecialOrthogonal, 4, 4),
    "special orthogonal, exponential": Case(lambda: SpecialOrthogonal("matrix_exp"), 3, 3),
    "special orthogonal, householder": Case(lambda: SpecialOrthogonal("householder"), 3, 3),
    "grassmann, tall": Case(Grassmann, 5, 2),
    "grassmann, wide": Case(Grassmann, 2, 4),
    "grassmann, complex": Case(Grassmann, weight=complex_weight),
    "sphere": Case(Sphere, 4, 3),
    "sphere, whole tensor": Case(lambda: Sphere(2.0, None), 3, 4, batch=False),
    "sphere, two dimensions": Case(lambda: Sphere(0.5, (-2, -1)), 4, 3),
    "sphere, complex": Case(Sphere, weight=complex_weight),
    "sphere, vector": Case(Sphere, 5),
    "oblique": Case(Oblique, 4, 3),
    "almost orthogonal, square": Case(lambda: AlmostOrthogonal(0.1), 4, 4),
    "almost orthogonal, tall": Case(lambda: AlmostOrthogonal((0.5, 2.0)), 5, 3),
    "almost orthogonal, wide": Case(lambda: AlmostOrthogonal((0.0, 1.0)), 3, 5),
    "almost orthogonal, complex": Case(lambda: AlmostOrthogonal(0.5), weight=complex_weight),
}
