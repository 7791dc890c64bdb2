"""Rejects averages of originals whose base points move: their mean belongs to no base point."""

from __future__ import annotations

from functools import cache
from typing import Any

from torch.nn import Module
from torch.nn.utils import parametrize as torch_engine
from torch.optim.swa_utils import AveragedModel

from paramdesc.chain.bases import movable_map
from paramdesc.errors import AveragedOriginalsError
from paramdesc.torch_internals.functions import stand_in_for

__all__ = ["refuse_averages_of_moving_originals"]


@cache
def refuse_averages_of_moving_originals() -> None:
    """Let `AveragedModel` refuse such models, from now on."""
    stand_in_for(AveragedModel.update_parameters, refuse_moving)


def refuse_moving(own: Any, averaged: AveragedModel, model: Module) -> Any:
    """Raise if a base point in `model` follows the training."""
    for path, chain in model.named_modules():
        if isinstance(chain, torch_engine.ParametrizationList) and is_relative(chain):
            raise AveragedOriginalsError(path.replace(".parametrizations.", "."))
    return NotImplemented


def is_relative(chain: Any) -> bool:
    """Whether the base point of `chain` follows the training."""
    first = movable_map(chain) if hasattr(chain, "maps") else None
    return (
        first is not None
        and first.is_relative()
        and any(x.requires_grad for x in chain.parameters(recurse=False))
    )
