"""Where the papers are that docstrings cite by their title."""

from __future__ import annotations

import re

__all__ = ["LINKS", "linked"]

ARXIV = "https://arxiv.org/abs/"
DOI = "https://doi.org/"

LINKS = {
    "A Schur decomposition for Hamiltonian matrices": f"{DOI}10.1016/0024-3795(81)90002-0",
    "A discussion of the solution for the best rotation to relate two sets of vectors": (
        f"{DOI}10.1107/S0567739478001680"
    ),
    "A simple, randomized algorithm for diagonalizing normal matrices": f"{ARXIV}2405.18399",
    "A unified algebraic perspective on Lipschitz neural networks": f"{ARXIV}2303.03169",
    "Almost-orthogonal layers for efficient general-purpose Lipschitz networks": (
        f"{ARXIV}2208.03160"
    ),
    "An adaptive orthogonal convolution scheme for efficient and flexible CNN architectures": (
        f"{ARXIV}2501.07930"
    ),
    "An iterative algorithm for computing the best estimate of an orthogonal matrix": (
        f"{DOI}10.1137/0708036"
    ),
    "An optimal circulant preconditioner for Toeplitz systems": f"{DOI}10.1137/0909051",
    "Calculating the singular values and pseudo-inverse of a matrix": f"{DOI}10.1137/0702016",
    "Centered weight normalization in accelerating training of deep neural networks": (
        f"{DOI}10.1109/ICCV.2017.305"
    ),
    "Computing a nearest symmetric positive semidefinite matrix": (
        f"{DOI}10.1016/0024-3795(88)90223-6"
    ),
    "Computing the nearest correlation matrix: a problem from finance": (
        f"{DOI}10.1093/imanum/22.3.329"
    ),
    "Deep sets": f"{ARXIV}1703.06114",
    "Dropout: a simple way to prevent neural networks from overfitting": (
        "https://jmlr.org/papers/v15/srivastava14a.html"
    ),
    "Dynamical isometry and a mean field theory of CNNs": f"{ARXIV}1806.05393",
    "Efficient projections onto the l1-ball for learning in high dimensions": (
        f"{DOI}10.1145/1390156.1390191"
    ),
    "Estimating or propagating gradients through stochastic neurons for conditional "
    "computation": f"{ARXIV}1308.3432",
    "Fixed-rank matrix factorizations and Riemannian low-rank optimization": (
        f"{DOI}10.1007/s00180-013-0464-z"
    ),
    "Functions of Matrices": f"{DOI}10.1137/1.9780898717778",
    "Improving point and interval estimators of monotone functions by rearrangement": (
        f"{ARXIV}0704.3686"
    ),
    "Learning both weights and connections for efficient neural networks": f"{ARXIV}1506.02626",
    "Lipschitz-margin training": f"{ARXIV}1802.04034",
    "LoRA: low-rank adaptation of large language models": f"{ARXIV}2106.09685",
    "Micro-batch training with batch-channel normalization and weight standardization": (
        f"{ARXIV}1903.10520"
    ),
    "Optimization Algorithms on Matrix Manifolds": f"{DOI}10.1515/9781400830244",
    "Parametrization of the matrix symplectic group and applications": f"{DOI}10.1137/060678221",
    "Preventing gradient attenuation in Lipschitz constrained convolutional networks": (
        f"{ARXIV}1911.00937"
    ),
    "Quantization and training of neural networks for efficient integer-arithmetic-only "
    "inference": f"{ARXIV}1712.05877",
    "ReZero is all you need: fast convergence at large depth": f"{ARXIV}2003.04887",
    "Regularisation of neural networks by enforcing Lipschitz continuity": f"{ARXIV}1804.04368",
    "Scaling-up diverse orthogonal convolutional networks by a paraunitary framework": (
        f"{ARXIV}2106.09121"
    ),
    "Some metric inequalities in the space of matrices": (
        f"{DOI}10.1090/S0002-9939-1955-0067841-7"
    ),
    "Sorting out Lipschitz function approximation": f"{ARXIV}1811.05381",
    "Spectral normalization for generative adversarial networks": f"{ARXIV}1802.05957",
    "The approximation of one matrix by another of lower rank": f"{DOI}10.1007/BF02288367",
    "The geometry of algorithms with orthogonality constraints": (
        f"{DOI}10.1137/S0895479895290954"
    ),
    "Toeplitz and circulant matrices: a review": f"{DOI}10.1561/0100000006",
    "Trivializations for gradient-based optimization on manifolds": f"{ARXIV}1909.09501",
    "Weight normalization": f"{ARXIV}1602.07868",
    "Weight normalization: a simple reparameterization to accelerate training of deep neural "
    "networks": f"{ARXIV}1602.07868",
}

CITED = re.compile(
    r"\*(" + "|".join(r"\s+".join(map(re.escape, title.split())) for title in LINKS) + r")\*"
)


def linked(text: str) -> str:
    """The same reStructuredText with the titles of papers as links."""

    def link(found: re.Match[str]) -> str:
        return f"`{found[1]} <{LINKS[' '.join(found[1].split())]}>`__"

    return CITED.sub(link, text)
