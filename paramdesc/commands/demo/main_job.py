"""The demo from start to end: train, report, draw, save and load again."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import torch
from rich.console import Console

from paramdesc.commands.demo.afterwards import try_all
from paramdesc.commands.demo.data import load
from paramdesc.commands.demo.folder import MODEL, PICTURE
from paramdesc.commands.demo.progress import follow
from paramdesc.commands.demo.report import LEGEND, USES_LEGEND, make_table, make_uses_table
from paramdesc.commands.demo.saving import predicts_as_saved
from paramdesc.commands.demo.training import make_runs, train
from paramdesc.commands.demo.variants import VARIANTS

__all__ = ["run_demo"]

N_REQUESTED = 8


def run_demo(folder: Path, steps: int, duration: str, seed: int) -> bool:
    """Write the picture and the model to `folder`; whether the model loads as it was."""
    start = time.monotonic()
    torch.set_num_threads(1)  # the matrices are too small to be shared among threads
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a name or a line that it cannot encode
    console = Console(highlight=False)
    digits = load()
    console.print(
        f"{len(VARIANTS)} recurrent networks learn to read digits pixel by pixel.\n"
        f"This takes {duration}."
    )
    runs = make_runs(VARIANTS, steps, seed)
    follow(train(runs, digits, steps, seed), runs, steps, console)
    console.print("", make_table(runs), LEGEND, sep="\n")

    with console.status("trying what can be done with the trained models"):
        for run in runs:
            run.uses = try_all(run.variant, run.model, digits.test_images[:N_REQUESTED])
    console.print("", make_uses_table(runs), USES_LEGEND, sep="\n")
    # after the training, because it imports matplotlib
    from paramdesc.commands.demo.picture import save_picture  # noqa: PLC0415

    save_picture(runs, folder / PICTURE)
    same = predicts_as_saved(runs[-1].model, folder / MODEL, digits.test_images)
    console.print(f"\npicture: {folder / PICTURE}\nmodel:   {folder / MODEL}", soft_wrap=True)
    verdict = "predicts exactly the same." if same else "does not predict the same."
    console.print(f"The saved model, loaded again, {verdict}")
    console.print(f"Done in {time.monotonic() - start:.0f} s.")
    return same
