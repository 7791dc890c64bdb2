"""Which maps export to ONNX as they are: writes the table in `docs/guide/shipping.md`.

Every conformance case is exported, run in onnxruntime, and compared: `python -m
tests.worlds.onnx_maps`. The tests export a few of them only, since it takes minutes.
"""

from __future__ import annotations

import importlib
import logging
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import paramdesc as P
from tests.parametrizations.all_cases import CASES
from tests.parametrizations.cases.case import Case

__all__ = ["PAGE", "Outcome", "export_case", "rows", "run_onnx"]

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "shipping.md"
BEGIN, END = "<!-- tests.worlds.onnx_maps -->\n", "<!-- end -->\n"
TOLERANCE = 1e-5


class Scaled(nn.Module):
    """A model of one weight, which may be complex or have any shape."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.view_as_real(self.weight) if self.weight.is_complex() else self.weight
        return x * weight


class Outcome(NamedTuple):
    """What came of one case: how far the program is off, or which operation ONNX lacks."""

    error: float | None
    reason: str = ""


def run_onnx(model: nn.Module, x: Tensor) -> Tensor:
    """The output of `model`, exported and run in onnxruntime."""
    runtime: Any = importlib.import_module("onnxruntime")
    program: Any = torch.onnx.export(model, (x,), dynamo=True, verbose=False)
    session = runtime.InferenceSession(program.model_proto.SerializeToString())
    (given,) = session.get_inputs()
    return torch.from_numpy(session.run(None, {given.name: x.numpy()})[0])


def export_case(case: Case) -> Outcome:
    """Export a parametrized model, with originals that are not where they started."""
    torch.manual_seed(0)
    model = Scaled(case.weight())
    P.register_parametrization(model, "weight", case.make(), unsafe=True)
    with torch.no_grad():
        for original in model.parameters():
            original.add_(0.1 * torch.randn_like(original))
        expected = model.eval()(torch.ones(()))
    try:
        found = run_onnx(model, torch.ones_like(expected))
    except Exception as error:
        missing = re.search(r"aten\.(\w+)|prims\.(\w+)", f"{error} {error.__cause__}")
        return Outcome(None, missing[0] if missing else type(error).__name__)
    return Outcome(float((found - expected).abs().max()))


def title_of(case: Case) -> tuple[str, bool]:
    """The map, with the algorithm that it was given, and whether its weight is complex."""
    made = case.make()
    algorithm = getattr(made, "orthogonal_map", None)
    name = type(made).__name__ + ("" if algorithm is None else f'("{algorithm}")')
    return name, case.weight().is_complex()


def rows() -> dict[str, dict[bool, list[Outcome]]]:
    """The outcomes of all cases by map, real and complex ones apart."""
    found: dict[str, dict[bool, list[Outcome]]] = {}
    for name, case in CASES.items():
        title, is_complex = title_of(case)
        outcome = export_case(case)
        print(f"{name}: {outcome}", flush=True)
        found.setdefault(title, {}).setdefault(is_complex, []).append(outcome)
    return found


def cell(outcomes: list[Outcome] | None) -> str:
    if outcomes is None:
        return ""
    failed = [x.reason for x in outcomes if x.error is None]
    if failed:
        return "no" if len(failed) == len(outcomes) else "partly"
    largest = max(x.error for x in outcomes if x.error is not None)
    return "yes" if largest < TOLERANCE else f"yes, within {largest:.0e}"


def table(found: dict[str, dict[bool, list[Outcome]]]) -> str:
    """The table, in the order of the alphabet."""
    lines = ["| parametrization | real | complex |", "|---|---|---|"]
    lines += [
        f"| `{title}` | {cell(kinds.get(False))} | {cell(kinds.get(True))} |"
        for title, kinds in sorted(found.items())
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}{table(rows())}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
