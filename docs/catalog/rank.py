"""Rank."""

from .fact import Fact

__all__ = ["FACTS"]

SVD = "replaced by the nearest in the Frobenius norm, its truncated singular value decomposition"

FACTS: tuple[Fact, ...] = (
    Fact(
        "LowRank",
        purpose="few parameters, a rank of at most `r`",
        formula=r"Y = X_0 X_1",
        use="For fewer parameters than a full matrix: two thin factors are trained.",
        instead=(
            ("FixedRank", "if the rank must not drop"),
            ("LoRA", "for a low-rank update of a pretrained weight"),
            ("RankOne", "for rank one"),
        ),
        replaced=SVD,
        cost="`2 m n r` operations forward, twice that backward.",
        launches="low rank, tall",
        functions=("low_rank",),
    ),
    Fact(
        "FixedRank",
        purpose="a rank of exactly `r`",
        formula=r"Y = F G, \qquad U^\mathsf{H} F = P Q, \quad G V = I",
        use="For matrix completion and other problems on the manifold of matrices of one rank.",
        instead=(("LowRank", "if the rank may drop: it takes a quarter of the time"),),
        replaced=f"{SVD}, with smaller singular values raised to `floor`",
        cost="`2 m n r` operations and `4 (m + n) r²` more forward, twice that backward.",
        launches="fixed rank, tall",
        functions=("fixed_rank",),
    ),
    Fact(
        "RankOne",
        purpose="an outer product",
        formula=r"Y = u v^\mathsf{T}",
        use="For the fewest parameters that reach every entry of a matrix.",
        instead=(("LowRank", "for higher ranks"),),
        replaced="replaced by the nearest in the Frobenius norm, its leading singular triple",
        cost="Three passes over the weight.",
        launches="rank one",
        functions=("rank_one",),
    ),
    Fact(
        "LoRA",
        purpose="a cheap update of a frozen weight",
        formula=r"Y = X + \frac{\alpha}{r} B A",
        use="For fine-tuning: `lora` freezes the pretrained weight and trains two thin factors, "
        "`merge_lora` turns the result into a plain weight.",
        instead=(
            ("LowRank", "to train a low-rank weight from scratch"),
            ("Frozen", "to train some entries of a weight and keep the others"),
        ),
        cost="`2 m n r` operations and a pass forward, twice the operations backward.",
        launches="lora",
        functions=(
            "lora",
            "merge_lora",
            "unmerge_lora",
            "adapter_state_dict",
            "load_adapters",
        ),
        words="Low-rank adaptation",
    ),
)
