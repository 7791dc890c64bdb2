"""Elements."""

from .fact import Fact

__all__ = ["FACTS"]

FACTS: tuple[Fact, ...] = (
    Fact(
        "Positive",
        purpose="positive entries, variances",
        formula=r"Y = \log(1 + \exp X)",
        use="For variances, rates, scales and monotone networks.",
        instead=(
            ("Interval", "for an upper bound as well"),
            ("Simplex", "if the entries must also sum to one"),
            ("PositiveDefinite", "for matrices with positive eigenvalues"),
        ),
        replaced="clamped to a little above the bound",
        cost="The softplus and one pass.",
        launches="positive",
        functions=("positive",),
    ),
    Fact(
        "Interval",
        purpose="entries in an interval",
        formula=r"Y = \text{low} + (\text{high} - \text{low})\, \operatorname{sigmoid}(X)",
        use="For entries between two bounds, such as physical constants. Bounds may be tensors.",
        instead=(
            ("UnitInterval", "for the interval from zero to one"),
            ("Positive", "for a lower bound only"),
            ("MaxNorm", "to bound the length of rows instead"),
        ),
        replaced="clamped to a little inside of the bounds",
        cost="The sigmoid and two passes.",
        launches="interval",
        functions=("interval",),
    ),
    Fact(
        "UnitInterval",
        purpose="entries between zero and one",
        formula=r"Y = \operatorname{sigmoid}(X)",
        use="For probabilities, gates and soft masks.",
        instead=(
            ("Interval", "for other bounds"),
            ("Simplex", "for probabilities that sum to one"),
        ),
        replaced="clamped to a little inside of the bounds",
        cost="The sigmoid and two passes.",
        launches="unit interval",
        functions=("unit_interval",),
    ),
    Fact(
        "Simplex",
        purpose="rows that are probability distributions",
        formula=r"y = \operatorname{softmax}(x)",
        use="For transition matrices, mixture weights and attention over fixed slots.",
        instead=(
            ("UnitInterval", "for probabilities that need not sum to one"),
            ("AbsoluteSums", "for signed entries with a bounded sum"),
        ),
        replaced="replaced by the nearest point of the simplex, moved a little towards its center",
        cost="The softmax.",
        launches="simplex",
        functions=("simplex",),
    ),
    Fact(
        "Ordered",
        purpose="increasing rows, thresholds",
        formula=r"y_0 = x_0, \qquad y_i = y_{i-1} + \operatorname{softplus}(x_i)",
        use="For thresholds of ordinal regression, knots of splines and quantiles.",
        instead=(("Positive", "for the increments themselves"),),
        replaced="sorted",
        cost="The softplus, the sum and two passes.",
        launches="ordered",
        functions=("ordered",),
    ),
    Fact(
        "FromDistributions",
        purpose="a constraint of `torch.distributions.constraints`",
        formula=r"Y = \texttt{transform\_to(constraint)}(X)",
        use="For constraints that torch, Pyro or you have registered with `torch.distributions`.",
        instead=(
            ("Positive", "for positive entries: it can be scripted"),
            ("Interval", "for entries in an interval: it can be scripted"),
            ("Simplex", "for distributions: it can be scripted"),
        ),
        replaced="moved inside where a rule for it is known, and refused otherwise",
        launches="distributions, lower Cholesky",
        functions=("constrained",),
        words="Constraints of torch.distributions",
    ),
    Fact(
        "Rounded",
        purpose="numbers of a few bits, with gradients through the rounding",
        formula=r"Y = s \operatorname{round}\left(\frac{X}{s}\right), \qquad"
        r" s = \frac{\max |X|}{2^{\text{bits} - 1} - 1}",
        use="For quantization-aware training: the forward pass sees the rounded weight, the "
        "gradient passes through.",
        instead=(("StraightThrough", "for any other step function"),),
        replaced="rounded",
        cost="Six passes, nine if not symmetric.",
        launches="rounded",
        functions=("rounded",),
        words="Rounded to a few bits",
    ),
    Fact(
        "StraightThrough",
        purpose="any step function, with gradients through it",
        formula=r"Y = f(X), \qquad \frac{\partial Y}{\partial X} := I",
        use="For binary and ternary weights, and other functions whose gradient is zero almost "
        "everywhere.",
        instead=(("Rounded", "for a uniform grid"),),
        replaced="replaced by the value of the function",
        cost="That of the function, and two passes.",
        launches="straight through",
    ),
    Fact(
        "Frozen",
        purpose="entries that are not trained",
        formula=r"Y_{ij} = \begin{cases} \text{value}_{ij} & \text{mask}_{ij} \\"
        r" X_{ij} & \text{otherwise} \end{cases}",
        use="For embeddings with fixed rows, and for fine-tuning part of a weight. Neither weight "
        "decay nor momentum moves the frozen entries.",
        instead=(
            ("Masked", "if the fixed entries are zero"),
            ("LoRA", "for a low-rank update of a frozen weight"),
        ),
        replaced="taken over except for the frozen entries",
        cost="One pass.",
        launches="frozen",
        functions=("frozen",),
    ),
    Fact(
        "Scaled",
        purpose="a trained scale, per tensor or row",
        formula=r"Y = s X",
        use="For a trained gain of a layer, or of each of its outputs.",
        instead=(
            ("ReZero", "for a scale that starts at zero"),
            ("WeightNorm", "if directions are normalized"),
        ),
        cost="One pass.",
        launches="scaled",
        functions=("scaled",),
    ),
    Fact(
        "ReZero",
        purpose="a scale that starts at zero",
        formula=r"Y = s X, \qquad s = 0 \text{ at first}",
        use="For the last layer of a residual branch, so that each block starts as the identity.",
        instead=(("Scaled", "for a scale that starts at one"),),
        cost="One pass.",
        launches="rezero",
        functions=("rezero",),
    ),
)
