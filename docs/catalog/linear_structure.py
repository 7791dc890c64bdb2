"""Linear structure."""

from .fact import Fact

__all__ = ["FACTS"]

PASSES = "A few passes over the matrix."
NEAREST = "replaced by the nearest in the Frobenius norm"

FACTS: tuple[Fact, ...] = (
    Fact(
        "Symmetric",
        purpose="a symmetric matrix",
        formula=r"Y = \operatorname{triu}(X) + \operatorname{triu}(X, 1)^\mathsf{T}",
        use="For weights that stand for a quadratic form, an undirected graph or a gradient flow. "
        "Half of the entries are free.",
        instead=(
            ("Hermitian", "for complex matrices with real eigenvalues"),
            ("PositiveDefinite", "if the eigenvalues must be positive as well"),
            ("Skew", "for the other half of a square matrix, the antisymmetric one"),
        ),
        replaced=f"{NEAREST}: $(A + A^\\mathsf{{T}}) / 2$",
        cost=PASSES,
        launches="symmetric",
        functions=("symmetric",),
    ),
    Fact(
        "Hermitian",
        purpose="a Hermitian matrix",
        formula=r"Y = \operatorname{triu}(X, 1) + \operatorname{triu}(X, 1)^\mathsf{H}"
        r" + \operatorname{Re} \operatorname{diag}(X)",
        use="For complex weights with real eigenvalues, such as observables and complex "
        "quadratic forms.",
        instead=(
            ("Symmetric", "for real matrices, or complex ones without conjugation"),
            ("SkewHermitian", "for generators of unitary matrices"),
        ),
        replaced=f"{NEAREST}: $(A + A^\\mathsf{{H}}) / 2$",
        cost=PASSES,
        launches="hermitian, complex",
        functions=("hermitian",),
    ),
    Fact(
        "Skew",
        purpose="an antisymmetric matrix, so that `x' = Y x` conserves energy",
        formula=r"Y = \operatorname{triu}(X, 1) - \operatorname{triu}(X, 1)^\mathsf{T}",
        use="For linear dynamics that neither gain nor lose energy, and as the generator of "
        "rotations.",
        instead=(
            ("SkewHermitian", "for complex matrices"),
            ("SpecialOrthogonal", "for the rotations themselves"),
            ("HurwitzStable", "for dynamics that lose energy"),
        ),
        replaced=f"{NEAREST}: $(A - A^\\mathsf{{T}}) / 2$",
        cost=PASSES,
        launches="skew",
        functions=("skew",),
        words="Skew-symmetric",
    ),
    Fact(
        "SkewHermitian",
        purpose="a skew-Hermitian matrix, the generator of a unitary one",
        formula=r"Y = \operatorname{triu}(X, 1) - \operatorname{triu}(X, 1)^\mathsf{H}"
        r" + i \operatorname{Im} \operatorname{diag}(X)",
        use="For complex linear dynamics that keep lengths: all eigenvalues are imaginary.",
        instead=(
            ("Skew", "for real matrices"),
            ("Orthogonal", "for the unitary matrices themselves"),
        ),
        replaced=f"{NEAREST}: $(A - A^\\mathsf{{H}}) / 2$",
        cost=PASSES,
        launches="skew-hermitian",
        functions=("skew_hermitian",),
        words="Skew-Hermitian",
    ),
    Fact(
        "Triangular",
        purpose="a triangular matrix, also with unit diagonal; autoregressive layers",
        formula=r"Y = \operatorname{tril}(X) \quad\text{or}\quad \operatorname{triu}(X)",
        use="For layers in which output `i` may depend only on the first `i` inputs, and, with "
        "`unit=True`, for layers that can be inverted by substitution.",
        instead=(
            ("Masked", "for any other pattern of zeros"),
            ("Banded", "if only a few diagonals are free"),
        ),
        replaced=f"{NEAREST}, which drops the other entries",
        cost="One pass over the matrix, three with `unit=True`.",
        launches="lower triangular",
        functions=("triangular",),
    ),
    Fact(
        "Diagonal",
        purpose="a diagonal matrix",
        formula=r"Y_{ij} = \begin{cases} X_{ii} & i = j \\ 0 & \text{otherwise} \end{cases}",
        use="For layers that scale each input by itself, where the code around them expects a "
        "matrix.",
        instead=(
            ("Banded", "if neighbors may interact"),
            ("Scaled", "for a trained scale of each row of a full weight"),
        ),
        replaced=f"{NEAREST}, which drops the other entries",
        cost="One pass over the matrix.",
        launches="diagonal",
        functions=("diagonal",),
    ),
    Fact(
        "Banded",
        purpose="a banded matrix, for example tridiagonal",
        formula=r"Y_{ij} = \begin{cases} X_{ij} & -\text{lower} \le j - i \le \text{upper} \\"
        r" 0 & \text{otherwise} \end{cases}",
        use="For layers on a sequence or a grid in which only neighbors interact, without "
        "sharing weights along the sequence.",
        instead=(
            ("Toeplitz", "if the weights are the same all along the sequence"),
            ("Masked", "for any other pattern of zeros"),
        ),
        replaced=f"{NEAREST}, which drops the other entries",
        cost="Two passes over the matrix.",
        launches="tridiagonal",
        functions=("banded",),
    ),
    Fact(
        "Masked",
        purpose="any pattern of zeros, pruning",
        formula=r"Y_{ij} = \begin{cases} X_{ij} & \text{mask}_{ij} \\"
        r" \text{fill} & \text{otherwise} \end{cases}",
        use="For pruning, and for any fixed pattern of connections. `pruned` makes the mask from "
        "the magnitude of the entries.",
        instead=(
            ("Frozen", "if the fixed entries keep values other than one constant"),
            ("Triangular", "for autoregressive layers"),
        ),
        replaced=f"{NEAREST}, which fills the masked entries",
        cost="One pass over the tensor.",
        launches="masked",
        functions=("masked", "pruned", "magnitude_mask"),
    ),
    Fact(
        "Traceless",
        purpose="a matrix of trace zero",
        formula=r"Y = X - \frac{\operatorname{tr} X}{n} I",
        use="For linear dynamics that keep volume: the generators of matrices of determinant one.",
        instead=(
            ("SpecialLinear", "for the matrices of determinant one themselves"),
            ("Skew", "if lengths must be kept as well"),
        ),
        replaced=NEAREST,
        cost="Two passes over the matrix.",
        launches="traceless",
        functions=("traceless",),
    ),
    Fact(
        "Toeplitz",
        purpose="constant diagonals, convolutions over a sequence",
        formula=r"Y_{ij} = \operatorname{mean} \{ X_{kl} : l - k = j - i \}",
        use="For layers on a sequence that treat every position alike, written as a full matrix.",
        instead=(
            ("Circulant", "for sequences that close to a circle"),
            ("Banded", "if positions differ, but only neighbors interact"),
        ),
        replaced=NEAREST,
        cost=PASSES,
        launches="toeplitz, tall",
        functions=("toeplitz",),
    ),
    Fact(
        "Circulant",
        purpose="a cyclic convolution",
        formula=r"Y_{ij} = c_{(j - i) \bmod n}, \qquad"
        r" c_k = \operatorname{mean} \{ X_{ij} : (j - i) \bmod n = k \}",
        use="For layers on a circle, such as angles or periodic signals: they commute with "
        "cyclic shifts.",
        instead=(
            ("Toeplitz", "for sequences with two ends"),
            ("PermutationEquivariant", "if the order does not matter at all"),
        ),
        replaced=NEAREST,
        cost=PASSES,
        launches="circulant",
        functions=("circulant",),
    ),
    Fact(
        "PermutationEquivariant",
        purpose="a layer on sets",
        formula=r"Y = a I + b\, \mathbf{1} \mathbf{1}^\mathsf{T}",
        use="For layers whose inputs are a set: permuting the inputs permutes the outputs.",
        instead=(("Circulant", "if only shifts of the inputs shall shift the outputs"),),
        replaced=NEAREST,
        cost="Three passes over the matrix.",
        launches="permutation equivariant",
        functions=("permutation_equivariant",),
    ),
    Fact(
        "Hamiltonian",
        purpose="a linear Hamiltonian system",
        formula=r"Y = \tfrac{1}{2} (X + J X^\mathsf{T} J), \qquad"
        r" J = \begin{bmatrix} 0 & I \\ -I & 0 \end{bmatrix}",
        use="For linear dynamics of positions and momenta. `J Y` is symmetric: it is the "
        "quadratic form of the energy.",
        instead=(
            ("Symplectic", "for the flow over a finite time rather than its generator"),
            ("Skew", "for dynamics that keep the Euclidean length"),
        ),
        replaced=NEAREST,
        cost="Three passes over the matrix.",
        launches="hamiltonian",
        functions=("hamiltonian",),
    ),
    Fact(
        "Symplectic",
        purpose="the flow of a Hamiltonian system",
        formula=r"Y = B_0 \begin{bmatrix} I & 0 \\ C & I \end{bmatrix}"
        r" \begin{bmatrix} G & 0 \\ 0 & G^{-\mathsf{T}} \end{bmatrix}"
        r" \begin{bmatrix} I & B \\ 0 & I \end{bmatrix}",
        use="For layers that keep the symplectic form of positions and momenta, and with it "
        "volume.",
        instead=(
            ("Hamiltonian", "for the generator, in continuous time"),
            ("SpecialLinear", "if only volume has to be kept"),
        ),
        replaced="replaced by a nearby symplectic matrix, since the nearest one has no closed form",
        cost="Two products of the size of the weight.",
        launches="symplectic",
        functions=("symplectic",),
    ),
    Fact(
        "Normal",
        purpose="a matrix with orthogonal eigenvectors",
        formula=r"Y = Q D Q^\mathsf{H}",
        use="For recurrent weights whose powers do not grow beyond what their eigenvalues say: "
        "the spectral norm equals the spectral radius.",
        instead=(
            ("Orthogonal", "if all eigenvalues must lie on the unit circle"),
            ("Symmetric", "if all eigenvalues must be real"),
            ("SchurStable", "for stable matrices that need not be normal"),
        ),
        replaced="replaced by a nearby normal matrix, since the nearest one has no closed form",
        cost="One inverse and two products.",
        launches="normal",
        functions=("normal",),
    ),
)
