"""Copies, files and replicas of models that cache by themselves."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import paramdesc as P
from paramdesc.caching.active import active_scopes
from tests.caching.auto_cache.models import INPUT, assert_same, gradients, original_of, plain, twice
from tests.caching.threads import TIMEOUT
from tests.helpers import ROOT, Double, Exp, linear, saved_and_loaded, train_step

COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": saved_and_loaded,
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_has_the_setting_and_values_of_its_own(name: str) -> None:
    model = twice().eval()
    with torch.no_grad():
        kept = model.layer.weight
        twin = COPIES[name](model)
        assert len(P.auto_cache(twin)) == 0
        Exp.evaluations = 0
        assert twin.layer.weight is not kept
        assert twin.layer.weight is twin.layer.weight
        twin(INPUT)
        assert Exp.evaluations == 1
        original_of(twin).add_(1)
        assert model.layer.weight is kept
        torch.testing.assert_close(twin.layer.weight, kept * torch.e)
    twin.train()(INPUT)
    assert Exp.evaluations == 3
    assert_same(twin)


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_can_be_switched_off_on_its_own(name: str) -> None:
    model = twice().eval()
    twin = COPIES[name](model)
    P.auto_cache(twin, enabled=False)
    with torch.no_grad():
        assert twin.layer.weight is not twin.layer.weight
        assert model.layer.weight is model.layer.weight


def test_a_shallow_copy_shares_the_values() -> None:
    model = twice().eval()
    twin = copy.copy(model)
    with torch.no_grad():
        assert twin.layer.weight is model.layer.weight
        twin(INPUT)
    twin.train()(INPUT)
    assert active_scopes() == ()
    assert Exp.evaluations == 2


def tensors_in_file(model: nn.Module) -> list[int]:
    """The sizes of the tensors in what `torch.save` writes."""
    file = io.BytesIO()
    torch.save(model, file)
    with zipfile.ZipFile(file) as archive:
        return sorted(entry.file_size for entry in archive.infolist() if "/data/" in entry.filename)


def test_no_value_is_saved() -> None:
    model = twice().eval()
    before = pickle.dumps(model)
    with torch.no_grad():
        model(INPUT)
    assert len(P.auto_cache(model)) == 1
    assert pickle.dumps(model) == before
    sizes = sorted(tensor.nbytes for tensor in model.state_dict().values())
    assert tensors_in_file(model) == sizes


def test_the_state_dict_is_that_without_the_setting() -> None:
    model = twice().eval()
    twin = plain(model)
    with torch.no_grad():
        model(INPUT)
    assert list(model.state_dict()) == list(twin.state_dict())
    assert model.state_dict()._metadata == twin.state_dict()._metadata
    twin.load_state_dict(model.state_dict())
    model.load_state_dict(twin.state_dict())


IN_A_FRESH_PROCESS = """
import sys, torch
sys.path.append(sys.argv[2])
model, inputs, outputs = torch.load(sys.argv[1], weights_only=False)
calls, evaluations = [], []
for _ in range(3):  # torch numbers the hooks of a process from zero
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    model.register_forward_hook(lambda *_: calls.append(2))
layer = model[0]
layer.parametrizations.weight[0].register_forward_hook(lambda *_: evaluations.append(1))
with torch.no_grad():
    for _ in range(4):
        assert model(inputs).equal(outputs)
assert len(evaluations) == 1, evaluations
model.train()(inputs).sum().backward()
assert len(evaluations) == 2, evaluations
assert calls == [1, 1, 1, 2, 2, 2] * 5
print("as before")
"""


def test_the_setting_works_in_a_fresh_process(tmp_path: Path) -> None:
    shared = linear(Double())
    model = nn.Sequential(shared, nn.Tanh(), shared).eval()
    P.auto_cache(model)
    with torch.no_grad():
        torch.save((model, INPUT, model(INPUT)), tmp_path / "model.pt")
    command = [sys.executable, "-c", IN_A_FRESH_PROCESS, str(tmp_path / "model.pt"), str(ROOT)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=TIMEOUT
    )
    assert done.stdout == "as before\n", done.stderr


def replicate(module: nn.Module) -> Any:
    """What nn.DataParallel makes of `module` for a device: tensors in the place of parameters."""
    replica: Any = module._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
    for name, child in module._modules.items():
        replica._modules[name] = None if child is None else replicate(child)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            setattr(replica, name, parameter.view_as(parameter))
    for name, buffer in module._buffers.items():
        replica._buffers[name] = buffer
    return replica


@pytest.mark.parametrize("training", [True, False])
def test_replicas_of_data_parallel_keep_nothing_and_are_right(training: bool) -> None:
    model = twice().train(training)
    twin = plain(model)
    expected = gradients(twin, twin(INPUT))
    for _ in range(2):
        replica = replicate(model)
        output = replica(INPUT)
        assert active_scopes() == ()
        torch.testing.assert_close(gradients(model, output), expected)
    with torch.no_grad():
        model.eval()
        train_step(model.layer)
        replica = replicate(model)
        torch.testing.assert_close(replica(INPUT), plain(model)(INPUT))
        assert replica.layer.weight is not replica.layer.weight
