"""Spectral norms while the weight drifts: how far off they are, and what a step costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import paramdesc
from paramdesc.parametrizations.norms.spectral_norm import SpectralNorm
from tests.benchmarks.table import Goal, Table, main
from tests.benchmarks.timing import clocked, in_turns

__all__ = ["tables"]

TORCH = "torch's spectral_norm"
OURS = "SpectralNorm"
DRIFT = 0.01
GAP = 0.75

MAKERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    TORCH: spectral_norm,
    OURS: lambda module: paramdesc.register_parametrization(module, "weight", SpectralNorm()),
    "SpectralNorm(tolerance=1e-6)": lambda module: paramdesc.register_parametrization(
        module, "weight", SpectralNorm(tolerance=1e-6)
    ),
}


def tables(quick: bool) -> Iterator[Table]:
    for size in (16,) if quick else (64, 256, 512, 1024):
        yield drift(size, quick)


def weight(size: int, *, gap: bool) -> Tensor:
    """Gaussian; with a gap, of rank one added, so that its largest singular value stands out."""
    torch.manual_seed(0)
    M = torch.randn(size, size)
    left, right = (nn.functional.normalize(torch.randn(size), dim=0) for _ in "uv")
    M += gap * 2 * GAP * size**0.5 * torch.outer(left, right)
    return M


def modules(M: Tensor) -> dict[str, Any]:
    found = {}
    for name, make in MAKERS.items():
        torch.manual_seed(1)  # where torch's iteration starts
        module = nn.Linear(M.shape[1], M.shape[0], bias=False)
        module.weight.data.copy_(M)
        found[name] = make(module)
    return found


def largest_errors(M: Tensor, steps: int) -> dict[str, float]:
    """Of the norm, relative, over training steps that each change the weight at random."""
    holders = modules(M)
    errors = dict.fromkeys(holders, 1e-12)
    M = M.clone()
    for _ in range(steps):
        noise = torch.randn_like(M)
        M += DRIFT * M.norm() / noise.norm() * noise
        true = torch.linalg.eigvalsh(M.double() @ M.double().T)[-1].sqrt()
        for name, module in holders.items():
            original = module.parametrizations.weight.original
            with torch.no_grad():
                original.copy_(M)
            scale = (original.double() * module.weight.double()).sum() / M.double().square().sum()
            errors[name] = max(errors[name], abs(scale * true - 1).item())
    return errors


def training_step(module: Any, size: int) -> Callable[[], None]:
    """Change the weight, read it, and go back from it."""
    original, gradient = module.parametrizations.weight.original, torch.randn(size, size)
    changes = [DRIFT * original.std().item() * torch.randn(size, size) for _ in range(4)]

    def step() -> None:
        for change in changes:
            with torch.no_grad():
                original.add_(change)
            original.grad = None
            module.weight.backward(gradient)

    return step


def drift(size: int, quick: bool) -> Table:
    steps = 5 if quick else 120
    close, apart = (largest_errors(weight(size, gap=gap), steps) for gap in (False, True))
    clocks = {
        name: clocked(training_step(module, size))
        for name, module in modules(weight(size, gap=False)).items()
    }
    series = in_turns(clocks, 1 if quick else 40)
    return Table(
        f"The spectral norm of a {size} x {size} weight that drifts",
        f"{steps} training steps change the weight by 1 % each, at random. The largest error of "
        "the norm, relative, for a Gaussian matrix, whose first singular values lie close "
        "together, and for one whose first stands out by a tenth; and the time of a step: "
        "change, read, and go back.",
        ("error", "error with a gap", "times torch", "microseconds"),
        {
            name: (
                close[name],
                apart[name],
                series.ratio(name, TORCH),
                series.median(name) / 4 * 1e6,
            )
            for name in MAKERS
        },
        [
            Goal("its error, in errors of torch's,", 0.05, close[OURS] / close[TORCH]),
            Goal("its error with a gap, the same,", 0.05, apart[OURS] / apart[TORCH]),
            Goal("its time, in torch's,", 1.2, series.ratio(OURS, TORCH)),
        ],
    )


if __name__ == "__main__":
    main(tables, __doc__)
