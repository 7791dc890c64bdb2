"""`summary` tells what is there, and changes nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.errors import SelectionError
from paramdesc.parametrizations import LowRank, Orthogonal, SpectralNorm, Symmetric


def encoder(layers: int = 3) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(8, 2, 16)
    model = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
    for block in model.layers:
        P.register_parametrization(block.linear1, "weight", Orthogonal())
        P.register_parametrization(block.self_attn, "in_proj_weight", LowRank(2))
    return model


def test_rows_of_a_transformer() -> None:
    found = P.summary(encoder())
    assert [row.name for row in found][:2] == [
        "layers.0.self_attn.in_proj_weight",
        "layers.0.linear1.weight",
    ]
    row = found["layers.0.self_attn.in_proj_weight"]
    assert row.shape == (24, 8)
    assert row.originals == {"original0": (24, 2), "original1": (2, 8)}
    assert (row.trained, row.plain) == (64, 192)
    assert row.maps == ("LowRank(rank=2)",)
    assert (row.dtype, str(row.device), row.engine) == (torch.float32, "cpu", "paramdesc")
    assert found["layers.2.linear1.weight"].is_satisfied is True
    assert found.trained == 3 * (64 + 128)
    assert found.plain == 3 * (192 + 128)


def test_rows_of_convolutions_and_an_lstm() -> None:
    model = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3), "rnn": nn.LSTM(4, 5)})
    P.register_parametrization(model["conv"], "weight", SpectralNorm(0.9))
    P.register_parametrization(model["rnn"], "weight_hh_l0", nn.Tanh())
    found = P.summary(model)
    assert [(row.name, row.shape) for row in found] == [
        ("conv.weight", (4, 3, 3, 3)),
        ("rnn.weight_hh_l0", (20, 5)),
    ]
    assert found[0].constraint
    assert (found[1].constraint, found[1].deviation, found[1].is_satisfied) == ("", None, None)


def test_selects_and_excludes() -> None:
    model = encoder()
    assert len(P.summary(model, "*.linear1.weight")) == 3
    assert len(P.summary(model, nn.Linear, exclude=["layers.0.*"])) == 2
    assert len(P.summary(model, model.layers[1])) == 2
    with pytest.raises(SelectionError, match="Did you mean"):
        P.summary(model, "layers.0.linear1.wieght")


def test_a_violated_constraint_is_told() -> None:
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", Symmetric())
    P.register_parametrization(layer, "weight", Broken())
    (row,) = P.summary(layer)
    assert row.is_satisfied is False
    assert "not symmetric" in str(P.summary(layer))


class Broken(Symmetric):
    def forward(self, X: Tensor) -> Tensor:
        return X + torch.ones_like(X).triu(1)


def test_nothing_changes() -> None:
    layer = P.register_parametrization(nn.Linear(4, 4), "weight", Noisy())
    P.register_parametrization(layer, "weight", SpectralNorm())
    before = copy.deepcopy(layer.state_dict())
    with torch.no_grad():
        P.chain_of(layer, "weight").original.mul_(2)  # a training step is pending
    before = copy.deepcopy(layer.state_dict())
    random = torch.get_rng_state()
    noisy = P.chain_of(layer, "weight")[0]
    calls = noisy.calls
    with P.cached() as scope:
        P.summary(layer, evaluate=True)
        assert (scope.hits, scope.misses, len(scope)) == (0, 0, 0)
    assert torch.equal(random, torch.get_rng_state())
    assert noisy.calls == calls
    assert noisy.training
    assert all(map(torch.equal, before.values(), layer.state_dict().values()))
    assert list(before) == list(layer.state_dict())


class Noisy(nn.Module):
    calls = 0

    def forward(self, X: Tensor) -> Tensor:
        self.calls += 1
        return X + 0 * torch.rand_like(X)


def test_kept_values_are_told() -> None:
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", Symmetric())
    assert P.summary(layer)[0].kept == ()
    with P.cached(layer):
        assert P.summary(layer)[0].kept == ()
        assert layer.weight is layer.weight
        assert P.summary(layer)[0].kept == ("cached",)
    with torch.no_grad(), P.cached(layer.eval(), persistent=True):
        assert layer.weight is layer.weight
        assert P.summary(layer)[0].kept == ("persistent",)


def test_meta_and_lazy_tensors_are_listed() -> None:
    model = nn.Sequential(nn.Linear(3, 3, device="meta"), nn.LazyLinear(3))
    for layer in model:
        P.register_parametrization(layer, "weight", Symmetric())
    meta, lazy = P.summary(model, evaluate=True)
    assert (meta.shape, str(meta.device), meta.deviation) == ((3, 3), "meta", None)
    assert (lazy.engine, lazy.shape, lazy.maps) == ("pending", None, ("Symmetric()",))
    assert isinstance(model[1].weight, nn.UninitializedParameter)


def test_torch_is_named() -> None:
    (row,) = P.summary(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
    assert (row.engine, row.shape, row.originals) == (
        "torch",
        (2, 3),
        {"original0": (2, 1), "original1": (2, 3)},
    )


def test_frozen_and_large_tensors() -> None:
    layer = P.register_parametrization(nn.Linear(600, 600), "weight", Symmetric())
    layer.requires_grad_(False)
    (row,) = P.summary(layer)
    assert (row.shape, row.frozen, row.trained, row.deviation) == ((600, 600), True, 0, None)
    assert P.summary(layer, evaluate=True)[0].deviation == 0


@pytest.mark.parametrize("width", [60, 80, 120])
def test_fits_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = str(P.summary(encoder(100))).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) < 30
    text = "".join("".join(lines).split())
    assert "in_proj_weight×100" in text or width > 60
    assert "200 parametrized tensors" in lines[-2] + lines[-1]


def test_html_is_escaped_and_scrolls() -> None:
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", Tagged())
    html = P.summary(layer)._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert "overflow-x: auto" in html


class Tagged(nn.Module):
    def extra_repr(self) -> str:
        return "<b>"

    def forward(self, X: Tensor) -> Tensor:
        return X


def test_no_parametrized_tensor() -> None:
    found = P.summary(nn.Linear(2, 2))
    assert (len(found), str(found)) == (0, "0 parametrized tensors")
