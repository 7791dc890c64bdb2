"""Saving the whole model, and loading it again."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = ["predicts_as_saved"]


@torch.no_grad()
def predicts_as_saved(model: nn.Module, path: Path, images: Tensor) -> bool:
    """Save `model`, the object itself, to `path`; whether what loads gives the same scores."""
    model.eval()
    torch.save(model, path)
    loaded = torch.load(path, weights_only=False)
    return torch.equal(model(images), loaded(images))
