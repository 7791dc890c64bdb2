"""The command line of the demo: arguments, and errors in one line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from paramdesc.commands.demo.folder import MODEL, PICTURE, prepare_folder
from paramdesc.commands.outcome import FAILED, INTERRUPTED, WRONG_USE, fail

__all__ = ["main"]

EXTRAS = {"matplotlib": "matplotlib", "rich": "rich", "sklearn": "scikit-learn"}
STEPS, DURATION = 1_200, "about a minute on two cores"
QUICK_STEPS, QUICK_DURATION = 40, "some ten seconds"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; the exit code."""
    options = make_parser().parse_args(arguments)
    # not imported here: that would take seconds
    missing = [package for module, package in EXTRAS.items() if find_spec(module) is None]
    if missing:
        names, packages = " and ".join(missing), " ".join(f"'{name}'" for name in missing)
        return fail(f"the demo needs {names}: pip install {packages}", FAILED)
    try:
        prepare_folder(options.output)
    except OSError as error:
        return refuse(error, options.output, WRONG_USE)
    try:
        # it imports the extras, and --help must work without them
        from paramdesc.commands.demo.main_job import run_demo  # noqa: PLC0415

        length = (QUICK_STEPS, QUICK_DURATION) if options.quick else (STEPS, DURATION)
        same = run_demo(options.output, *length, options.seed)
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED)
    except OSError as error:
        return refuse(error, options.output, FAILED)
    return 0 if same else FAILED


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m paramdesc [demo]",
        description="Train a recurrent network with an orthogonal kernel and a readout of "
        "spectral norm one to read handwritten digits pixel by pixel. Four variants are compared: "
        "plain, constraints written by hand, torch.nn.utils.parametrizations, and paramdesc. "
        f"Takes {DURATION}. Prints what each variant reaches and costs, and what can be done with "
        "the trained model. Saves a picture and the model.",
        epilog="Other commands: inspect (show what a checkpoint file contains), convert (write a "
        "checkpoint file in another layout), each with its own --help; --version.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="run a few steps, to check the installation"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("digits"),
        metavar="FOLDER",
        help=f"folder for {PICTURE} and {MODEL} (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=parse_seed,
        default=0,
        metavar="N",
        help="seed of initial values and batches, from 0 to 2**32 - 1 (default: %(default)s)",
    )
    return parser


def parse_seed(text: str) -> int:
    seed = int(text) if text.isdecimal() else -1
    if not 0 <= seed < 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from 0 to 2**32 - 1")
    return seed


def refuse(error: OSError, folder: Path, code: int) -> int:
    name = Path(error.filename or "").name
    place = folder / name if name in (PICTURE, MODEL) else folder
    return fail(f"cannot write to {str(place)!r}: {error.strerror or error}", code)
