"""A sharded run resumes as the run that was not interrupted: in processes of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch

from tests.chain.resuming import REGISTER
from tests.helpers import ROOT

if not torch.distributed.is_available():
    pytest.skip("needs torch.distributed", allow_module_level=True)

SCRIPT = """
import copy
import sys
import tempfile
import warnings

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions, get_model_state_dict, get_state_dict, set_model_state_dict, set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

from tests.chain.resuming import Run

warnings.simplefilter("ignore")
store = tempfile.mktemp()
dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
mesh = init_device_mesh("cpu", (1,))
wrapper, name = sys.argv[1:]


def sharded(seed):
    run = Run(name, seed=seed)
    if wrapper == "fully_shard":
        for index in (0, 2):
            fully_shard(run.model[index], mesh=mesh)
        fully_shard(run.model, mesh=mesh)
    else:
        run.model = FullyShardedDataParallel(
            run.model, device_id=torch.device("cpu"), use_orig_params=wrapper.endswith("True")
        )
    run.optimizer = torch.optim.Adam(run.model.parameters(), lr=0.05)
    return run


def own_file(run, other):
    folder = tempfile.mkdtemp()
    model, optimizer = get_state_dict(run.model, run.optimizer)
    dcp.save({"model": model, "optimizer": optimizer}, checkpoint_id=folder)
    model, optimizer = get_state_dict(other.model, other.optimizer)
    loaded = {"model": model, "optimizer": optimizer}
    dcp.load(loaded, checkpoint_id=folder)
    set_state_dict(
        other.model, other.optimizer,
        model_state_dict=loaded["model"], optim_state_dict=loaded["optimizer"],
    )


def full_state_dict(run, other):
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    states = get_state_dict(run.model, run.optimizer, options=options)
    model, optimizer = copy.deepcopy(states)
    set_state_dict(
        other.model, other.optimizer,
        model_state_dict=model, optim_state_dict=optimizer, options=options,
    )


for resume in (own_file, full_state_dict):
    run, other = sharded(0), sharded(1)
    run.train(range(20))
    resume(run, other)
    ours, theirs = run.train(range(20, 30)), other.train(range(20, 30))
    assert ours == theirs, (resume.__name__, ours, theirs)
    fresh = sharded(2)
    assert fresh.train(range(20, 30)) != ours
print("resumed")
dist.destroy_process_group()
"""

WRAPPERS = ("fully_shard", "use_orig_params=True", "use_orig_params=False")


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", ["spectral_norm", "SpectralNorm", "ConvolutionSpectralNorm"])
def test_resumed_from_a_distributed_checkpoint(wrapper: str, name: str) -> None:
    assert name in REGISTER
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), wrapper, name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "resumed" in process.stdout
