"""Orthogonal matrices and spheres."""

from .fact import Fact

__all__ = ["FACTS"]

POLAR = "replaced by the nearest in the Frobenius norm, its polar factor"

FACTS: tuple[Fact, ...] = (
    Fact(
        "Orthogonal",
        purpose="a recurrent weight that preserves norms; orthonormal rows or columns",
        formula=r"Y = B \left(I + \tfrac{1}{2} A\right) \left(I - \tfrac{1}{2} A\right)^{-1},"
        r" \qquad A = \tfrac{1}{2} (X - X^\mathsf{H})",
        use="For recurrent kernels, whose gradients neither vanish nor explode if all singular "
        "values are one, and for any layer that should keep lengths. A matrix is the last two "
        "dimensions: on the kernel of a convolution each `height x width` slice, and on an LSTM "
        "all gates together, which is rarely what you want. The formula is the one of "
        "the default, `cayley`, for a square weight; `B` is the base point.",
        instead=(
            ("SpecialOrthogonal", "for rotations only, of determinant one"),
            ("AlmostOrthogonal", "if singular values may vary within a band"),
            ("Grassmann", "if only the subspace matters"),
            ("OrthogonalConvolution", "for convolutions"),
            ("Flattened", "around it, for the kernel of a convolution as one matrix"),
            ("Stacked", "around it, for each gate of an LSTM or GRU"),
            ("TorchOrthogonal", "to share checkpoints with torch's `orthogonal`"),
            ("SpectralNorm", "if only the largest singular value has to be one"),
        ),
        replaced=POLAR,
        cost="4 products for a square weight (`cayley`). `householder` takes 12 and four "
        "triangular systems, `matrix_exp` 19 and more, `polar` 70.",
        launches="orthogonal, square",
        functions=("orthogonal",),
    ),
    Fact(
        "TorchOrthogonal",
        purpose="an orthogonal weight, with checkpoints compatible with torch's `orthogonal`",
        formula=r"Y = B \exp(A), \qquad"
        r" A = \operatorname{tril}(X) - \operatorname{tril}(X)^\mathsf{H}",
        use="For checkpoints of torch's `orthogonal`: a state dict means the same weight in both. "
        "`orthogonal` registers it. The formula is the one of `matrix_exp`.",
        instead=(("Orthogonal", "without such checkpoints: it is faster"),),
        replaced="replaced by the factor `Q` of its QR decomposition, as in torch",
        launches="torch's matrix_exp",
        words="Orthogonal, with torch's layout",
    ),
    Fact(
        "SpecialOrthogonal",
        purpose="a rotation, with determinant 1",
        formula=r"Y = B \left(I + \tfrac{1}{2} A\right) \left(I - \tfrac{1}{2} A\right)^{-1},"
        r" \qquad \det Y = 1",
        use="For rotations of space or of features, where reflections are not allowed.",
        instead=(
            ("Orthogonal", "if reflections are allowed, or the weight is not square"),
            ("Skew", "for the generator of a rotation"),
        ),
        replaced="replaced by the nearest rotation",
        cost="4 products (`cayley`).",
        launches="special orthogonal",
        functions=("special_orthogonal",),
    ),
    Fact(
        "Grassmann",
        purpose="a trainable subspace",
        formula=r"Y = (2 B + P) \left(I + \tfrac{1}{4} P^\mathsf{H} P\right)^{-1} - B, \qquad"
        r" P = X - B B^\mathsf{H} X",
        use="For projections `Y Yᴴ` and whatever else depends on the subspace alone: training "
        "moves the subspace and never turns the basis within it.",
        instead=(("Orthogonal", "if the basis itself matters"),),
        replaced=POLAR,
        cost="Four products of `n x k` and `k x k` matrices and an inverse of size `k`, forward.",
        launches="grassmann, tall",
        functions=("grassmann",),
    ),
    Fact(
        "AlmostOrthogonal",
        purpose="a layer that nearly preserves norms",
        formula=r"Y = Q F, \qquad F = c I + H \left(I + \frac{H^2}{4 r^2}\right)^{-1}",
        use="For layers that should be well conditioned, with all singular values in a band such "
        "as `[0.9, 1.1]`, but not exactly orthogonal.",
        instead=(
            ("Orthogonal", "for singular values of exactly one, at less cost"),
            ("SpectralNorm", "for an upper bound only"),
        ),
        replaced="moved to the nearest in the band, up to 1 % of the width of the band",
        cost="9 products and a QR decomposition of twice as many rows: the time of about 26 "
        "products.",
        launches="almost orthogonal, square",
        functions=("almost_orthogonal",),
    ),
    Fact(
        "Sphere",
        purpose="unit rows, or a weight of norm 1",
        formula=r"y = r\, \frac{x}{\lVert x \rVert}",
        use="For prototypes, embeddings and classifiers that compare directions.",
        instead=(
            ("Oblique", "for columns instead of rows"),
            ("WeightNorm", "if the lengths are trained as well"),
            ("MaxNorm", "if rows may be shorter"),
        ),
        replaced="replaced by the nearest: each row is divided by its length",
        cost="Two passes over the weight.",
        launches="sphere",
        functions=("sphere",),
    ),
    Fact(
        "Oblique",
        purpose="unit columns",
        formula=r"y = r\, \frac{x}{\lVert x \rVert} \quad\text{for each column}",
        use="For dictionaries and mixing matrices, whose columns are directions.",
        instead=(
            ("Sphere", "for rows, or any other dimension"),
            ("Orthogonal", "if the columns must be orthogonal to each other, too"),
        ),
        replaced="replaced by the nearest: each column is divided by its length",
        cost="Two passes over the weight.",
        launches="oblique",
        functions=("oblique",),
    ),
)
