"""All facts, in the families and the order of the library."""

from __future__ import annotations

from . import composition, elements, linear_structure, lipschitz, norms, orthogonal, rank, spectrum
from .fact import Fact

__all__ = ["FACTS", "FAMILIES", "Family"]

Family = tuple[str, tuple[Fact, ...]]

FAMILIES: tuple[Family, ...] = (
    ("Orthogonal matrices and spheres", orthogonal.FACTS),
    ("Norms and means", norms.FACTS),
    ("Lipschitz layers", lipschitz.FACTS),
    ("Rank", rank.FACTS),
    ("Spectrum and determinant", spectrum.FACTS),
    ("Linear and algebraic structure", linear_structure.FACTS),
    ("Entries", elements.FACTS),
    ("Blocks and combinations", composition.FACTS),
)

FACTS = {fact.name: fact for _, facts in FAMILIES for fact in facts}
