"""Counts the launches of maps on a pretended device, in a process of its own.

`python -m tests.benchmarks.pretended` prints a `Count` for each conformance case and for orthogonal
weights of several sizes, as JSON. It has a process of its own because a process of torch has at
most one such device, and keeps it.

Tensors of that device have shapes and no numbers. A map is registered on a weight with numbers,
moved there, read, differentiated and trained once. The read after that is counted.

An operation of `torch.linalg` counts as one, though a GPU may start several kernels for it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn.utils import parametrizations as torch_maps
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from paramdesc import cached, register_parametrization
from paramdesc.parametrizations import (
    SpectralNorm,
    Symmetric,
    WeightNorm,
    spectral_norm,
    weight_norm,
)
from paramdesc.parametrizations.orthogonality.orthogonal import MAPS, Orthogonal
from tests.helpers import ROOT
from tests.parametrizations.all_cases import CASES

__all__ = ["ALIKE", "ALIKE_COUNTS", "Count", "count", "counted", "parametrized", "set_up"]

DEVICE = "pretended"

WITHOUT_KERNEL = ("empty", "new_empty", "_unsafe_view", "lift_fresh", "is_same_size", "detach")
"""Beginnings of the names of operations that start no kernel, besides views."""

WAITING = (
    "_linalg_check_errors",
    "_linalg_eigh",
    "_linalg_eigvals",
    "_linalg_svd",
    "linalg_eig",
    "linalg_lstsq",
    "linalg_matrix_exp",
    "_local_scalar_dense",
    "cumprod",  # its derivative looks for zeros, as does that of prod
    "equal",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "prod",
    "_unique",
    "unique_",
)
"""Beginnings of the names of operations that look at numbers, at least on CUDA."""


@dataclass(frozen=True)
class Count:
    """What a read costs: operations that start a kernel, and those that the host waits for."""

    forward: int
    backward: int
    waits: tuple[str, ...] = ()

    @property
    def launches(self) -> int:
        return self.forward + self.backward


class Launches(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations that start a kernel, and notes those that wait."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []
        self.waits: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        space, name = func.name().split("::")
        result = func(*args, **(kwargs or {}))
        if space == "aten" and not (func.is_view or name.startswith(WITHOUT_KERNEL)):
            copies = len(result) if name.startswith("unbind_copy") else 1  # a kernel for each
            self.names += [name] * copies
        if name.startswith(WAITING):
            self.waits.add(name)
        if len({x.device for x in tree_leaves((args, result)) if is_large(x)}) > 1:
            self.waits.add(f"{name} between devices")
        return result


def is_large(x: object) -> bool:
    """Whether it is a tensor that cannot be passed to a kernel as a number."""
    return isinstance(x, Tensor) and not (x.device.type == "cpu" and x.ndim == 0)


class Holder(nn.Module):
    weight: Any

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())


def pretend(module: nn.Module) -> None:
    """Put tensors of the pretended device in the place of all parameters and buffers."""

    def like(tensor: Tensor) -> Tensor:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=DEVICE)

    for part in module.modules():
        for name, parameter in list(part._parameters.items()):
            if parameter is not None:
                part._parameters[name] = nn.Parameter(like(parameter), parameter.requires_grad)
        for name, buffer in list(part._buffers.items()):
            if buffer is not None:
                part._buffers[name] = like(buffer)


def count(module: Any, is_batched: bool = False) -> Count:
    """The count for a module, or several, in their steady state: after a training step."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        pretend(module)
        try:
            read(module, is_batched)
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.mul_(0.5)
            for parameter in module.parameters():
                parameter.grad = None
            return read(module, is_batched)
        except DataDependentOutputException as error:
            return Count(0, 0, (str(error.func),))
        except NotImplementedError as error:
            if "aten::empty_strided" not in str(error):
                raise
            return Count(0, 0, ("a tensor made of a number of the host",))


def read(module: Any, is_batched: bool = False) -> Count:
    holders = list(module) if isinstance(module, nn.ModuleList) else [module]
    with Launches() as counted, cached(module, batched=True) if is_batched else nullcontext():
        values = [holder.weight for holder in holders]
        forward = len(counted.names)
        trained: list[Any] = [value for value in values if value.requires_grad]
        if trained:
            torch.autograd.backward(trained, [torch.empty_like(value) for value in trained])
    backward = len(counted.names) - forward
    return Count(forward, backward, tuple(sorted(counted.waits)))


def parametrized(parametrization: Any, weight: Tensor, unsafe: bool = False) -> nn.Module:
    """A module with this map on `weight`."""
    return register_parametrization(Holder(weight), "weight", parametrization, unsafe=unsafe)


def count_cases() -> dict[str, Count]:
    """The counts of the conformance cases."""
    torch.manual_seed(0)
    return {
        name: count(
            parametrized(case.make(), case.weight(), bool(case.declared.get("unsafe", False)))
        )
        for name, case in CASES.items()
    }


def count_orthogonal() -> dict[str, Count]:
    """The counts of `Orthogonal` for each of its maps and some shapes."""
    torch.manual_seed(0)
    found = {}
    for name in MAPS:
        for n, k in ((64, 64), (256, 256), (512, 512), (512, 128), (128, 512)):
            weight = torch.eye(n, k)  # registering on it takes no time
            found[f"{name}, {n} x {k}"] = count(parametrized(Orthogonal(name), weight))
    return found


NORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "torch's spectral_norm": torch_maps.spectral_norm,
    "SpectralNorm": lambda layer: register_parametrization(layer, "weight", SpectralNorm()),
    "spectral_norm": spectral_norm,
    "torch's weight_norm": torch_maps.weight_norm,
    "weight_norm": weight_norm,
    "torch's weight_norm, dim=None": lambda layer: torch_maps.weight_norm(
        layer,
        dim=None,  # type: ignore[arg-type]
    ),
    "weight_norm, dim=None": lambda layer: weight_norm(layer, dim=None),
}


def count_norms() -> dict[str, Count]:
    """The counts of normalized weights of some sizes."""
    torch.manual_seed(0)
    return {
        f"{name}, {n}": count(make(nn.Linear(n, n, bias=False)))
        for name, make in NORMS.items()
        for n in (16, 64, 512, 2048)
    }


ALIKE: dict[str, Callable[[], nn.Module]] = {
    "Symmetric": Symmetric,
    "SpectralNorm": SpectralNorm,
    "WeightNorm": WeightNorm,
    **{f"Orthogonal, {name}": partial(Orthogonal, name) for name in MAPS},
}
ALIKE_COUNTS = (1, 8, 48)


def count_batches() -> dict[str, Count]:
    """The counts of several weights of one kind, by their number, one by one and together."""
    torch.manual_seed(0)
    found = {}
    for name, make in ALIKE.items():
        for number in ALIKE_COUNTS:
            for is_batched in (False, True):
                model = nn.ModuleList(parametrized(make(), torch.eye(64)) for _ in range(number))
                way = "together" if is_batched else "one by one"
                found[f"{name}, {number}, {way}"] = count(model, is_batched)
    return found


def set_up() -> None:
    """Make the pretended device known to this process."""
    _setup_privateuseone_for_python_backend(DEVICE)


def main() -> None:
    set_up()
    groups = {
        "cases": count_cases(),
        "orthogonal": count_orthogonal(),
        "norms": count_norms(),
        "batches": count_batches(),
    }
    print(
        json.dumps(
            {
                group: {name: asdict(found) for name, found in counts.items()}
                for group, counts in groups.items()
            }
        )
    )


def counted() -> dict[str, dict[str, Count]]:
    """What a new process counts."""
    answer = subprocess.run(
        [sys.executable, "-m", __name__], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    return {
        group: {
            name: Count(found["forward"], found["backward"], tuple(found["waits"]))
            for name, found in counts.items()
        }
        for group, counts in json.loads(answer).items()
    }


if __name__ == "__main__":
    main()
