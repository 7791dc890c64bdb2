"""Composition."""

from .fact import Fact

__all__ = ["FACTS"]

FACTS: tuple[Fact, ...] = (
    Fact(
        "Compose",
        purpose="several parametrizations where one is expected",
        formula=r"Y = f_k(\dots f_2(f_1(X)))",
        use="For several maps as one, inside `Blocks` or `Flattened`, or to register in one step.",
        instead=(("register_parametrization", "called once for each map, which does the same"),),
        replaced="passed through the `right_inverse` of each map, from the last to the first",
        cost="That of the maps.",
        launches="compose",
    ),
    Fact(
        "Blocks",
        purpose="a different parametrization for each block",
        formula=r"Y = \begin{bmatrix} f_1(X_1) \\ \vdots \\ f_k(X_k) \end{bmatrix}",
        use="For the gates of an LSTM, the heads of attention, or experts, each with a map of its "
        "own.",
        instead=(("Stacked", "if all blocks have one size and one map: it is faster"),),
        replaced="passed through the `right_inverse` of each map, block by block",
        cost="That of the maps, and one copy.",
        launches="blocks",
    ),
    Fact(
        "Stacked",
        purpose="one parametrization for all equal blocks: gates of an LSTM, heads, experts",
        formula=r"Y = \begin{bmatrix} f(X_1) \\ \vdots \\ f(X_k) \end{bmatrix}",
        use="For the gates of an LSTM or the heads of attention, all in one batched call.",
        instead=(("Blocks", "for blocks of several sizes, or with different maps"),),
        replaced="passed through the `right_inverse` of the map, as a batch",
        cost="That of the map, and one copy where `dim` is not 0.",
        launches="stacked",
    ),
    Fact(
        "Flattened",
        purpose="a parametrization of matrices on a convolution",
        formula=r"Y = \operatorname{unflatten}(f(\operatorname{flatten}(X)))",
        use="For convolutions: the kernel is read as a matrix with a row for each output channel.",
        instead=(
            ("OrthogonalConvolution", "for a convolution that is orthogonal itself"),
            ("ConvolutionSpectralNorm", "for the norm of the convolution itself"),
        ),
        replaced="passed through the `right_inverse` of the map",
        cost="That of the map, and a copy each way where `rows` are not the leading axes.",
        launches="flattened",
    ),
    Fact(
        "joint",
        purpose="one parametrization on several tensors together",
        formula=r"\begin{bmatrix} Y_1 \\ \vdots \\ Y_k \end{bmatrix}"
        r" = f\left(\begin{bmatrix} X_1 \\ \vdots \\ X_k \end{bmatrix}\right)",
        use="For tensors of several layers that satisfy a constraint together, for example "
        "queries and keys that are orthogonal as one matrix.",
        instead=(("Blocks", "for several maps on one tensor"),),
        replaced="passed through the `right_inverse` of the map, by `assign_jointly`",
        cost="That of the whole map for each part that is read.",
        functions=("joint", "assign_jointly"),
        words="Several tensors together",
    ),
    Fact(
        "Transposed",
        purpose="the transpose of another tensor",
        formula=r"Y = X^\mathsf{T}",
        use="With `tie`, for a decoder whose weight is the transpose of the encoder's.",
        instead=(("tie_weights", "to share one parameter between layers without transposing it"),),
        cost="Nothing: the value is a view.",
        functions=("tie",),
        variants=(("a tensor that is computed from another one", "tie"),),
    ),
)
