"""Registering on modules that FSDP manages works for single originals in shards, and is refused
otherwise. In processes of their own, since a process group is one for all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
import torch

from tests.helpers import ROOT

if not torch.distributed.is_available():
    pytest.skip("needs torch.distributed", allow_module_level=True)

BEFORE = """
import sys
import tempfile
import warnings

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

import paramdesc as P
from paramdesc.errors import ShardedModuleError
from paramdesc.parametrizations import Symmetric, WeightNorm, weight_norm
from tests.helpers import Double, Shift, linear

dist.init_process_group("gloo", init_method=f"file://{tempfile.mktemp()}", rank=0, world_size=1)
mesh = init_device_mesh("cpu", (1,))
x = torch.randn(2, 8)


def is_refused(change, *args, because=""):
    try:
        change(*args)
    except ShardedModuleError as error:
        assert "then call fully_shard" in str(error)
        assert because in str(error), error
        return True
    return False


def all_have_gradients(model):
    model(x).square().sum().backward()
    return all(p.grad is not None for p in model.parameters())
"""

CASES = {
    "fully_shard, then register": """
layer = nn.Linear(8, 8)
model = fully_shard(nn.Sequential(layer), mesh=mesh)
weight = layer.weight
optimizer = torch.optim.SGD(model.parameters(), 0.1)
before = weight.full_tensor().detach().clone()
P.register_parametrization(layer, "weight", Symmetric())
assert layer.parametrizations.weight.original is weight
torch.testing.assert_close(layer.weight.full_tensor(), (before + before.mT) / 2)
assert all_have_gradients(model)
optimizer.step()
model(x)
assert layer.weight.equal(layer.weight.mT)
assert is_refused(P.remove_parametrizations, layer, "weight")
assert is_refused(P.register_parametrization, layer, "weight", Shift())
P.register_parametrization(layer, "weight", Double())
assert all_have_gradients(model)
""",
    "assigning": """
class Late(Symmetric):
    fails = False

    def forward(self, X):
        if self.fails:
            raise ArithmeticError
        return super().forward(X)

layer = P.register_parametrization(nn.Linear(8, 8), "weight", late := Late())
model = fully_shard(nn.Sequential(layer), mesh=mesh)
for number, reshards in enumerate((True, False, True, False)):
    model(x)  # gathers
    if reshards:
        model.reshard()
    value = torch.eye(8) * (number + 2)
    late.fails = True
    for change in (lambda: setattr(layer, "weight", value), lambda: nn.init.ones_(layer.weight)):
        try:
            change()
        except ArithmeticError:
            pass
        else:
            raise AssertionError
    late.fails = False
    layer.weight = value
    for _ in range(2):
        torch.testing.assert_close(model(x), x @ value + layer.bias)
        torch.testing.assert_close(layer.weight, value)
        model.reshard()
        torch.testing.assert_close(layer.weight.full_tensor(), value)
""",
    "fully_shard, then register what is refused": """
layer = nn.Linear(8, 8)
model = fully_shard(nn.Sequential(layer, nn.Linear(8, 8)), mesh=mesh)
names = [name for name, _ in model.named_parameters()]
assert is_refused(weight_norm, layer, because="would not shard the new Parameters")
assert is_refused(P.register_parametrization, layer, "bias", Shift())
assert is_refused(P.transfer_parametrizations_and_params, linear(n=8), layer)
pattern = {"0.weight": Symmetric, "1.weight": WeightNorm}
assert is_refused(P.parametrize, model, pattern)  # after the first has been put on
assert [name for name, _ in model.named_parameters()] == names
assert all_have_gradients(model)
model(x)
assert is_refused(P.register_parametrization, layer, "bias", Double(), because="module.reshard()")
assert is_refused(P.parametrize, model, pattern)
assert [name for name, _ in model.named_parameters()] == names
assert all_have_gradients(model)
model.reshard()
P.register_parametrization(layer, "bias", Double())
assert all_have_gradients(model)
tied = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
tied[1].weight = tied[0].weight
fully_shard(tied, mesh=mesh)
assert is_refused(P.register_parametrization, tied[0], "weight", Double(), because="as one")
assert all_have_gradients(tied)
""",
    "register, then fully_shard": """
layer = linear(n=8)
model = fully_shard(nn.Sequential(weight_norm(nn.Linear(8, 8)), layer), mesh=mesh)
assert all_have_gradients(model)
assert is_refused(P.remove_parametrizations, layer, "weight")
assert is_refused(P.register_parametrization, layer, "weight", Shift())
P.register_parametrization(layer, "weight", Double())  # a map after it that is not trained
assert all_have_gradients(model)
""",
    "a buffer": """
layer = nn.Linear(8, 8)
layer.register_buffer("mask", torch.ones(8))
fully_shard(layer, mesh=mesh)
P.register_parametrization(layer, "mask", Double())
P.remove_parametrizations(layer, "mask")
assert all_have_gradients(layer)
""",
    "FullyShardedDataParallel": """
warnings.simplefilter("ignore")
for use_orig_params in (True, False):
    layer = nn.Linear(8, 8)
    model = FullyShardedDataParallel(
        nn.Sequential(layer), use_orig_params=use_orig_params, device_id=torch.device("cpu")
    )
    assert is_refused(P.register_parametrization, layer, "weight", Double())
""",
    "tensor parallelism": """
layer = nn.Linear(8, 8)
model = parallelize_module(nn.Sequential(layer), mesh, {"0": ColwiseParallel()})
assert isinstance(layer.weight, DTensor)
before = layer.weight.full_tensor().detach()
P.register_parametrization(layer, "weight", Double())
torch.testing.assert_close(layer.weight.full_tensor(), before)
layer.weight = layer.weight.detach() + 1
torch.testing.assert_close(layer.weight.full_tensor(), before + 1)
assert all_have_gradients(model)
P.remove_parametrizations(layer, "weight")
torch.testing.assert_close(layer.weight.full_tensor(), before + 1)
""",
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_sharding(case: str) -> None:
    code = f"{BEFORE}\n{textwrap.dedent(case)}\ndist.destroy_process_group()\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
