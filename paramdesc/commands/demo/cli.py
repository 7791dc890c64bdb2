"""The command line of the demo: arguments, and errors in one line."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

from paramdesc.commands.demo.folder import MODEL, PICTURE, prepare_folder
from paramdesc.commands.outcome import FAILED, INTERRUPTED, WRONG_USE, fail

__all__ = ["main"]

EXTRAS = {"matplotlib": "matplotlib", "rich": "rich", "sklearn": "scikit-learn"}
STEPS = 600
QUICK_STEPS = 40


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; the exit code."""
    options = make_parser().parse_args(arguments)
    missing = [package for module, package in EXTRAS.items() if not is_importable(module)]
    if missing:
        return fail(f"{' and '.join(missing)} not found: pip install {' '.join(missing)}", FAILED)
    try:
        prepare_folder(options.output)
    except OSError as error:
        return refuse(error, options.output, WRONG_USE)
    try:
        # it imports the extras, and --help must work without them
        from paramdesc.commands.demo.main_job import run_demo  # noqa: PLC0415

        same = run_demo(options.output, QUICK_STEPS if options.quick else STEPS, options.seed)
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED)
    except OSError as error:
        return refuse(error, options.output, FAILED)
    return 0 if same else FAILED


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m paramdesc [demo]",
        description="Train a recurrent network with an orthogonal kernel and a read-out of "
        "spectral norm one to read handwritten digits pixel by pixel: without maps, with "
        "torch.nn.utils.parametrize and with paramdesc, uncached and cached. Takes one or two "
        "minutes. Prints a table of what the variants reach and cost, and saves a picture of it "
        "and the model.",
        epilog="Other commands: inspect (what a checkpoint file holds), convert (a checkpoint file "
        "in another layout), each with --help of its own; --version.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="few steps: shows that all works, in seconds"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("digits"),
        metavar="FOLDER",
        help=f"where {PICTURE} and {MODEL} go (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=parse_seed,
        default=0,
        metavar="N",
        help="for initial values and batches, from 0 to 2**32 - 1 (default: %(default)s)",
    )
    return parser


def parse_seed(text: str) -> int:
    seed = int(text) if text.isdecimal() else -1
    if not 0 <= seed < 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to 2**32 - 1")
    return seed


def is_importable(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def refuse(error: OSError, folder: Path, code: int) -> int:
    name = Path(error.filename or "").name
    place = folder / name if name in (PICTURE, MODEL) else folder
    return fail(f"cannot write to {str(place)!r}: {error.strerror or error}", code)
