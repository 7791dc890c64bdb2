"""`ConvolutionSpectralNorm`: the norm is that of the dense matrix of the layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paramdesc import register_parametrization
from paramdesc.errors import ConstraintError
from paramdesc.parametrizations.norms.convolution_norm import ConvolutionSpectralNorm
from tests.helpers import chain_of, train_step


def matrix_of(layer: Any, size: tuple[int, ...]) -> Tensor:
    """The layer without its bias, as a matrix: each image that is one at one place, mapped."""
    count = layer.in_channels * torch.Size(size).numel()
    images = torch.eye(count).reshape(count, layer.in_channels, *size).to(layer.weight.dtype)
    with torch.no_grad():
        nothing = layer(torch.zeros_like(images[:1]))
        operator: Tensor = (layer(images) - nothing).flatten(1).double()
    return operator


def true_norm(layer: Any, size: tuple[int, ...]) -> Any:
    return torch.linalg.matrix_norm(matrix_of(layer, size), 2).item()


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "1d": (lambda: nn.Conv1d(2, 3, 5), (16,)),
    "2d": (lambda: nn.Conv2d(2, 3, 3, padding=1), (6, 7)),
    "3d": (lambda: nn.Conv3d(2, 2, 2), (4, 3, 5)),
    "stride": (lambda: nn.Conv2d(2, 4, 3, padding=1, stride=2), (7, 6)),
    "stride past the kernel": (lambda: nn.Conv2d(2, 4, 2, stride=4), (8, 11)),
    "dilation": (lambda: nn.Conv2d(4, 4, 3, padding=2, dilation=2), (6, 5)),
    "groups": (lambda: nn.Conv2d(4, 4, 3, groups=2), (6, 5)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), (6, 5)),
    "same": (lambda: nn.Conv1d(2, 3, 5, padding="same"), (16,)),
    "valid": (lambda: nn.Conv1d(2, 3, 5, padding="valid"), (16,)),
    "circular": (lambda: nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), (6, 5)),
    "circular, stride": (
        lambda: nn.Conv2d(2, 4, 3, padding=(2, 1), stride=2, padding_mode="circular"),
        (6, 5),
    ),
    "transposed 1d": (lambda: nn.ConvTranspose1d(4, 6, 3, groups=2, dilation=2), (9,)),
    "transposed 2d": (
        lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, output_padding=1, padding=1),
        (4, 5),
    ),
    "transposed 3d": (lambda: nn.ConvTranspose3d(2, 3, 2), (3, 3, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_norm_of_the_dense_matrix_is_the_bound(name: str) -> None:
    torch.manual_seed(0)
    make, size = LAYERS[name]
    layer: Any = make()
    bounded = ConvolutionSpectralNorm.for_module(layer, size, 0.7)
    register_parametrization(layer, "weight", bounded)
    assert true_norm(layer, size) == pytest.approx(0.7, rel=1e-5)


@pytest.mark.parametrize("name", ["2d", "depthwise", "circular", "transposed 2d"])
def test_norm_follows_training(name: str) -> None:
    torch.manual_seed(0)
    make, size = LAYERS[name]
    layer: Any = make()
    bounded = ConvolutionSpectralNorm.for_module(layer, size)
    register_parametrization(layer, "weight", bounded)
    for _ in range(20):
        train_step(layer, scale=0.003)
        layer(torch.ones(1, layer.in_channels, *size))
    assert true_norm(layer, size) == pytest.approx(1, rel=0.01)


def test_another_wave_is_found_when_its_norm_becomes_the_largest() -> None:
    torch.manual_seed(0)
    layer: Any = nn.Conv1d(1, 1, 2, padding=1, padding_mode="circular")
    layer.weight.data.copy_(torch.tensor([[[1.0, 0.9]]]))  # constant images are stretched most
    register_parametrization(layer, "weight", ConvolutionSpectralNorm.for_module(layer, 8))
    original = chain_of(layer).original
    with torch.no_grad():
        original.copy_(torch.tensor([[[1.0, -0.9]]]))  # alternating ones are
    for _ in range(20):
        train_step(layer, scale=0.0)
        layer(torch.ones(1, 1, 8))
    assert true_norm(layer, (8,)) == pytest.approx(1, rel=1e-4)


def test_gradient_is_that_of_the_norm_of_the_dense_matrix() -> None:
    torch.manual_seed(0)
    layer: Any = nn.Conv1d(2, 3, 3, padding=1, bias=False, dtype=torch.float64)
    weight = layer.weight.detach().clone().requires_grad_()
    bounded = ConvolutionSpectralNorm(6, padding=1)
    register_parametrization(layer, "weight", bounded)
    direction = torch.randn_like(weight)
    (layer.weight * direction).sum().backward()
    images = torch.eye(12, dtype=torch.float64).reshape(12, 2, 6)
    operator = torch.conv1d(images, weight, padding=1).flatten(1)
    (weight / torch.linalg.matrix_norm(operator, 2) * direction).sum().backward()
    torch.testing.assert_close(chain_of(layer).original.grad, weight.grad, rtol=1e-4, atol=1e-6)


def test_a_smaller_norm_is_left_alone_on_demand() -> None:
    layer: Any = nn.Conv2d(1, 1, 3)
    small = torch.full((1, 1, 3, 3), 0.01)
    layer.weight.data.copy_(small)
    bounded = ConvolutionSpectralNorm.for_module(layer, 8, only_shrink=True)
    register_parametrization(layer, "weight", bounded)
    assert layer.weight.equal(small)
    layer.weight = 100 * small
    assert true_norm(layer, (8, 8)) == pytest.approx(1, rel=1e-5)


def test_zero_weight_stays_zero_with_finite_gradient() -> None:
    layer: Any = nn.Conv1d(1, 1, 3)
    layer.weight.data.zero_()
    register_parametrization(layer, "weight", ConvolutionSpectralNorm(8))
    assert not layer.weight.any()
    layer.weight.sum().backward()
    assert chain_of(layer).original.grad.isfinite().all()


def test_strict_refuses_another_norm_and_keeps_the_right_one() -> None:
    layer: Any = nn.Conv1d(1, 1, 1)
    layer.weight.data.fill_(2.0)
    register_parametrization(layer, "weight", ConvolutionSpectralNorm(8, 2.0, strict=True))
    layer.weight = torch.full((1, 1, 1), -2.0)
    assert layer.weight.item() == pytest.approx(-2)
    with pytest.raises(ConstraintError, match="operator norm"):
        layer.weight = torch.full((1, 1, 1), 3.0)


WRONG: dict[str, dict[str, Any]] = {
    "input_size": {"input_size": 0},
    "bound": {"input_size": 4, "bound": 0.0},
    "stride": {"input_size": 4, "stride": 0},
    "padding": {"input_size": 4, "padding": (1, 1)},
    "dilation": {"input_size": 4, "dilation": 0},
    "padding_mode": {"input_size": 4, "padding_mode": "reflect"},
    "n_power_iterations": {"input_size": 4, "n_power_iterations": 0},
    "tolerance": {"input_size": 4, "tolerance": 0.0},
}


@pytest.mark.parametrize("name", WRONG)
def test_arguments_out_of_range_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ConvolutionSpectralNorm(**WRONG[name])


def test_what_is_no_convolution_is_refused() -> None:
    with pytest.raises(TypeError, match="Got Linear"):
        ConvolutionSpectralNorm.for_module(nn.Linear(2, 2), 4)
    even = nn.Conv1d(1, 1, 2, padding="same")
    with pytest.raises(ValueError, match="odd kernel sizes"):
        ConvolutionSpectralNorm.for_module(even, 4)
    with pytest.raises(ValueError, match=r"Got shape \[2, 2\]"):
        register_parametrization(nn.Linear(2, 2), "weight", ConvolutionSpectralNorm(4))


def test_repr_shows_what_is_not_usual() -> None:
    shown = repr(ConvolutionSpectralNorm((4, 4), stride=2, padding_mode="circular"))
    assert shown == (
        "ConvolutionSpectralNorm(input_size=(4, 4), bound=1.0, stride=(2, 2), "
        "padding_mode='circular')"
    )
