"""Real architectures, without parametrizations. It does not import paramdesc: see `test_bake`."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Attention", "Convolutions", "LanguageModel", "Recurrent"]


class Attention(nn.Module):
    """A block of self-attention."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.feed = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.attention(x, x, x, need_weights=False)
        return x + self.feed(self.norm(x + y))  # type: ignore[no-any-return]


class Convolutions(nn.Module):
    """A discriminator."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(8, 4, 3)
        self.second = nn.Conv1d(4, 4, 3)
        self.third = nn.ConvTranspose1d(4, 6, 3)
        self.last = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.mT).relu()
        return self.last(self.third(self.second(x).relu()).mT)  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """An LSTM and a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 4, num_layers=2, batch_first=True)
        self.gru = nn.GRU(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(self.lstm(x)[0])[0]  # type: ignore[no-any-return]


class LanguageModel(nn.Module):
    """Its head is to be tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.block = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.head = nn.Linear(8, 11, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = (x.sum(-1).abs() * 3).long() % 11
        return self.head(self.block(self.embedding(tokens)))  # type: ignore[no-any-return]
