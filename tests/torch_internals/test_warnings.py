"""The package by itself triggers no warning of torch, whatever the version deprecates."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import copy, pickle, warnings
import torch
from torch import nn

warnings.simplefilter("error")

import paramdesc as P
from paramdesc import jit, models, parametrizations, testing

model = nn.Sequential(nn.Linear(3, 3), nn.Conv2d(2, 2, 3), nn.RNNCell(3, 3))
kinds = {nn.Linear: parametrizations.Orthogonal, nn.Conv2d: parametrizations.SpectralNorm}
P.parametrize(model, kinds)
P.register_parametrization(model[2], "weight_hh", parametrizations.FromDistributions(
    torch.distributions.constraints.positive))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for _ in range(2):
    with P.cached(model):
        (model[0].weight.sum() + model[1].weight.sum() + model[2].weight_hh.sum()).backward()
    optimizer.step()
copy.deepcopy(model).load_state_dict(model.state_dict())
pickle.loads(pickle.dumps(model))
torch.func.functional_call(model[0], {}, torch.ones(1, 3))
P.bake(model, copy=True)
"""


def test_using_the_package_triggers_no_warning() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
