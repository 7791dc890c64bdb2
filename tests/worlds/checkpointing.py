"""Activation checkpointing: `torch.utils.checkpoint`"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tests.worlds.case import of_loop
from tests.worlds.engines import Engine

__all__ = [
    "backward_inside",
    "backward_outside",
    "kept_before",
    "not_reentrant",
    "reentrant",
    "reentrant_backward_inside",
    "reentrant_backward_outside",
    "reentrant_kept_before",
]


def check_plain(engine: Engine, use_reentrant: bool) -> None:
    case = of_loop(engine)
    case.check(lambda x: checkpoint(case.model, x, use_reentrant=use_reentrant))


def check_scope(
    engine: Engine, use_reentrant: bool, kept_before: bool = False, backward_inside: bool = False
) -> None:
    """Two checkpoints of one model, so that the second finds what the first has kept."""
    case = of_loop(engine)

    def step(x: Tensor) -> Any:
        with engine.cached(case.model):
            if kept_before:
                case.model(x)
            checkpoint(case.model, x, use_reentrant=use_reentrant)
            y: Any = checkpoint(case.model, x, use_reentrant=use_reentrant)
            if backward_inside:
                y.square().sum().backward()
        if not backward_inside:
            y.square().sum().backward()
        return y

    case.check_step(step)


def not_reentrant(engine: Engine) -> None:
    """`use_reentrant=False`"""
    check_plain(engine, False)


def backward_inside(engine: Engine) -> None:
    """inside `cached`, with the backward pass inside"""
    check_scope(engine, False, backward_inside=True)


def backward_outside(engine: Engine) -> None:
    """inside `cached`, with the backward pass afterwards"""
    check_scope(engine, False)


def kept_before(engine: Engine) -> None:
    """inside `cached`, with a cached weight and the backward pass afterwards"""
    check_scope(engine, False, kept_before=True)


def reentrant(engine: Engine) -> None:
    """`use_reentrant=True`"""
    check_plain(engine, True)


def reentrant_backward_inside(engine: Engine) -> None:
    """reentrant, inside `cached`, with the backward pass inside"""
    check_scope(engine, True, backward_inside=True)


def reentrant_backward_outside(engine: Engine) -> None:
    """reentrant, inside `cached`, with the backward pass afterwards"""
    check_scope(engine, True)


def reentrant_kept_before(engine: Engine) -> None:
    """reentrant, inside `cached`, with a cached weight and the backward pass afterwards"""
    check_scope(engine, True, kept_before=True)
