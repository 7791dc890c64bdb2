"""How checkpoints store a parametrized tensor: the keys of each layout, without any model.

Several libraries store the same tensor under other names. A *role* says what a tensor of a
checkpoint is for: its value, an original, the state of a map, a factor of an old weight norm.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from paramdesc.errors import LayoutError

__all__ = ["LAYOUTS", "Stored", "find_stored", "keys_of", "norm_of", "plain_value"]

LAYOUTS = ("plain", "torch", "weight_g", "spectral_norm", "pruned")
"""The layouts:

- `plain`: `weight`, as in a model without parametrizations.
- `torch`: `parametrizations.weight.original`, or `original0`, `original1`, ..., and
  `parametrizations.weight.0.<name>` for a tensor of the first map. It is this library's own.
- `weight_g`: `weight_g` and `weight_v`, of `torch.nn.utils.weight_norm`.
- `spectral_norm`: `weight_orig`, `weight_u` and `weight_v`, of `torch.nn.utils.spectral_norm`.
- `pruned`: `weight_orig` and `weight_mask`, of `torch.nn.utils.prune`.
"""

SUFFIXES: dict[str, dict[str, str]] = {
    "weight_g": {"g": "_g", "v": "_v"},
    "spectral_norm": {"orig": "_orig", "u": "_u", "v": "_v"},
    "pruned": {"orig": "_orig", "mask": "_mask"},
}
SPECTRAL = ("", "SpectralNorm")
_OURS = re.compile(r"(?:(.*)\.)?parametrizations\.([^.]+)\.(original\d*|\d+\..+)")


class Stored(NamedTuple):
    """A tensor as a checkpoint has it: the path in the model, the layout, and the key by role.

    The roles are `value` (plain); `original` or `original0`, `original1`, ..., and `0.<name>` for
    the states of maps (torch); `g` and `v`; `orig`, `u` and `v`; `orig` and `mask`.
    """

    path: str
    layout: str
    keys: dict[str, str]


def find_stored(keys: Iterable[str]) -> list[Stored]:
    """The tensors in a checkpoint with these keys, in order, each with its layout.

    >>> for stored in find_stored(["0.weight_g", "0.weight_v", "0.bias"]):
    ...     print(stored.path, stored.layout, list(stored.keys))
    0.weight weight_g ['g', 'v']
    0.bias plain ['value']
    """
    found: dict[str, Stored] = {}
    names = dict.fromkeys(keys)
    for key in names:
        path, layout, role = place_of(key, names)
        stored = found.setdefault(path, Stored(path, layout, {}))
        stored.keys[role] = key
    return list(found.values())


def place_of(key: str, names: Mapping[str, object]) -> tuple[str, str, str]:
    """The path, the layout and the role of one key, among all keys of a checkpoint."""
    match = _OURS.fullmatch(key)
    if match is not None:
        prefix, tensor_name, role = match.groups()
        return join(prefix, tensor_name), "torch", role
    for layout, suffixes in SUFFIXES.items():
        for role, suffix in suffixes.items():
            path = key.removesuffix(suffix)
            is_whole = all(path + other in names for other in suffixes.values())
            if path != key and is_whole and path not in names:
                return path, layout, role
    return key, "plain", "value"


def join(prefix: str | None, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def keys_of(path: str, layout: str, roles: Iterable[str]) -> dict[str, str]:
    """The key of each role of the tensor at `path`, in a layout."""
    if layout == "plain":
        return dict.fromkeys(roles, path)
    if layout == "torch":
        prefix, _, tensor_name = path.rpartition(".")
        return {role: join(prefix, f"parametrizations.{tensor_name}.{role}") for role in roles}
    return {role: path + SUFFIXES[layout][role] for role in roles}


def plain_value(
    stored: Stored, tensors: Mapping[str, Tensor], *, dim: int | None = 0, map_name: str = ""
) -> Tensor:
    """The value of a stored tensor, where it can be computed without the maps.

    Args:
        stored: the tensor.
        tensors: the tensors of the checkpoint, by role.
        dim: the dimension that a weight norm or a spectral norm keeps; None for the whole tensor.
            If only one dimension of `g` is not 1, it is that dimension.
        map_name: the name of the map of a tensor in torch's layout, `WeightNorm` for example, if
            it is known.

    Raises:
        LayoutError: if the maps are needed.
    """
    if stored.layout == "plain":
        return tensors["value"]
    if stored.layout == "pruned":
        return tensors["orig"] * tensors["mask"]
    if stored.layout == "weight_g":
        return scaled(tensors["g"], tensors["v"], dim)
    if stored.layout == "spectral_norm":
        return normalized(tensors["orig"], tensors["u"], tensors["v"], dim)
    norm = norm_of(stored, {role: tensor.shape for role, tensor in tensors.items()}, map_name)
    if norm == "weight":
        return scaled(tensors["original0"], tensors["original1"], dim)
    if norm == "spectral":
        return normalized(tensors["original"], tensors["0._u"], tensors["0._v"], dim)
    raise LayoutError(stored.path, list(stored.keys.values()))


def norm_of(stored: Stored, shapes: Mapping[str, Sequence[int]], map_name: str = "") -> str:
    """The norm that a tensor is stored with: "weight", "spectral", or "" if it has neither.

    Args:
        stored: the tensor.
        shapes: the shapes of its tensors, by role.
        map_name: see `plain_value`.
    """
    if stored.layout in ("weight_g", "spectral_norm"):
        return "weight" if stored.layout == "weight_g" else "spectral"
    name = map_name.removeprefix("_")  # torch's classes are private
    roles = set(stored.keys) if stored.layout == "torch" else set()
    if roles == {"original0", "original1"} and name in ("", "WeightNorm"):
        g, v = shapes["original0"], shapes["original1"]
        return "weight" if are_lengths(g, v) else ""
    return "spectral" if roles == {"original", "0._u", "0._v"} and name in SPECTRAL else ""


def are_lengths(g: Sequence[int], v: Sequence[int]) -> bool:
    """Whether `g` has the shape of the lengths of slices of `v`, or of all of `v`."""
    kept = [i for i, size in enumerate(g) if size != 1]
    return not g or (len(g) == len(v) and len(kept) <= 1 and all(g[i] == v[i] for i in kept))


def scaled(g: Tensor, v: Tensor, dim: int | None) -> Tensor:
    """`g v / |v|`, with one length for each index of the dimension that `g` has."""
    if g.ndim == v.ndim and v.ndim > 0:
        dim = next((i for i, size in enumerate(g.shape) if size != 1), dim)
    else:
        dim = None
    others = [i for i in range(v.ndim) if i != dim]
    if not others:
        return g * v / v.abs()
    value: Tensor = v * (g / torch.linalg.vector_norm(v, 2, others, keepdim=True))
    return value


def normalized(weight: Tensor, u: Tensor, v: Tensor, dim: int | None) -> Tensor:
    """`weight / (uᴴ M v)`, for the matrix `M` with that dimension as rows."""
    if u.numel() == weight.shape[0] or dim is None:
        dim = 0  # a transposed convolution has its outputs in dimension 1
    elif weight.ndim > 1 and u.numel() == weight.shape[1]:
        dim = 1
    matrix = weight.movedim(dim, 0).flatten(1)
    return weight / torch.vdot(u.flatten(), torch.mv(matrix, v.flatten())).real
