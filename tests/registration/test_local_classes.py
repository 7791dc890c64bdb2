"""Models whose maps are of classes that pickle knows no name for."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from tests.helpers import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:.*is defined inside a function:UserWarning")


def make_local_layer() -> nn.Linear:
    class Local(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.ones(()))

        def forward(self, X: Tensor) -> Tensor:
            return X + self.shift

    return P.register_parametrization(nn.Linear(2, 2), "weight", Local())


def test_a_local_map_loads_in_the_process_that_saved_it() -> None:
    layer = make_local_layer()
    model = nn.Sequential(layer, layer)
    loaded: Any = pickle.loads(pickle.dumps(model))
    torch.testing.assert_close(loaded[0].weight, layer.weight)
    assert loaded[0] is loaded[1]
    assert type(loaded[0].parametrizations.weight[0]) is type(
        layer.get_submodule("parametrizations.weight.0")
    )


def test_saving_a_local_map_says_what_it_is_worth() -> None:
    with pytest.warns(UserWarning, match=r"make_local_layer\.<locals>\.Local.*save the state_dict"):
        pickle.dumps(make_local_layer())


def test_loading_a_local_map_elsewhere_says_what_to_change(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(make_local_layer(), path)
    code = (
        f"import sys; sys.path.append({str(ROOT)!r}); import torch; "
        f"torch.load({str(path)!r}, weights_only=False)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "Define it at the top level of a module and save again." in run.stderr


def test_a_gone_local_class_is_told_too() -> None:
    saved = pickle.dumps(make_local_layer())
    with pytest.raises(pickle.UnpicklingError, match="was defined inside a function"):
        pickle.loads(saved.replace(b":", b";"))
