"""Run the tests with one version of Python and of torch, and add the result to the page.

    python -m tests.versions /path/to/python3.12 2.11.0 [TESTS...]

makes a virtual environment in a temporary folder, which takes several gigabytes and is removed,
installs the package's wheel with this torch and the tools of the tests, and runs the tests, with
warnings as errors. With `--in FOLDER`, an environment that exists is used, and kept.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.versions.page import Row, write

ROOT = Path(__file__).resolve().parents[2]
PARTS = (
    "tests/registration",
    "tests/jit",
    "tests/worlds",
    "tests/graphs",
    "tests/testing",
    "tests/chain",
    "tests/parametrizations",
    "tests/models",
    "tests/torch_internals",
    "tests/linalg",
)
"""What is run unless tests are named: what depends on the version."""


def main() -> int:
    options = make_parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        python = options.env
        if python is None:
            python = Path(folder, "env", "bin", "python")
            run([options.python, "-m", "venv", Path(folder, "env")])
            run([python, "-m", "pip", "install", "-q", f"torch=={options.torch}"])
        run([python, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT])
        (wheel,) = Path(folder).glob("*.whl")
        run([python, "-m", "pip", "uninstall", "-q", "-y", "paramdesc"])
        target = f"{wheel}[test,demo]"
        run([python, "-m", "pip", "install", "-q", target, f"torch=={options.torch}"])
        tests = options.tests or PARTS
        paths = [str(ROOT / test) for test in tests]
        command = [
            python,
            "-m",
            "pytest",
            "-c",
            ROOT / "pyproject.toml",
            "-q",
            "-p",
            "no:cacheprovider",
        ]
        result = subprocess.run(
            [*command, "-n", str(options.processes), *paths],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        print(result.stdout[-20_000:])
        python_version, torch_version = ask(python)
    counts = dict[str, int]()
    for count, word in re.findall(r"(\d+) (passed|failed|skipped|error)", result.stdout[-500:]):
        counts[word] = int(count)
    date = dt.datetime.now(dt.timezone.utc).date().isoformat()
    write(Row(python_version, torch_version, date, ", ".join(tests), counts))
    return result.returncode


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.versions", description=__doc__)
    parser.add_argument("python", help="the interpreter")
    parser.add_argument("torch", help="the version of torch")
    parser.add_argument("tests", nargs="*", help=f"files or folders (default: {' '.join(PARTS)})")
    parser.add_argument("--env", type=Path, help="the interpreter of an environment to use")
    parser.add_argument("--processes", type=int, default=2, help="of pytest")
    return parser


def run(command: list[object]) -> None:
    subprocess.run([str(part) for part in command], check=True, stdout=sys.stderr)


def ask(python: Path) -> tuple[str, str]:
    """The versions of Python and torch."""
    code = "import platform, torch; print(platform.python_version(), torch.__version__)"
    output = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    one, other = output.stdout.split()
    return one, other


if __name__ == "__main__":
    sys.exit(main())
