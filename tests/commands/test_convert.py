"""`python -m paramdesc convert`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import paramdesc as P
from paramdesc.commands.cli import main
from paramdesc.commands.files.dtypes import NAMES
from paramdesc.parametrizations import Orthogonal, SpectralNorm, Symmetric
from tests.commands.checkpoints import make_model, save, values_of

FORMATS = [".pt", ".safetensors"]


def convert(*arguments: object) -> int:
    return main(["convert", *map(str, arguments)])


def load(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("into", FORMATS)
@pytest.mark.parametrize("of", FORMATS)
@pytest.mark.parametrize("target", ["plain", "torch", "weight_g"])
@pytest.mark.parametrize("layout", ["plain", "torch", "weight_g"])
def test_a_model_of_the_other_layout_loads_the_file(
    layout: str, target: str, of: str, into: str, tmp_path: Path
) -> None:
    if layout == "plain":
        target = "plain"
    source = make_model(layout)
    out = tmp_path / f"out{into}"
    assert convert(save(source.state_dict(), tmp_path / f"in{of}"), out, "--to", target) == 0

    model = make_model(target)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.fill_(0.5)
    # safetensors stores no versions, and the old spectral_norm takes none for a very old file
    strict = not (target == "weight_g" and ".safetensors" in (of, into))
    if strict or target != "weight_g":
        model.load_state_dict(load(out), strict=True)
        loaded = values_of(model)
        for name, value in values_of(source).items():
            torch.testing.assert_close(loaded[name], value, msg=name)
    else:
        assert set(load(out)) == set(model.state_dict())


@pytest.mark.parametrize("into", FORMATS)
def test_there_and_back_gives_the_same_numbers(into: str, tmp_path: Path) -> None:
    state_dict = make_model("weight_g").state_dict()
    there, back = tmp_path / f"there{into}", tmp_path / f"back{into}"
    convert(save(state_dict, tmp_path / "in.pt"), there, "--to", "torch")
    convert(there, back, "--to", "weight_g")
    loaded = load(back)
    assert set(loaded) == set(state_dict)
    assert all(torch.equal(loaded[key], value) for key, value in state_dict.items())


def test_tied_tensors_stay_tied(tmp_path: Path) -> None:
    for target in ("plain", "torch"):
        out = tmp_path / f"{target}.pt"
        convert(save(make_model("weight_g").state_dict(), tmp_path / "in.pt"), out, "--to", target)
        loaded = load(out)
        one, other = loaded["embedding.weight"], loaded["head.weight"]
        assert one.data_ptr() == other.data_ptr()
        one[0] = 3
        assert torch.equal(one, other)


def test_tied_layers_with_a_norm_stay_tied(tmp_path: Path) -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    model = nn.Sequential(layer, layer)
    out = tmp_path / "out.pt"
    convert(save(model.state_dict(), tmp_path / "in.pt"), out, "--to", "plain")
    loaded = load(out)
    assert loaded["0.weight"].data_ptr() == loaded["1.weight"].data_ptr()
    torch.testing.assert_close(loaded["1.weight"], layer.weight.detach())


def test_pruned_tensors_become_plain(tmp_path: Path) -> None:
    layer = nn.Linear(4, 3)
    prune.random_unstructured(layer, "weight", 0.5)  # type: ignore[no-untyped-call]
    out = tmp_path / "out.pt"
    convert(save(layer.state_dict(), tmp_path / "in.pt"), out, "--to", "plain")
    assert set(load(out)) == {"weight", "bias"}
    assert torch.equal(load(out)["weight"], layer.weight.detach())


@pytest.mark.parametrize("into", FORMATS)
@pytest.mark.parametrize("dtype", NAMES, ids=str)
def test_tensors_of_each_dtype_are_copied_bit_by_bit(
    dtype: torch.dtype, into: str, tmp_path: Path
) -> None:
    numbers = torch.arange(24 * dtype.itemsize, dtype=torch.uint8)
    if dtype == torch.bool:
        numbers %= 2
    tensor = numbers.view(dtype).reshape(2, 3, 4)
    state_dict = {
        "first": torch.ones(3, dtype=torch.uint8),  # the others are not aligned by themselves
        "whole": tensor,
        "transposed": tensor.transpose(0, 2),
        "part": tensor[1],
        "scalar": tensor[0, 0, 0],
        "empty": tensor[:0],
    }
    out = tmp_path / f"out{into}"
    torch.save(state_dict, tmp_path / "in.pt")
    assert convert(tmp_path / "in.pt", out, "--to", "plain") == 0
    loaded = load(out)
    for key, value in state_dict.items():
        assert loaded[key].shape == value.shape
        assert loaded[key].dtype == value.dtype
        assert bytes_of(loaded[key]) == bytes_of(value)


def bytes_of(tensor: torch.Tensor) -> bytes:
    numbers = tensor.clone(memory_format=torch.contiguous_format).view(-1)
    return bytes(numbers.view(torch.uint8).tolist()) if tensor.numel() else b""


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_values_have_the_dtype_of_the_file(dtype: torch.dtype, tmp_path: Path) -> None:
    model = make_model("torch").to(dtype)
    out = tmp_path / "out.pt"
    convert(save(model.state_dict(), tmp_path / "in.pt"), out, "--to", "plain")
    weight = load(out)["convolution.weight"]
    assert weight.dtype == dtype
    torch.testing.assert_close(weight, values_of(make_model("torch"))["convolution"].to(dtype))


def test_what_is_written_is_as_torch_writes_it(tmp_path: Path) -> None:
    """Sound archive, mappable, aligned, metadata and extra state kept."""
    state_dict = make_model("torch").state_dict()
    state_dict["norm._extra_state"] = {"steps": 3}
    out = tmp_path / "out.pt"
    convert(save(state_dict, tmp_path / "in.pt"), out, "--to", "plain")
    assert zipfile.ZipFile(out).testzip() is None
    loaded = torch.load(out, weights_only=True, mmap=True)
    assert all(
        value.data_ptr() % 64 == 0 for value in loaded.values() if isinstance(value, torch.Tensor)
    )
    assert loaded["norm._extra_state"] == {"steps": 3}
    assert loaded._metadata["norm"]["version"] == 2
    assert not any("parametrizations" in place for place in loaded._metadata)


def test_a_checkpoint_in_a_dictionary_and_one_of_the_old_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state_dict = make_model("torch").state_dict()
    torch.save({"epoch": 3, "model": state_dict}, tmp_path / "nested.pt")
    torch.save(state_dict, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert convert(tmp_path / "nested.pt", tmp_path / "a.pt", "--to", "plain") == 0
    assert "not copied: epoch" in capsys.readouterr().out
    assert convert(tmp_path / "old.pt", tmp_path / "b.pt", "--to", "plain") == 0
    a, b = load(tmp_path / "a.pt"), load(tmp_path / "b.pt")
    assert list(a) == list(b)
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("of", FORMATS)
def test_sharded_checkpoints_become_one_file(of: str, tmp_path: Path) -> None:
    state_dict = dict(make_model("torch").state_dict())
    halves = {"1": list(state_dict)[::2], "2": list(state_dict)[1::2]}
    for name, keys in halves.items():
        save({key: state_dict[key] for key in keys}, tmp_path / f"model-{name}{of}")
    places = {key: f"model-{name}{of}" for name, keys in halves.items() for key in keys}
    index = tmp_path / f"model{of}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    out = tmp_path / "out.safetensors"
    assert convert(index, out, "--to", "plain") == 0
    torch.testing.assert_close(load(out)["linear.weight"], values_of(make_model("torch"))["linear"])


@pytest.mark.parametrize("named", ["../model.pt", "/etc/passwd", "", 3])
def test_an_index_names_files_next_to_it_alone(
    named: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "model.index.json"
    index.write_text(json.dumps({"weight_map": {"weight": named}}))
    assert convert(index, tmp_path / "out.pt", "--to", "plain") == 2
    assert "is not an index of a sharded checkpoint" in capsys.readouterr().err


def test_values_that_need_their_maps_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(6)))
    for layer, make in zip(model, [Orthogonal, *[Symmetric] * 5], strict=True):
        P.register_parametrization(layer, "weight", make())
    path = save(model.state_dict(), tmp_path / "in.pt")
    before = sorted(tmp_path.iterdir())
    assert convert(path, tmp_path / "out.pt", "--to", "plain") == 2
    assert sorted(tmp_path.iterdir()) == before
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "'0.weight'" in error
    assert "paramdesc.plain_state_dict(model.eval())" in error
    assert "'3.weight' and 2 more." in error
    assert convert(path, tmp_path / "out.pt", "--to", "weight_g") == 0
    assert "kept as they are" in capsys.readouterr().out
    assert set(load(tmp_path / "out.pt")) == set(model.state_dict())


class Malicious:
    def __reduce__(self) -> Any:
        return (os.system, ("touch executed",))


@pytest.mark.parametrize("content", [Malicious(), nn.Linear(2, 2), {"model": nn.Linear(2, 2)}])
def test_nothing_in_a_file_is_executed(
    content: object,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, "in.pt")
    assert convert("in.pt", "out.pt", "--to", "plain") == 2
    error = capsys.readouterr().err
    assert "'in.pt' holds more than tensors" in error
    assert 'torch.save(torch.load("in.pt", weights_only=False).state_dict(), "state.pt")' in error
    assert [path.name for path in tmp_path.iterdir()] == ["in.pt"]


def write_text(path: Path) -> None:
    path.write_text("text")


def write_half(path: Path) -> None:
    save(make_model("plain").state_dict(), path)
    path.write_bytes(path.read_bytes()[:-400])


def write_list(path: Path) -> None:
    torch.save([1, 2], path)


def write_several(path: Path) -> None:
    torch.save({"a": {"w": torch.ones(1)}, "b": {"w": torch.ones(1)}}, path)


def write_sparse(path: Path) -> None:
    torch.save({"w": torch.eye(3).to_sparse()}, path)


@pytest.mark.parametrize(
    ("name", "write", "said"),
    [
        ("in.pt", write_text, "is not a torch.save file"),
        ("in.safetensors", write_text, "is not a complete safetensors file"),
        ("in.pt", write_half, "is not a torch.save file"),
        ("in.safetensors", write_half, "is not a complete safetensors file"),
        ("in.pt", write_list, "does not hold a state_dict"),
        ("in.pt", write_several, "holds several state_dicts: 'a', 'b'"),
        ("in.pt", write_sparse, "'w'"),
        ("in.pt", lambda path: None, "No such file"),
        ("in.safetensors", lambda path: None, "No such file"),
        ("in.pt", lambda path: path.mkdir(), "is a folder"),
        ("in.index.json", write_text, "is not an index"),
    ],
)
def test_other_files_are_refused_in_one_line(
    name: str,
    write: Callable[[Path], None],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(tmp_path / name)
    for arguments in (["inspect"], ["convert", str(tmp_path / "out.pt"), "--to", "plain"]):
        assert main([arguments[0], str(tmp_path / name), *arguments[1:]]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.startswith("python -m paramdesc: ")
        assert error.count("\n") == 1
    assert not (tmp_path / "out.pt").exists()


def test_a_file_is_replaced_only_if_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(make_model("torch").state_dict(), tmp_path / "in.pt")
    content = path.read_bytes()
    assert convert(path, path, "--to", "plain") == 2
    assert "exists. Add --force to replace it." in capsys.readouterr().err
    assert path.read_bytes() == content
    assert convert(path, path, "--to", "plain", "--force", "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert "convolution.weight" in load(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "said"), [("out", "does not determine the format"), ("no/out.pt", "does not exist")]
)
def test_names_that_cannot_be_written_are_refused(
    name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(make_model("torch").state_dict(), tmp_path / "in.pt")
    assert convert(path, tmp_path / name, "--to", "plain") == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("into", FORMATS)
@pytest.mark.parametrize(
    ("error", "code"), [(OSError(28, "No space left on device"), 2), (KeyboardInterrupt(), 130)]
)
def test_nothing_is_left_if_writing_fails(
    error: BaseException,
    code: int,
    into: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = save(make_model("torch").state_dict(), tmp_path / "in.pt")
    (tmp_path / f"out{into}").write_text("old")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("paramdesc.commands.progress.Progress.advance", fail)
    assert convert(path, tmp_path / f"out{into}", "--to", "plain", "--force") == code
    assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / f"out{into}").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


def test_what_safetensors_cannot_hold_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for value in ({"steps": 3}, torch.ones(2, dtype=torch.complex128)):
        torch.save({"weight": torch.ones(1), "extra": value}, tmp_path / "in.pt")
        assert convert(tmp_path / "in.pt", tmp_path / "out.safetensors", "--to", "plain") == 2
        assert "safetensors files cannot hold. Write a .pt file." in capsys.readouterr().err
        assert convert(tmp_path / "in.pt", tmp_path / "out.pt", "--to", "plain", "--force") == 0


def test_two_layouts_of_one_tensor_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ones = torch.ones(2, 2)
    keys = ["w", "parametrizations.w.original0", "parametrizations.w.original1"]
    torch.save(dict.fromkeys(keys, ones), tmp_path / "in.pt")
    assert convert(tmp_path / "in.pt", tmp_path / "out.pt", "--to", "plain") == 2
    assert "'w' is stored twice" in capsys.readouterr().err


def test_safetensors_is_needed_for_its_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state_dict = make_model("torch").state_dict()
    pt, safe = save(state_dict, tmp_path / "in.pt"), save(state_dict, tmp_path / "in.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert convert(pt, tmp_path / "out.safetensors", "--to", "plain") == 0
    assert convert(safe, tmp_path / "out.pt", "--to", "plain") == 2
    assert capsys.readouterr().err.endswith("pip install safetensors\n")


MEASURED = """
import sys, threading
import torch
from paramdesc.commands import convert

def anonymous():  # memory of our own: mapped files belong to the system's cache
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

start = peak = anonymous()
done = threading.Event()

def watch():
    global peak
    while not done.wait(0.001):
        peak = max(peak, anonymous())

watcher = threading.Thread(target=watch)
watcher.start()
code = convert.main(sys.argv[1:])
done.set()
watcher.join()
assert code == 0
print(peak - start)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it reads /proc")
@pytest.mark.parametrize("into", FORMATS)
def test_memory_does_not_grow_with_the_file(into: str, tmp_path: Path) -> None:
    layers = {}
    for i in range(24):  # of 8 MB each
        layers[f"{i}.weight_g"] = torch.ones(1024, 1)
        layers[f"{i}.weight_v"] = torch.ones(1024, 2048)
    torch.save(layers, tmp_path / "in.pt")
    command = [
        sys.executable,
        "-c",
        MEASURED,
        str(tmp_path / "in.pt"),
        str(tmp_path / f"out{into}"),
    ]
    output = subprocess.run(
        [*command, "--to", "plain", "--quiet"], check=True, capture_output=True, text=True
    ).stdout
    assert float(output) < 60, "MB, for a file of 200 MB"
    assert len(load(tmp_path / f"out{into}")) == 24


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    path = save(make_model("torch").state_dict(), tmp_path / "in.pt")
    slow = (
        "import time; from paramdesc.commands.progress import Progress\n"
        "def wait(*_): print('writing', flush=True); time.sleep(60)\n"
        "Progress.advance = wait\n"
        "import runpy; runpy.run_module('paramdesc', run_name='__main__')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", slow, "convert", str(path), str(tmp_path / "out.pt"), "--to=plain"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "python -m paramdesc: interrupted\n")
    assert list(tmp_path.iterdir()) == [path]


def test_a_spectral_norm_whose_bound_is_not_stored_needs_its_map(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = nn.Sequential(nn.Linear(6, 6))
    P.register_parametrization(model[0], "weight", SpectralNorm(0.5))
    path = save(model.state_dict(), tmp_path / "in.pt")
    assert convert(path, tmp_path / "out.pt", "--to", "plain") == 2
    assert "plain_state_dict(model.eval())" in capsys.readouterr().err
    assert convert(path, tmp_path / "out.pt", "--to", "weight_g") == 0
    assert "kept as they are" in capsys.readouterr().out
    assert list(load(tmp_path / "out.pt")) == list(model.state_dict())
