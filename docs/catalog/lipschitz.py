"""Lipschitz layers."""

from .fact import Fact

__all__ = ["FACTS"]

FACTS: tuple[Fact, ...] = (
    Fact(
        "OrthogonalConvolution",
        purpose="a norm-preserving convolution of any stride and groups, transposed or not",
        formula=r"Y(z) = Q \prod_{\text{axes}} \prod_{i} \left(I - P_i + P_i z\right)",
        use="For deep convolutional networks whose gradients keep their length, and for certified "
        "robustness. `orthogonal_convolution` reads stride and groups from the layer.",
        instead=(
            ("ConvolutionSpectralNorm", "for an upper bound only, at less cost"),
            ("LipschitzRescaled", "for a bound without iterations and without state"),
            ("Orthogonal", "for linear layers and 1 x 1 convolutions"),
        ),
        replaced="replaced by a nearby orthogonal kernel, found by a search",
        cost="12 products of `c x c` matrices for `c` channels and 3 x 3 kernels.",
        launches="orthogonal convolution",
        functions=("orthogonal_convolution",),
    ),
    Fact(
        "LipschitzRescaled",
        purpose="a 1-Lipschitz layer without power iterations",
        formula=r"Y = X D, \qquad d_i = \Big(\sum_j \left|X^\mathsf{H} X\right|_{ij}\Big)^{-1/2}",
        use="For Lipschitz layers whose bound must hold at each step, without a state. It is "
        "closest to its bound at orthogonal weights, so start from one.",
        instead=(
            ("SpectralNorm", "for a norm of exactly one"),
            ("OrthogonalConvolution", "for convolutions that keep lengths"),
            ("LipschitzResidual", "for a residual layer"),
        ),
        replaced="scaled to a value of the map",
        cost="1 product for a matrix, 54 for 3 x 3 kernels.",
        launches="rescaled, matrix",
        functions=("lipschitz_rescaled",),
        words="Lipschitz layers by rescaling",
    ),
    Fact(
        "LipschitzResidual",
        purpose="a 1-Lipschitz residual layer `x - 2 Yᵀ f(Y x + b)`",
        formula=r"x \mapsto x - 2\, Y^\mathsf{T} f(Y x + b), \qquad"
        r" Y = T^{-1/2} X, \quad T_{ii} = \sum_j \left|X X^\mathsf{H}\right|_{ij}"
        r" \frac{q_j}{q_i}",
        use="For residual blocks of Lipschitz networks, with any activation whose slopes lie "
        "between zero and one.",
        instead=(("LipschitzRescaled", "for a layer without the residual connection"),),
        replaced="scaled to a value of the map",
        cost="1 product for a matrix, 54 for 3 x 3 kernels.",
        launches="residual, matrix",
        functions=("lipschitz_residual",),
    ),
    Fact(
        "Bjorck",
        purpose="orthogonal up to a given accuracy, never above norm 1",
        formula=r"Y \leftarrow \tfrac{1}{2}\, Y \left(3 I - Y^\mathsf{H} Y\right)",
        use="To reproduce published Lipschitz networks that use this iteration.",
        instead=(
            ("Orthogonal", "in all other cases: it is faster and exact"),
            ("SpectralNorm", "if only the largest singular value matters"),
        ),
        replaced="replaced by the nearest in the Frobenius norm, its polar factor",
        cost="2 products for each iteration and two for the norm, forward; 16 iterations for "
        "`accuracy=1e-3` and `condition=100` at `n = 64`.",
        launches="bjorck, tall",
        functions=("bjorck",),
        words="Björck orthogonalization",
    ),
    Fact(
        "AbsoluteSums",
        purpose="rows or columns with bounded absolute sums; the maximum norm or 1-norm",
        formula=r"Y = X \min\left(1, \frac{\text{bound}}{\max_i \sum_j |X_{ij}|}\right)",
        use="For layers that are Lipschitz in the maximum norm or the 1-norm. "
        "`operator_norm_inf` and `operator_norm_1` choose the dimensions for a layer; "
        '`by="each"` bounds each row by itself.',
        instead=(
            ("SpectralNorm", "for the Euclidean norm"),
            ("Simplex", "if the entries must be non-negative and sum to one"),
        ),
        replaced='scaled, or with `by="nearest"` replaced by the nearest',
        cost='Two passes; `by="nearest"` sorts each row.',
        launches="absolute sums",
        functions=("operator_norm_inf", "operator_norm_1"),
        words="Bounded absolute sums",
        variants=(
            ("a bound on the operator norm of a layer in the maximum norm", "operator_norm_inf"),
            ("a bound on the operator norm of a layer in the 1-norm", "operator_norm_1"),
        ),
    ),
)
