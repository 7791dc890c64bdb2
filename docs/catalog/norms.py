"""Norms and means."""

from .fact import Fact

__all__ = ["FACTS"]

TWO_PASSES = "Two passes over the weight."

FACTS: tuple[Fact, ...] = (
    Fact(
        "SpectralNorm",
        purpose="a 1-Lipschitz layer, GAN discriminators",
        formula=r"Y = \text{bound} \cdot \frac{X}{\sigma(X)}",
        use="For discriminators and other layers with a Lipschitz constant. With "
        "`only_shrink=True`, `bound` is an upper bound of the norm, and smaller weights stay as "
        "they are. With `tolerance=1e-6`, the norm is this accurate in each training step.",
        instead=(
            ("ConvolutionSpectralNorm", "for the norm of a convolution itself, not of its kernel"),
            ("Orthogonal", "if all singular values have to be one"),
            ("LipschitzRescaled", "for a bound without iterations and without state"),
            ("SchurStable", "if only the spectral radius matters"),
        ),
        replaced="scaled to that norm",
        cost="A few passes: one product of the matrix with a vector, and "
        "`2 n_power_iterations + 1` more in a training step.",
        launches="spectral norm",
        functions=("spectral_norm", "kernel_spectral_norm"),
        variants=(
            ("only an upper bound on the norm", "SpectralNorm(c, only_shrink=True)"),
            ("a 1-Lipschitz convolution with a cheap, loose bound", "kernel_spectral_norm"),
        ),
    ),
    Fact(
        "ConvolutionSpectralNorm",
        purpose="a 1-Lipschitz convolution",
        formula=r"Y = \text{bound} \cdot \frac{X}{\sigma(x \mapsto X * x)}",
        use="For Lipschitz convolutional networks: it bounds the map from images to images, "
        "which may have several times the norm of the kernel read as a matrix.",
        instead=(
            ("SpectralNorm", "for a cheaper bound of the kernel read as a matrix"),
            ("OrthogonalConvolution", "if lengths have to be kept"),
            ("LipschitzRescaled", "for a bound without iterations"),
        ),
        replaced="scaled to that norm",
        cost="One convolution of one image forward and one backward, and "
        "`2 n_power_iterations` more in a training step.",
        launches="convolution norm",
        words="Spectral norm of a convolution",
    ),
    Fact(
        "WeightNorm",
        purpose="separately trained norms and directions of rows",
        formula=r"Y = g\, \frac{v}{\lVert v \rVert}",
        use="For training the length and the direction of each row apart, which often speeds up "
        "convergence.",
        instead=(
            ("Sphere", "if the lengths are fixed"),
            ("Scaled", "for a trained scale without the norm"),
            ("WeightStandardization", "if rows should be centered as well"),
        ),
        cost=TWO_PASSES,
        launches="weight norm",
        functions=("weight_norm",),
    ),
    Fact(
        "FrobeniusNorm",
        purpose="a fixed Frobenius norm",
        formula=r"Y = \text{bound} \cdot \frac{X}{\lVert X \rVert_F}",
        use="For a weight whose overall size is fixed, or bounded with `only_shrink=True`.",
        instead=(
            ("SpectralNorm", "for the largest singular value instead of all of them"),
            ("Sphere", "for the length of each row"),
        ),
        replaced="replaced by the nearest: it is scaled to that norm",
        cost=TWO_PASSES,
        launches="Frobenius norm",
        functions=("frobenius_norm",),
    ),
    Fact(
        "MaxNorm",
        purpose="rows with bounded norm",
        formula=r"y = x \min\left(1, \frac{\text{bound}}{\lVert x \rVert}\right)",
        use="For regularization, also together with dropout: no unit can grow without limit.",
        instead=(
            ("Sphere", "if all rows must have the same length"),
            ("AbsoluteSums", "for sums of absolute values instead of Euclidean lengths"),
        ),
        replaced="replaced by the nearest: longer rows are scaled to the bound",
        cost=TWO_PASSES,
        launches="max norm",
        functions=("max_norm",),
    ),
    Fact(
        "Centered",
        purpose="rows with mean zero",
        formula=r"y = x - \operatorname{mean}(x)",
        use="For layers that should not react to a constant added to all inputs.",
        instead=(("WeightStandardization", "if rows should have variance one as well"),),
        replaced="replaced by the nearest: the mean is subtracted",
        cost=TWO_PASSES,
        launches="centered",
        functions=("centered",),
    ),
    Fact(
        "WeightStandardization",
        purpose="rows with mean zero and variance one",
        formula=r"y = \frac{x - \operatorname{mean}(x)}{\sqrt{\operatorname{var}(x) + \epsilon}}",
        use="For convolutional networks with group normalization and small batches.",
        instead=(
            ("Centered", "if only the mean matters"),
            ("WeightNorm", "for trained lengths"),
        ),
        replaced="replaced by the nearest: each row is standardized",
        cost=TWO_PASSES,
        launches="weight standardization",
        functions=("weight_standardization",),
    ),
)
