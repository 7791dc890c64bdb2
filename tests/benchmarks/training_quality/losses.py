"""Losses that several problems share: of curvature about one, and zero at the solution."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["log_likelihood", "matched", "quadratic_form", "regression", "restricted"]


def matched(Y: Tensor, target: Tensor) -> Tensor:
    """Half the squared distance from a target."""
    return (Y - target).square().sum() / 2


def restricted(Y: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Half the squared distance at the known entries, over the share of these."""
    return ((Y - target).square() * mask).sum() / mask.mean() / 2


def regression(Y: Tensor, inputs: Tensor, outputs: Tensor) -> Tensor:
    """Half the mean squared error of a linear layer."""
    return (inputs @ Y.mT - outputs).square().sum() / len(inputs) / 2


def log_likelihood(Y: Tensor, S: Tensor) -> Tensor:
    """The negative log-likelihood of a covariance per sample, less that of the best one, `S`."""
    factor = torch.linalg.cholesky(Y)
    trace = torch.cholesky_solve(S, factor).diagonal().sum()
    determinant = 2 * factor.diagonal().log().sum()
    excess: Tensor = trace + determinant - torch.linalg.slogdet(S)[1] - len(S)
    return excess / 2


def quadratic_form(Y: Tensor, A: Tensor, weights: Tensor, least: Tensor) -> Tensor:
    """`-tr(Yᵀ A Y diag(weights)) / 2`, less the least that it can be."""
    return -((A @ Y) * Y).sum(0) @ weights / 2 - least


Loss = Callable[..., Tensor]
