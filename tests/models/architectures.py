"""Models as people have them: attention, convolutions, recurrence, a tied language model head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Attention", "LanguageModel", "Recurrent", "convolutions"]


class LanguageModel(nn.Module):
    """Embedding, a block, and a head with the weight of the embedding."""

    def __init__(self, is_tied: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.block = nn.Linear(4, 4)
        self.head = nn.Linear(4, 7, bias=False)
        if is_tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Any:
        return self.head(self.block(self.embed(tokens)))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm = nn.LayerNorm(4)
        self.feed = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Any:
        y = x + self.attention(x, x, x, need_weights=False)[0]
        return y + self.feed(self.norm(y))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, num_layers=2, batch_first=True)
        self.out = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        return self.out(self.lstm(x)[0][:, -1])


def convolutions() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 3, 3),
        nn.Flatten(),
        nn.LazyLinear(5),
    )


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, *inputs: Tensor) -> None:
    """A few steps."""
    for _ in range(3):
        optimizer.zero_grad()
        model(*inputs).square().mean().backward()
        optimizer.step()
