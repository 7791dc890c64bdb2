"""Real architectures with tensors that are parametrized in every way."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as torch_parametrizations
from torch.nn.utils import prune

import paramdesc as P
from paramdesc.parametrizations import (
    LowRank,
    Orthogonal,
    Positive,
    SpectralNorm,
    Symmetric,
    weight_norm,
)
from tests.models.models_to_bake import Attention, Convolutions, LanguageModel, Recurrent

__all__ = ["ARCHITECTURES", "example", "old_spectral_norm", "old_weight_norm"]


def old_weight_norm(module: Any, name: str = "weight") -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(module, name)


def old_spectral_norm(module: Any, name: str = "weight") -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.spectral_norm(module, name)


def attention() -> nn.Module:
    model = Attention()
    P.register_parametrization(model.attention, "in_proj_weight", SpectralNorm(0.9))
    P.register_parametrization(model.attention.out_proj, "weight", Orthogonal())
    P.register_parametrization(model.norm, "weight", Positive())
    torch_parametrizations.weight_norm(model.feed[0])
    old_weight_norm(model.feed[2])
    return model


def convolutions() -> nn.Module:
    model = Convolutions()
    old_spectral_norm(model.first)
    torch_parametrizations.spectral_norm(model.second)
    weight_norm(model.third)
    prune.l1_unstructured(model.last, "weight", 0.5)  # type: ignore[no-untyped-call]
    prune.random_unstructured(model.last, "weight", 0.2)  # type: ignore[no-untyped-call]
    return model


def recurrent() -> nn.Module:
    model = Recurrent()
    P.register_parametrization(model.lstm, "weight_hh_l0", Orthogonal())
    P.register_parametrization(model.lstm, "weight_hh_l1", LowRank(2))
    old_weight_norm(model.gru, "weight_hh_l0")
    return model


def tied() -> nn.Module:
    """Embedding and head share one parametrization."""
    model = LanguageModel()
    P.register_parametrization(model.embedding, "weight", SpectralNorm())
    P.transfer_parametrizations_and_params(model.embedding, model.head)
    P.register_parametrization(model.block[0], "weight", Symmetric())
    return model


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "attention": attention,
    "convolutions": convolutions,
    "LSTM": recurrent,
    "tied language model": tied,
}


def example() -> Tensor:
    """An input for all of them."""
    return torch.randn(2, 7, 8)
