"""Adapters of PEFT on parametrized bases."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.errors import AdapterMergeError
from paramdesc.parametrizations import Masked, Orthogonal, orthogonal, spectral_norm

peft = pytest.importorskip("peft", reason="needs peft: the extra `integrations`")

from paramdesc.integrations.peft import bake_for_merge, merge_and_unload

X = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
CONFIGS = {
    "LoRA": lambda: peft.LoraConfig(r=2, target_modules=["a", "b"]),
    "DoRA": lambda: peft.LoraConfig(r=2, target_modules=["a", "b"], use_dora=True),
    "OFT": lambda: peft.OFTConfig(oft_block_size=4, target_modules=["a", "b"]),
    "IA3": lambda: peft.IA3Config(target_modules=["a", "b"], feedforward_modules=["b"]),
}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Any:
        return self.c(self.b(self.a(x).tanh()))


def make() -> Net:
    torch.manual_seed(0)
    model = Net()
    orthogonal(model.a)
    spectral_norm(model.b)
    orthogonal(model.c)
    return model


def train(model: Any) -> Any:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.05)
    for _ in range(5):
        optimizer.zero_grad()
        (model(X) - X).square().mean().backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("name", CONFIGS)
def test_adapters_train_save_and_load(name: str, tmp_path: Path) -> None:
    base = make().eval()(X)
    model = train(peft.get_peft_model(make(), CONFIGS[name]()))
    assert not torch.allclose(model(X), base, atol=1e-3)
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(make(), tmp_path).eval()
    torch.testing.assert_close(loaded(X), model(X))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("call", ["merge_adapter", "merge_and_unload"])
def test_merging_into_parametrized_layers_is_refused(name: str, call: str) -> None:
    model = train(peft.get_peft_model(make(), CONFIGS[name]()))
    before = model(X)
    with pytest.raises(AdapterMergeError, match=r"paramdesc.bake\(model\) first"):
        getattr(model, call)()
    torch.testing.assert_close(model(X), before)


@pytest.mark.parametrize("name", CONFIGS)
def test_merging_is_right_after_baking(name: str) -> None:
    model = train(peft.get_peft_model(make(), CONFIGS[name]()))
    before = model(X)
    merged = merge_and_unload(model)
    torch.testing.assert_close(merged(X), before)
    assert P.get_parametrizations(merged).names() == ["c.weight"]  # it has no adapter


def test_adapters_can_be_merged_and_taken_out_again() -> None:
    model = bake_for_merge(train(peft.get_peft_model(make(), CONFIGS["LoRA"]())))
    before = model(X)
    model.merge_adapter()
    torch.testing.assert_close(model(X), before)
    model.unmerge_adapter()
    torch.testing.assert_close(model(X), before)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_initialisations_that_write_to_the_base_are_refused(init: str) -> None:
    config = peft.LoraConfig(r=2, target_modules=["a"], init_lora_weights=init)
    with pytest.raises(AdapterMergeError, match=f"{init}_init"):
        peft.get_peft_model(make(), config)
    baked = P.bake(make()).model
    before = baked(X)
    torch.testing.assert_close(peft.get_peft_model(baked, config)(X), before, atol=1e-4, rtol=1e-4)


def test_plain_models_are_merged_as_before() -> None:
    torch.manual_seed(0)
    model = train(peft.get_peft_model(Net(), CONFIGS["LoRA"]()))
    before = model(X)
    torch.testing.assert_close(model.merge_and_unload()(X), before)


def test_factors_are_orthogonal_or_sparse() -> None:
    torch.manual_seed(0)
    model = peft.get_peft_model(Net(), CONFIGS["LoRA"]())
    mask = torch.rand(8, 2) < 0.5
    result = P.parametrize(
        model, {"*.lora_A.default.weight": Orthogonal, "*.lora_B.*.weight": lambda: Masked(mask)}
    )
    assert len(result.done) == 4
    train(model)
    A, B = (model.base_model.model.a.get_submodule(f"lora_{x}.default").weight for x in "AB")
    torch.testing.assert_close(A @ A.T, torch.eye(2))
    assert not B[~mask].any()
    assert B[mask].any()
    before = model(X)
    torch.testing.assert_close(model.merge_and_unload()(X), before)


def test_it_works_if_peft_is_imported_later() -> None:
    program = """
from torch import nn
from paramdesc.parametrizations import orthogonal
net = nn.Sequential()
net.a = orthogonal(nn.Linear(4, 4))
import peft
model = peft.get_peft_model(net, peft.LoraConfig(r=2, target_modules=["a"]))
try:
    model.merge_adapter()
except RuntimeError as error:
    print(type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "AdapterMergeError", done.stderr


def test_adalora_needs_baked_layers() -> None:
    """What the page says."""
    config = peft.AdaLoraConfig(target_modules=["a"], total_step=10)
    with pytest.raises(RuntimeError, match="requires_grad"):
        peft.get_peft_model(make(), config)
    base = make()
    P.bake(base, "a.weight")
    torch.testing.assert_close(peft.get_peft_model(base, config)(X), make()(X))
