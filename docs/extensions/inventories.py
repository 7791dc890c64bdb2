"""Links to the docs of Python and torch, without asking their sites at a build.

An inventory of each is written from a short list of names, so a build needs no network.
"""

from __future__ import annotations

import zlib
from pathlib import Path

__all__ = ["TORCH_NAMES", "inventories"]

GENERATED = "generated/$.html#$"
TORCH = "https://docs.pytorch.org/docs/stable/"
PYTHON = "https://docs.python.org/3/"

TORCH_NAMES = {
    ("class", GENERATED): (
        "torch.nn.Conv1d",
        "torch.nn.Conv2d",
        "torch.nn.Conv3d",
        "torch.nn.DataParallel",
        "torch.nn.Embedding",
        "torch.nn.GRU",
        "torch.nn.LSTM",
        "torch.nn.Linear",
        "torch.nn.Module",
        "torch.nn.ModuleList",
        "torch.nn.MultiheadAttention",
        "torch.nn.Parameter:torch.nn.parameter.Parameter",
        "torch.nn.RNN",
        "torch.nn.Sequential",
        "torch.nn.modules.module.Module:torch.nn.Module",
        "torch.nn.parallel.DistributedDataParallel",
        "torch.nn.parameter.Parameter",
        "torch.nn.utils.parametrize.ParametrizationList",
    ),
    ("function", GENERATED): (
        "torch.compile",
        "torch.jit.script",
        "torch.jit.trace",
        "torch.load",
        "torch.manual_seed",
        "torch.matrix_exp",
        "torch.nn.utils.parametrizations.orthogonal",
        "torch.nn.utils.parametrizations.spectral_norm",
        "torch.nn.utils.parametrizations.weight_norm",
        "torch.nn.utils.parametrize.cached",
        "torch.nn.utils.parametrize.is_parametrized",
        "torch.nn.utils.parametrize.register_parametrization",
        "torch.nn.utils.parametrize.remove_parametrizations",
        "torch.save",
    ),
    ("class", "tensors.html#$"): ("torch.Tensor",),
    ("class", "optim.html#$"): ("torch.optim.Optimizer",),
    ("class", "tensor_attributes.html#$"): ("torch.device", "torch.dtype"),
}

PYTHON_NAMES = {
    ("class", "library/functions.html#$"): (
        "bool",
        "dict",
        "float",
        "frozenset",
        "int",
        "list",
        "object",
        "set",
        "tuple",
        "type",
    ),
    ("class", "library/stdtypes.html#$"): ("str",),
    ("class", "library/pathlib.html#$"): ("pathlib.Path",),
    ("class", "library/collections.abc.html#$"): (
        "collections.abc.Callable",
        "collections.abc.Iterable",
        "collections.abc.Iterator",
        "collections.abc.Mapping",
        "collections.abc.Sequence",
    ),
    ("exception", "library/exceptions.html#$"): (
        "AttributeError",
        "IndexError",
        "KeyError",
        "NotImplementedError",
        "RuntimeError",
        "TypeError",
        "ValueError",
    ),
    ("function", "library/copy.html#$"): ("copy.copy", "copy.deepcopy"),
    ("module", "library/pickle.html#module-$"): ("pickle",),
}

Names = dict[tuple[str, str], tuple[str, ...]]


def inventories(folder: Path) -> dict[str, tuple[str, str]]:
    """Write both, and what `intersphinx_mapping` needs."""
    folder.mkdir(parents=True, exist_ok=True)
    mapping = {}
    for project, (address, names) in SITES.items():
        path = folder / f"{project}.inv"
        data = as_inventory(project, names)
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
        mapping[project] = (address, str(path))
    return mapping


SITES: dict[str, tuple[str, Names]] = {
    "python": (PYTHON, PYTHON_NAMES),
    "torch": (TORCH, TORCH_NAMES),
}


def as_inventory(project: str, names: Names) -> bytes:
    """An inventory in the second format of Sphinx."""
    header = (
        f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
        "# The remainder of this file is compressed using zlib.\n"
    )
    lines = [
        line(name, role, address) for (role, address), listed in names.items() for name in listed
    ]
    return header.encode() + zlib.compress("".join(lines).encode(), 9)


def line(name: str, role: str, address: str) -> str:
    """One entry. `name:other` is a name that is documented as the other one."""
    name, _, other = name.partition(":")
    return f"{name} py:{role} 1 {address.replace('$', other or name)} -\n"
