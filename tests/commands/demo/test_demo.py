"""The demo: `python -m paramdesc`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import paramdesc
from paramdesc.commands.demo import cli
from paramdesc.commands.demo.afterwards import USES, try_all
from paramdesc.commands.demo.data import load
from paramdesc.commands.demo.folder import MODEL, PICTURE, prepare_folder
from paramdesc.commands.demo.model import Reader
from paramdesc.commands.demo.saving import predicts_as_saved
from paramdesc.commands.demo.training import make_runs, train
from paramdesc.commands.demo.variants import VARIANTS

ENVIRONMENT = {"PYTHONIOENCODING": "utf-8", "PYTHONWARNINGS": "error", "COLUMNS": "60"}
NAMES = [variant.name for variant in VARIANTS]


def start(
    *arguments: str, cwd: Path, before: str = "", **environment: str
) -> subprocess.Popen[str]:
    """`python -m paramdesc` with `arguments`, after the statements `before`."""
    code = f"{before}\nimport runpy; runpy.run_module('paramdesc', run_name='__main__')"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env={**os.environ, **ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def run(*arguments: str, cwd: Path, before: str = "", **environment: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `start`."""
    process = start(*arguments, cwd=cwd, before=before, **environment)
    output, errors = process.communicate(timeout=240)
    return process.returncode, output, errors


def cells_of(output: str) -> dict[str, list[str]]:
    """The rows of both tables by their first cell."""
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines()]
    return {row[0]: row[1:] for row in cells if row}


def rows_of(output: str) -> dict[str, list[float]]:
    """The first table's rows by variant, as numbers."""
    cells = cells_of(output)
    return {name: [float(cell.rstrip("%")) for cell in cells[name]] for name in NAMES}


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the output of a quick run."""
    cwd = tmp_path_factory.mktemp("demo")
    code, output, errors = run("--quick", "--output", "new/folder", "--seed", "3", cwd=cwd)
    assert (code, errors) == (0, "")
    return cwd / "new" / "folder", output


def test_table_has_a_row_for_each_variant(quick: tuple[Path, str]) -> None:
    assert list(cells_of(quick[1])) == [*NAMES, *USES]
    for name, (accuracy, ratio, kernel, norm) in rows_of(quick[1]).items():
        assert accuracy > 15, "it learned more than to guess one digit in ten"
        assert norm < 0.5
        assert ratio == 1 if name == "by hand" else ratio > 0
        assert kernel > 1e-3 if name == "plain" else kernel < 1e-5


def test_what_works_afterwards_was_tried(quick: tuple[Path, str]) -> None:
    cells = cells_of(quick[1])
    plain, _, torch_, ours = zip(*(cells[use] for use in USES), strict=True)
    assert set(plain) == set(ours) == {"yes"}
    assert torch_ == ("no", "no", "yes", "no")


@pytest.mark.parametrize("use", USES)
def test_a_use_that_gives_other_scores_does_not_work(
    use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reader, "forward", lambda _, images: images * torch.rand(()))
    model = VARIANTS[0].make()
    assert not try_all(VARIANTS[0], model, torch.rand(2, 64))[list(USES).index(use)]


def test_the_model_is_unchanged_after_trying(quick: tuple[Path, str]) -> None:
    for variant in VARIANTS:
        model = variant.make()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        try_all(variant, model, torch.rand(2, 64))
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name])


def test_output_fits_into_60_columns_and_has_no_control_characters(
    quick: tuple[Path, str],
) -> None:
    lines = quick[1].splitlines()
    assert max(map(len, lines)) <= 60
    assert all(character.isprintable() for line in lines for character in line)
    assert sum(line.startswith("step ") for line in lines) == 10


def test_a_narrow_output_without_unicode_is_served(tmp_path: Path) -> None:
    code, output, errors = run(
        "--quick", "--output", "é", cwd=tmp_path, COLUMNS="50", PYTHONIOENCODING="ascii"
    )
    assert (code, errors) == (0, "")
    assert output.isascii()
    assert (tmp_path / "é" / PICTURE).exists()


def test_picture_is_saved(quick: tuple[Path, str]) -> None:
    content = (quick[0] / PICTURE).read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 20_000


def test_saved_model_loads_in_another_process_with_its_accuracy(quick: tuple[Path, str]) -> None:
    folder, output = quick
    assert "predicts exactly the same" in output
    model = torch.load(folder / MODEL, weights_only=False)
    assert paramdesc.is_parametrized(model.cell, "weight_hh")
    digits = load()
    with torch.no_grad():
        right = (model(digits.test_images).argmax(dim=1) == digits.test_labels).float().mean()
    assert f"{right.item():.1%}" == f"{rows_of(output)[NAMES[-1]][0]}%"


def test_only_the_results_are_left_in_the_folder(quick: tuple[Path, str]) -> None:
    assert sorted(path.name for path in quick[0].iterdir()) == sorted([PICTURE, MODEL])


def test_a_model_that_loads_differently_is_noticed(tmp_path: Path) -> None:
    images = torch.rand(5, 6)
    assert predicts_as_saved(VARIANTS[-1].make(), tmp_path / MODEL, images)
    assert not predicts_as_saved(Forgetful(), tmp_path / MODEL, images)


class Forgetful(nn.Module):
    """Loads with another factor than it was saved with."""

    factor = 1.0

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state, factor=2.0)

    def forward(self, images: Tensor) -> Tensor:
        return images * self.factor


def test_exit_code_is_1_if_the_model_loads_differently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = iter([False, True])
    monkeypatch.setattr("paramdesc.commands.demo.main_job.run_demo", lambda *_: next(results))
    assert cli.main(["--output", str(tmp_path)]) == 1
    assert cli.main(["--output", str(tmp_path)]) == 0


@pytest.mark.parametrize("below", ["", "below/it"])
def test_a_file_in_the_place_of_the_folder_is_refused_in_one_line(
    tmp_path: Path, below: str
) -> None:
    (tmp_path / "file").touch()
    code, output, errors = run("--quick", "--output", f"file/{below}", cwd=tmp_path)
    assert (code, output) == (2, "")
    assert re.fullmatch(r"python -m paramdesc: cannot write to 'file[/\w]*': [\w ]+\n", errors)


def test_folder_without_write_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_: object) -> None:  # a superuser may write everywhere
        raise PermissionError(13, "Permission denied", str(tmp_path / "tmpx"))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert cli.main(["--output", str(tmp_path)]) == 2
    expected = f"python -m paramdesc: cannot write to {str(tmp_path)!r}: Permission denied\n"
    assert capsys.readouterr().err == expected


def test_results_that_cannot_be_replaced_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / PICTURE).write_text("old")
    prepare_folder(tmp_path)
    assert (tmp_path / PICTURE).read_text() == "old"
    (tmp_path / MODEL).mkdir()
    assert cli.main(["--output", str(tmp_path)]) == 2
    assert f"cannot write to {str(tmp_path / MODEL)!r}: " in capsys.readouterr().err


def test_an_error_while_writing_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill_disk(*_: object) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("paramdesc.commands.demo.main_job.run_demo", fill_disk)
    assert cli.main(["--output", str(tmp_path)]) == 1
    expected = f"python -m paramdesc: cannot write to {str(tmp_path)!r}: No space left on device\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("modules", "named"),
    [
        (["matplotlib"], "matplotlib"),
        (["rich"], "rich"),
        (["sklearn"], "scikit-learn"),
        (["matplotlib", "rich", "sklearn"], "matplotlib and rich and scikit-learn"),
    ],
)
def test_missing_extras_are_named_with_the_command_that_installs_them(
    tmp_path: Path, modules: list[str], named: str
) -> None:
    block = f"import sys; sys.modules.update(dict.fromkeys({modules!r}))"
    code, output, errors = run("--quick", cwd=tmp_path, before=block)
    assert (code, output) == (1, "")
    packages = " ".join(f"'{name}'" for name in named.split(" and "))
    assert errors == f"python -m paramdesc: the demo needs {named}: pip install {packages}\n"
    assert not (tmp_path / "digits").exists()


def test_help_needs_no_extras(tmp_path: Path) -> None:
    block = "import sys; sys.modules.update(matplotlib=None, rich=None, sklearn=None, numpy=None)"
    block = f"import warnings; warnings.simplefilter('ignore'); {block}"  # torch's, on numpy
    code, output, errors = run("--help", cwd=tmp_path, before=block)
    assert (code, errors) == (0, "")
    assert "usage: python -m paramdesc" in output
    for option in ("--quick", "--output FOLDER", "--seed N"):
        assert option in output


def test_the_package_imports_neither_demo_nor_extras() -> None:
    code = (
        "import sys, paramdesc;"
        "extras = {'rich', 'sklearn', 'matplotlib', 'safetensors'};"
        "assert not {'paramdesc.commands', *extras} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("seed", ["-1", "x", "1.5", str(2**32)])
def test_seeds_out_of_range_are_wrong_use(seed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([f"--seed={seed}"])
    assert caught.value.code == 2
    assert f"{seed!r} is not an integer from 0 to 2**32 - 1" in capsys.readouterr().err


def test_interruption_is_one_line(tmp_path: Path) -> None:
    process = start("--quick", "--output", "results", cwd=tmp_path)
    assert process.stdout is not None
    assert any(line.startswith("step ") for line in process.stdout)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "python -m paramdesc: interrupted\n")
    assert list((tmp_path / "results").iterdir()) == []


def test_variants_start_alike_and_stay_alike_for_some_steps() -> None:
    runs = make_runs(VARIANTS, steps=3, seed=1)
    digits = load()
    plain, by_hand, from_torch, ours = [run.model(digits.test_images) for run in runs]
    torch.testing.assert_close(by_hand, plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
    # its power iteration takes fifteen steps from random vectors
    torch.testing.assert_close(from_torch, plain, rtol=0, atol=1e-2)
    for _ in train(runs, digits, steps=3, seed=1):
        pass
    by_hand, _, ours = [run.model(digits.test_images) for run in runs[1:]]
    torch.testing.assert_close(ours, by_hand, rtol=1e-3, atol=1e-3)


def test_the_digits_are_split_alike_with_and_without_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fast = load()
    monkeypatch.setattr("paramdesc.commands.demo.data.FILE", "elsewhere")
    for one, other in zip(fast, load(), strict=True):
        assert torch.equal(one, other)
    assert fast.train_labels.bincount().min() > 4 * 30
    assert fast.test_labels.bincount().min() > 30
