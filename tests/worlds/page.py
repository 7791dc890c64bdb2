"""Trying the cells, and the page with the outcomes."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch.jit._recursive import concrete_type_store
from torch.nn.utils import parametrize

from tests.worlds import (
    checkpointing,
    compiling,
    constraining,
    converting,
    copying,
    exporting,
    scripting,
    tracing,
    transforming,
)
from tests.worlds.checks import WrongError
from tests.worlds.engines import PARAMDESC, TORCH, Engine

__all__ = ["PAGE", "WORLDS", "World", "attempt", "outcomes", "read_page", "torch_version", "write"]

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
GROUPS = (
    scripting,
    tracing,
    compiling,
    checkpointing,
    exporting,
    transforming,
    converting,
    copying,
    constraining,
)
INTRODUCTION = """\
# Compatibility

Does a parametrized model still work when it is compiled, traced, exported, transformed, quantized
or copied? Each line below was tried on a small model, with paramdesc and with
`torch.nn.utils.parametrize`. paramdesc passes {ours} of {total}, torch {theirs}. A number after a
"no" leads to the error, or to what is wrong with the result.

"Yes" means that the outputs are right. Where it applies, the gradients of the trained tensors are
right too, the outputs follow when these tensors change, and the parametrization is evaluated as
often as it should be.

The parametrizations are simple ones, except in the last table. Which ones export to ONNX is listed
in [Compiling, exporting, scripting](guide/shipping.md#onnx). `python -m tests.worlds` writes this
page, here with torch {version}, and a test keeps it true.
"""
LENGTH = 90
"""At how many characters a message is cut."""


@dataclass(frozen=True)
class World:
    """One row of the page: a way to run a model, and the cell that tries it with an engine."""

    group: str
    title: str
    cell: Callable[[Engine], None]

    @property
    def name(self) -> str:
        return f"{self.cell.__module__.rpartition('.')[2]}.{self.cell.__name__}"


def worlds_of(module: ModuleType) -> Iterator[World]:
    """The public functions of a module, in its order; a docstring is what a row is called."""
    for name, cell in vars(module).items():
        if name in module.__all__:
            yield World(str(module.__doc__), str(cell.__doc__), cell)


WORLDS = [world for module in GROUPS for world in worlds_of(module)]


def torch_version() -> str:
    """The release of torch, without the build."""
    return torch.__version__.partition("+")[0]


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Nothing that an earlier cell has left behind in torch, and nothing left behind."""
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        forget_all()
        try:
            yield
        finally:
            forget_all()


def forget_all() -> None:
    torch.compiler.reset()
    parametrize._cache.clear()  # a failure inside `cached` may leave values in it
    parametrize._cache_enabled = 0
    # TorchScript keeps the half-compiled types of what it could not script, and says of the next
    # attempt that its methods are there already
    concrete_type_store.type_store.clear()
    concrete_type_store.methods_compiled.clear()


def attempt(world: World, engine: Engine) -> None:
    """Run the cell, and raise what it raises."""
    with isolated():
        world.cell(engine)


def outcome(world: World, engine: Engine) -> str:
    """What the page says: yes, or no with the reason."""
    try:
        attempt(world, engine)
    except ModuleNotFoundError:
        raise  # a package that the cell needs
    except WrongError as error:
        return f"no: {error}"
    except Exception as error:
        return f"no: `{type(error).__name__}`: {shortened(str(error))}"
    return "yes"


def shortened(message: str) -> str:
    """The first line that says something, without what differs from run to run."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    # TorchScript says last, after its own traceback, what was raised
    line = lines[-1 if "in the TorchScript interpreter" in lines[0] else 0] if lines else ""
    for pattern, replacement in (
        (r"\x1b\[\d+m", ""),  # colors
        (r"\.___torch_mangle_\d+", ""),  # TorchScript counts the classes of a process
        (r"\b0x[0-9a-f]+", "0x..."),
        (r"(?:/[\w.+-]+){2,}", "..."),
        (r"\b\d{9,}\b", "..."),
    ):
        line = re.sub(pattern, replacement, line)
    line = line.removesuffix(" See:")
    if len(line) > LENGTH:
        line = line[:LENGTH].rpartition(" ")[0] + " ..."
    return re.sub(r"([\\|<>*_`\[\]])", r"\\\1", line)


def outcomes(world: World) -> tuple[str, str]:
    """The cells of the row: torch's engine and paramdesc."""
    return outcome(world, TORCH), outcome(world, PARAMDESC)


def write(rows: dict[World, tuple[str, str]]) -> str:
    """The page, as Markdown, from the outcomes with torch's engine and with paramdesc."""
    total, theirs, ours = len(rows), *(sum(x[i] == "yes" for x in rows.values()) for i in (0, 1))
    parts = [INTRODUCTION.format(version=torch_version(), total=total, theirs=theirs, ours=ours)]
    reasons: dict[str, int] = {}  # with the numbers of their footnotes
    for group in dict.fromkeys(world.group for world in rows):
        lines = [f"| | {PARAMDESC.name} | torch |", "|---|---|---|"]
        lines += [
            f"| {world.title} | {cell(ours_of_row, reasons)} | {cell(theirs_of_row, reasons)} |"
            for world, (theirs_of_row, ours_of_row) in rows.items()
            if world.group == group
        ]
        parts.append(f"## {group}\n\n" + "\n".join(lines) + "\n")
    parts.append("\n".join(f"[^{number}]: {reason}" for reason, number in reasons.items()) + "\n")
    return "\n".join(parts)


def cell(found: str, reasons: dict[str, int]) -> str:
    """What a table says of an outcome: yes, or no with the number of the reason."""
    answer, _, reason = found.partition(": ")
    return f"{answer}[^{reasons.setdefault(reason, len(reasons) + 1)}]" if reason else answer


def read_page(text: str) -> tuple[str, dict[tuple[str, str], tuple[str, str]]]:
    """The version of torch that the page was written with, and the outcomes by group and title."""
    version = re.search(r"with torch ([\d.]+\d)", text)
    reasons = dict(re.findall(r"^\[\^(\d+)\]: (.*)$", text, re.MULTILINE))
    rows: dict[tuple[str, str], tuple[str, str]] = {}
    group = ""
    for line in text.splitlines():
        if line.startswith("## "):
            group = line[3:]
        elif line.startswith("| ") and not line.startswith("| |"):
            title, *cells = re.split(r" (?<!\\)\| ", line[2:-2])
            ours, theirs = (
                re.sub(r"\[\^(\d+)\]", lambda number: f": {reasons[number[1]]}", text)
                for text in cells
            )
            rows[group, title] = theirs, ours
    return version[1] if version else "", rows
