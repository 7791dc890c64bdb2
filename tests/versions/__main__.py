"""Run tests with one version of Python and of torch, and add the result to docs/versions.md.

    python -m tests.versions /path/to/python3.12 2.11.0 [TESTS...]

makes a virtual environment in a temporary folder, which takes several gigabytes and is removed,
installs the package's wheel with this torch and the tools of the tests, and runs the tests, with
warnings as errors. `--env PYTHON` takes the environment of that interpreter instead, in which all
that is needed is installed, and keeps it.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.versions.page import Row, write

ROOT = Path(__file__).resolve().parents[2]
PARTS = (
    "tests/chain",
    "tests/graphs",
    "tests/jit",
    "tests/linalg",
    "tests/models",
    "tests/parametrizations",
    "tests/registration",
    "tests/testing",
    "tests/torch_internals",
    "tests/worlds",
)
"""What is run unless tests are named: what depends on the version."""


def main() -> int:
    options = make_parser().parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build_wheel(folder)
        if options.env is None:
            python = folder / "env" / "bin" / "python"
            run([options.python, "-m", "venv", folder / "env"])
            requirements = [f"{wheel}[test,demo]", f"torch=={options.torch}"]
            run([python, "-m", "pip", "install", "-q", *requirements])
        else:
            python = options.env
            install = [python, "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall"]
            run([*install, wheel])
        versions = ask(python)
        if versions[1].partition("+")[0] != options.torch:
            raise SystemExit(f"The environment has torch {versions[1]}, not {options.torch}.")
        tests = options.tests or list(PARTS)
        output, code = run_tests(python, tests, options.pytest.split(), folder)
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (\w+)", output.splitlines()[-1])}
    failures = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    date = dt.datetime.now(dt.timezone.utc).date().isoformat()
    words = [re.sub("^tests/", "", test) for test in tests] + options.pytest.split()
    write(Row(*versions, date, " ".join(words), options.note, counts, failures))
    return code


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.versions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("python", help="the interpreter to make an environment with")
    parser.add_argument("torch", help="the version of torch")
    parser.add_argument("tests", nargs="*", help=f"files or folders (default: {' '.join(PARTS)})")
    parser.add_argument("--env", type=Path, help="the interpreter of an environment to use")
    parser.add_argument("--pytest", default="", help="more options of pytest, in one argument")
    parser.add_argument("--note", default="", help="what else the page says of the run")
    return parser


def build_wheel(folder: Path) -> Path:
    """The package's wheel, built from a copy: nothing is left in the checkout."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "paramdesc", source / "paramdesc", ignore=ignored)
    run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, source])
    (wheel,) = folder.glob("*.whl")
    return wheel


def run_tests(python: Path, tests: list[str], options: list[str], cwd: Path) -> tuple[str, int]:
    """What pytest prints, and its exit status. The wheel is tested, not the checkout."""
    command = [python, "-m", "pytest", "-c", ROOT / "pyproject.toml", "-q", "--tb=short"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*map(str, command), "-p", "no:cacheprovider", *options, *(str(ROOT / x) for x in tests)],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        lines = []
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
    return "".join(lines), process.returncode


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
