"""The demo from start to end: train, tell, draw, save and load again."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import torch
from rich.console import Console

from paramdesc.commands.demo.data import load
from paramdesc.commands.demo.folder import MODEL, PICTURE
from paramdesc.commands.demo.picture import save_picture
from paramdesc.commands.demo.progress import follow
from paramdesc.commands.demo.report import LEGEND, make_table
from paramdesc.commands.demo.saving import predicts_as_saved
from paramdesc.commands.demo.training import make_runs, train
from paramdesc.commands.demo.variants import VARIANTS

__all__ = ["run_demo"]


def run_demo(folder: Path, steps: int, seed: int) -> bool:
    """Write the picture and the model to `folder`; whether the model loads as it was."""
    start = time.monotonic()
    torch.set_num_threads(1)  # the matrices are too small to be shared among threads
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a name or a line that it cannot encode
    console = Console(highlight=False)
    digits = load()
    console.print(
        f"{len(VARIANTS)} recurrent networks, trained side by side, read "
        f"{len(digits.train_images)} digits pixel by pixel."
    )
    runs = make_runs(VARIANTS, steps, seed)
    follow(train(runs, digits, steps, seed), runs, steps, console)
    console.print("", make_table(runs), LEGEND, sep="\n")

    save_picture(runs, folder / PICTURE)
    same = predicts_as_saved(runs[-1].model, folder / MODEL, digits.test_images)
    console.print(f"\npicture: {folder / PICTURE}\nmodel:   {folder / MODEL}", soft_wrap=True)
    verdict = "predicts exactly the same." if same else "does not predict the same."
    console.print(f"Saved whole and loaded again, the model {verdict}")
    console.print(f"Done in {time.monotonic() - start:.0f} s.")
    return same
