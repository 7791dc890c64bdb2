"""Orthogonal weights: reading one with its gradient, by the maps here, in torch and in geotorch."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from paramdesc import register_parametrization
from paramdesc.linalg.orthogonality import non_orthonormality
from paramdesc.parametrizations.orthogonality.orthogonal import MAPS, Orthogonal
from tests.benchmarks.table import Goal, Table, main
from tests.benchmarks.timing import Clock, clocked, in_turns

__all__ = ["tables"]

PRODUCT = "one product of two such matrices"
FLOOR = "LU and two triangular solves"
TORCH = "torch, {}"
GEOTORCH = "geotorch, {}"


def tables(quick: bool) -> Iterator[Table]:
    sizes = [16] if quick else [64, 256, 512, 1024]
    for size in sizes:
        yield maps(size, quick)
    yield tall(*((40, 4) if quick else (4096, 64)), quick)
    yield errors(16 if quick else 512)


def layer(n: int, k: int, register: Callable[[nn.Module], object], original: Tensor) -> Any:
    """A layer with an orthogonal `n x k` weight, some way from where it was registered."""
    module: Any = nn.Linear(k, n, bias=False)
    nn.init.orthogonal_(module.weight)
    register(module)
    with torch.no_grad():
        module.parametrizations.weight.original.add_(original)
    return module


def read(module: Any, gradient: Tensor) -> Clock:
    def forward_and_backward() -> None:
        module.zero_grad()
        module.weight.backward(gradient)

    return clocked(forward_and_backward)


def ours(name: str) -> Callable[[nn.Module], object]:
    return lambda module: register_parametrization(module, "weight", Orthogonal(name))


def theirs(name: str) -> Callable[[nn.Module], object]:
    return lambda module: orthogonal(module, orthogonal_map=name)


def layers(n: int, k: int) -> dict[str, Any]:
    """The weights to compare. Skew matrices are the same; other originals move as little."""
    torch.manual_seed(0)
    X = torch.randn(n, k).tril(-1) / n**0.5
    found = {
        f"paramdesc, {name}": layer(n, k, ours(name), X if n > k else X - X.mT) for name in MAPS
    }
    for name in ("matrix_exp", "cayley", "householder"):
        found[TORCH.format(name)] = layer(n, k, theirs(name), X)
    with contextlib.suppress(ModuleNotFoundError):
        geotorch: Any = importlib.import_module("geotorch")
        for name in ("expm", "cayley"):

            def register(module: nn.Module, triv: str = name) -> None:
                geotorch.orthogonal(module, "weight", triv=triv)

            found[GEOTORCH.format(name)] = layer(n, k, register, X if n == k else torch.zeros(()))
    return found


def solved(A: Tensor, B: Tensor) -> Tensor:
    LU, pivots = torch.linalg.lu_factor(A)
    solution: Tensor = torch.linalg.lu_solve(LU, pivots, B)
    return solution


def maps(size: int, quick: bool) -> Table:
    gradient = torch.randn(size, size)
    A = torch.randn(size, size) / size**0.5
    A = torch.eye(size) + A - A.mT
    clocks = {
        PRODUCT: clocked(lambda: A @ gradient),
        FLOOR: clocked(lambda: solved(A, gradient)),
        **{name: read(module, gradient) for name, module in layers(size, size).items()},
    }
    rounds = 1 if quick else {64: 200, 256: 40, 512: 15}.get(size, 5)
    series = in_turns(clocks, rounds)
    goals = []
    if size == 512 or quick:
        for mine, peer, factor in (
            ("cayley", "matrix_exp", 10.0),
            ("cayley", "cayley", 1.5),
            ("matrix_exp", "matrix_exp", 2.5),
        ):
            ratio = series.ratio(f"paramdesc, {mine}", TORCH.format(peer))
            goals.append(Goal(f"{mine}, in torch's {peer},", round(1 / factor, 3), ratio))
    return Table(
        f"An orthogonal weight of size {size}",
        "Reading the weight and the backward pass to its original, in float32. The skew-symmetric "
        "matrices of the Cayley and exponential maps have the same random entries.",
        ("times the read by cayley", "milliseconds"),
        {
            name: (series.ratio(name, "paramdesc, cayley"), series.median(name) * 1e3)
            for name in clocks
        },
        goals,
    )


def tall(n: int, k: int, quick: bool) -> Table:
    gradient = torch.randn(n, k)
    clocks = {name: read(module, gradient) for name, module in tall_layers(n, k, quick).items()}
    series = in_turns(clocks, 1 if quick else 7)
    return Table(
        f"A weight of {n} x {k} with orthonormal columns",
        "Reading it and the backward pass, in float32. torch's Cayley and exponential maps take a "
        f"matrix of size {n}: those are left out.",
        ("times the read by cayley", "milliseconds"),
        {
            name: (series.ratio(name, "paramdesc, cayley"), series.median(name) * 1e3)
            for name in clocks
        },
    )


def tall_layers(n: int, k: int, quick: bool) -> dict[str, Any]:
    X = torch.randn(n, k) / n**0.5
    found = {f"paramdesc, {name}": layer(n, k, ours(name), X) for name in MAPS}

    def without_base(module: nn.Module) -> None:  # its base would be n x n
        orthogonal(module, orthogonal_map="householder", use_trivialization=False)

    found[TORCH.format("householder")] = layer(n, k, without_base, X.tril(-1))
    return found


def errors(size: int) -> Table:
    """How far the weights are from orthogonal, in units of rounding."""
    unit = torch.finfo(torch.float32).eps * size**0.5
    rows: dict[str, tuple[float | None, ...]] = {}
    for name, module in layers(size, size).items():
        original, figures = module.parametrizations.weight.original, []
        start = original.detach().clone()
        step = torch.randn(size, size).tril(-1)
        if "paramdesc" in name:  # the skew-symmetric matrices are then as large as torch's
            step = step - step.mT
        if "polar" in name:  # its gradients are tangents, and condition numbers stay small
            start = module.weight.detach()
            step = start @ step
        step = step / torch.linalg.matrix_norm(step, 2)
        for norm in (0.1, 1.0, 10.0):
            with torch.no_grad():
                original.copy_(start + norm * step)
            weight = module.weight.detach().double()
            figures.append(non_orthonormality(weight).item() / unit)
        rows[name] = tuple(figures)
    worst = max(max(figure or 0 for figure in rows[f"paramdesc, {name}"]) for name in MAPS)
    return Table(
        "How orthogonal they are",
        "The Frobenius norm of `Wᵀ W - I` of weights of size "
        f"{size} in float32, in units of eps times the root of the size, after a random step of "
        "the original of the given norm.",
        ("norm 0.1", "norm 1", "norm 10"),
        rows,
        [Goal("the error of any map", 20, worst)],
    )


if __name__ == "__main__":
    main(tables, __doc__)
