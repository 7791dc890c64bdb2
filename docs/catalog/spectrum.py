"""Spectrum and determinant."""

from .fact import Fact

__all__ = ["FACTS"]

NEAREST = "replaced by the nearest in the Frobenius norm"

FACTS: tuple[Fact, ...] = (
    Fact(
        "PositiveDefinite",
        purpose="a covariance, a metric",
        formula=r"Y = L L^\mathsf{H} + \text{floor} \cdot I, \qquad L = \operatorname{tril}(X)",
        use="For covariances, precisions and metrics. With `triangular=False` the factor is "
        "square, which trains faster by gradient descent.",
        instead=(
            ("PositiveSemidefinite", "if eigenvalues may be zero, or for low rank"),
            ("Correlation", "for a unit diagonal"),
            ("Gram", "if the original is a set of vectors whose inner products you need"),
        ),
        replaced=f"{NEAREST}: smaller eigenvalues are raised to `floor`",
        cost="3 products.",
        launches="positive definite",
        functions=("positive_definite",),
        variants=(("a covariance that trains faster", "PositiveDefinite(triangular=False)"),),
    ),
    Fact(
        "PositiveSemidefinite",
        purpose="a covariance of low rank",
        formula=r"Y = X X^\mathsf{H}, \qquad X \in \mathbb{C}^{n \times r}",
        use="For covariances and kernels of low rank; with `fixed=True` the rank does not drop.",
        instead=(
            ("PositiveDefinite", "for full rank, with a lower bound of the eigenvalues"),
            ("LowRank", "if the matrix need not be symmetric"),
        ),
        replaced=f"{NEAREST}, of the largest eigenvalues",
        cost="`2 n² r` operations forward, twice that backward.",
        launches="positive semidefinite, of low rank",
        functions=("positive_semidefinite",),
    ),
    Fact(
        "Gram",
        purpose="inner products of given vectors",
        formula=r"Y = X X^\mathsf{H} \quad\text{or}\quad X^\mathsf{H} X",
        use="For similarity matrices of vectors that are the originals themselves.",
        instead=(("PositiveDefinite", "if no eigenvalue may vanish"),),
        replaced=f"{NEAREST}, without the negative eigenvalues",
        cost="3 products.",
        launches="gram",
        functions=("gram",),
    ),
    Fact(
        "Correlation",
        purpose="correlations",
        formula=r"Y = (1 - \text{floor})\, L L^\mathsf{H} + \text{floor} \cdot I, \qquad"
        r" \lVert L_{i} \rVert = 1",
        use="For correlation matrices: positive definite with ones on the diagonal.",
        instead=(("PositiveDefinite", "if variances are trained as well"),),
        replaced="replaced by one close to the nearest, found by alternating projections",
        cost="3 products.",
        launches="correlation",
        functions=("correlation",),
    ),
    Fact(
        "PositiveDeterminant",
        purpose="an invertible matrix, for flows",
        formula=r"Y = P Q B, \qquad P = H^2 + \text{floor} \cdot I,"
        r" \quad Q = \operatorname{cayley}(2 K)",
        use="For layers of normalizing flows, which must stay invertible during training.",
        instead=(
            ("SpecialLinear", "if volume must be kept"),
            ("Triangular", "with `unit=True`, for a cheaper invertible layer"),
            ("Orthogonal", "if lengths must be kept as well"),
        ),
        replaced="replaced by a nearby matrix: one direction is reversed if the determinant is "
        "negative, and small singular values are raised to `floor`",
        cost="9 products, one of them an inverse.",
        launches="positive determinant",
        functions=("positive_determinant",),
    ),
    Fact(
        "SpecialLinear",
        purpose="a volume-preserving matrix, with determinant 1",
        formula=r"Y = P Q B, \qquad P = \frac{H^2 + \text{floor} \cdot m I}"
        r"{\det(H^2 + \text{floor} \cdot m I)^{1/n}}",
        use="For flows and dynamics that keep volume.",
        instead=(
            ("PositiveDeterminant", "if the volume may change"),
            ("SpecialOrthogonal", "if lengths must be kept as well"),
            ("Traceless", "for the generator, in continuous time"),
        ),
        replaced="divided by the root of its determinant, after a negative determinant has been "
        "made positive",
        cost="9 products, one of them an inverse; a factorization for the determinant and an "
        "inverse for its gradient.",
        launches="special linear",
        functions=("special_linear",),
    ),
    Fact(
        "HurwitzStable",
        purpose="a stable linear system `x' = Y x`",
        formula=r"Y = P \left(K - \tfrac{1}{2} I\right) - \text{margin} \cdot I, \qquad"
        r" P = H^2 + \text{floor} \cdot I",
        use="For linear dynamics in continuous time that must decay: all eigenvalues have real "
        "parts below `-margin`.",
        instead=(
            ("SchurStable", "in discrete time, for `x ← Y x`"),
            ("Skew", "if energy is kept rather than lost"),
        ),
        replaced="shifted by a multiple of the identity that makes it stable",
        cost="6 products.",
        launches="hurwitz stable",
        functions=("hurwitz_stable",),
        words="Stable in continuous time",
    ),
    Fact(
        "SchurStable",
        purpose="a stable recurrence `x ← Y x`",
        formula=r"Y = \text{bound}\, (I + A) (I - A)^{-1}, \qquad"
        r" A = P \left(K - \tfrac{1}{2} I\right)",
        use="For recurrent weights and linear dynamics in discrete time that must decay: the "
        "spectral radius is below `bound`.",
        instead=(
            ("HurwitzStable", "in continuous time, for `x' = Y x`"),
            ("SpectralNorm", "if no step may enlarge a vector"),
            ("Normal", "for matrices whose powers cannot grow on the way"),
        ),
        replaced="scaled to the spectral radius `0.99 bound`",
        cost="9 products, one of them an inverse.",
        launches="schur stable",
        functions=("schur_stable",),
        words="Stable in discrete time",
    ),
)
