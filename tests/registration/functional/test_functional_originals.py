"""`torch.func` by the names of the originals: ensembles and derivatives."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jacrev, jvp, stack_module_state, vmap

import paramdesc as P
from paramdesc.parametrizations import SpectralNorm, Symmetric
from tests.helpers import Double, Shift, Sum, linear
from tests.registration.functional.models import FORWARD_MODE, INPUT, Counting


@pytest.mark.parametrize("is_scoped", [False, True])
@pytest.mark.parametrize(
    "maps", [[Double], [Symmetric, Shift], [Sum], [SpectralNorm], [Counting, SpectralNorm]]
)
def test_an_ensemble(maps: list[Callable[[], nn.Module]], is_scoped: bool) -> None:
    def make() -> nn.Sequential:
        layers = [nn.Linear(3, 3), nn.Linear(3, 3)]
        for layer in layers:
            for make_map in maps:
                P.register_parametrization(layer, "weight", make_map())
        return nn.Sequential(layers[0], nn.Tanh(), layers[1]).eval()

    models = [make() for _ in range(4)]
    expected = torch.stack([model(INPUT) for model in models])
    parameters, buffers = stack_module_state(models)
    base = copy.deepcopy(models[0]).to("meta")

    def run(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        y: Tensor = functional_call(base, (parameters, buffers), (x,))
        return y

    with P.cached() if is_scoped else P.cached([]):
        y = vmap(run, in_dims=(0, 0, None))(parameters, buffers, INPUT)
        torch.testing.assert_close(y, expected)
        again = vmap(run, in_dims=(0, 0, None))(parameters, buffers, 2 * INPUT)
    torch.testing.assert_close(again, torch.stack([model(2 * INPUT) for model in models]))
    name = "0.parametrizations.weight.original"
    leaf = parameters[name if name in parameters else f"{name}0"]
    (gradient,) = torch.autograd.grad(y.square().sum(), leaf)
    assert gradient.flatten(1).abs().sum(1).gt(0).all()


@FORWARD_MODE
@pytest.mark.parametrize("make_map", [Double, Symmetric, Sum, SpectralNorm])
def test_derivatives_with_respect_to_the_originals(make_map: Callable[[], nn.Module]) -> None:
    layer = linear(make_map()).eval()
    state = {name: p.detach() for name, p in layer.named_parameters()}
    buffers = dict(layer.named_buffers())
    samples = torch.arange(6.0).reshape(2, 3) / 4

    def loss(state: dict[str, Tensor], x: Tensor) -> Tensor:
        y: Tensor = functional_call(layer, (state, buffers), (x,)).tanh().sum()
        return y

    def direct(x: Tensor) -> dict[str, Tensor]:
        leaves = dict(layer.named_parameters())
        gradients = torch.autograd.grad(layer(x).tanh().sum(), list(leaves.values()))
        return dict(zip(leaves, gradients, strict=True))

    expected = [direct(x) for x in samples]
    with P.cached() as scope:
        kept = layer.weight
        for _ in range(2):
            per_sample = vmap(grad(loss), in_dims=(None, 0))(state, samples)
            for name, gradients in per_sample.items():
                torch.testing.assert_close(gradients, torch.stack([e[name] for e in expected]))
            torch.testing.assert_close(jacrev(loss)(state, samples[0]), expected[0])
            change = jvp(lambda state: loss(state, samples[0]), (state,), (state,))[1]
            inner = [(gradient * state[name]).sum() for name, gradient in expected[0].items()]
            torch.testing.assert_close(change, torch.stack(inner).sum())
            blocks = hessian(loss)(state, samples[0])
            torch.testing.assert_close(blocks["bias"]["bias"].mT, blocks["bias"]["bias"])
        torch.testing.assert_close(layer.weight, kept)
        assert [entry.value is layer.weight for entry in scope.entries.values()] == [True]


def test_torch_is_left_alone_until_something_is_parametrized() -> None:
    program = (
        "from torch.nn.utils import _named_member_accessor as torch_part\n"
        "before = torch_part.swap_tensor\n"
        "code = before.__code__\n"
        "import paramdesc, torch\n"
        "assert before.__code__ is code\n"
        "paramdesc.register_parametrization(torch.nn.Linear(1, 1), 'bias', torch.neg)\n"
        "assert before.__code__ is not code\n"
        "assert torch_part.swap_tensor is before\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
