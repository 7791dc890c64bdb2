"""Hooks run when another library is imported, and nothing imports that library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
sys.path[:0] = {paths!r}
from torch import nn
import paramdesc as P
from paramdesc.parametrizations import Symmetric
layer = P.register_parametrization(nn.Linear(3, 3), "weight", Symmetric())
assert not any(name.startswith(("peft", "paramdesc.integrations")) for name in sys.modules)
from peft.tuners import tuners_utils
class Adapted(tuners_utils.BaseTunerLayer):
    def __init__(self, base):
        self.base = base
    def get_base_layer(self):
        return self.base
    def merge(self):
        return "merged"
print(Adapted(nn.Linear(3, 3)).merge())
try:
    Adapted(layer).merge()
except RuntimeError as error:
    print(type(error).__name__)
"""


def test_layers_of_peft_refuse_to_merge_into_parametrized_tensors(tmp_path: Path) -> None:
    package = tmp_path / "peft" / "tuners"  # a stand-in with the class that matters
    package.mkdir(parents=True)
    (tmp_path / "peft" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "tuners_utils.py").write_text("class BaseTunerLayer:\n    pass\n")
    program = PROGRAM.format(paths=[str(tmp_path)])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["merged", "AdapterMergeError"], done.stderr
