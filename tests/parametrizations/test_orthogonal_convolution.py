"""`OrthogonalConvolution`: orthogonal as the whole matrix from images to images."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paramdesc import register_parametrization
from paramdesc.errors import ConstraintError
from paramdesc.parametrizations import OrthogonalConvolution, orthogonal_convolution
from paramdesc.parametrizations.lipschitz.factorization import correlation
from paramdesc.parametrizations.lipschitz.projectors import expanded
from tests.helpers import chain_of
from tests.parametrizations.operators import operator_matrix, singular_values
from tests.parametrizations.test_placeholders import Count

# the shape of the weight, the arguments of the layer, the size of the images
KERNELS: dict[str, tuple[tuple[int, ...], dict[str, Any], int]] = {
    "1 x 1": ((3, 4, 1, 1), {}, 4),
    "square": ((4, 4, 3, 3), {}, 5),
    "odd channels": ((3, 3, 3, 3), {}, 5),
    "one channel": ((1, 1, 3, 3), {}, 5),
    "depthwise": ((4, 1, 3, 3), {"groups": 4}, 5),
    "more outputs": ((6, 2, 3, 3), {}, 5),
    "many more outputs": ((16, 1, 3, 3), {}, 5),
    "fewer outputs": ((2, 6, 3, 3), {}, 5),
    "even kernel": ((4, 4, 2, 4), {}, 5),
    "large kernel": ((4, 4, 5, 7), {}, 7),
    "1d": ((5, 4, 6), {}, 12),
    "3d": ((2, 4, 2, 3, 2), {}, 3),
    "groups": ((6, 2, 3, 3), {"groups": 3}, 5),
    "dilation": ((4, 3, 3, 3), {"dilation": 2}, 5),
    "stride": ((4, 3, 3, 3), {"stride": 2}, 6),
    "stride, more outputs": ((16, 2, 3, 3), {"stride": 2}, 6),
    "stride, as many outputs": ((8, 2, 4, 4), {"stride": 2}, 6),
    "stride, groups": ((8, 2, 5, 4), {"stride": 2, "groups": 2}, 6),
    "stride, dilation": ((4, 3, 4), {"stride": 2, "dilation": 3}, 12),
    "stride as long as the kernel": ((3, 2, 3, 3), {"stride": 3}, 6),
    "stride past the kernel": ((2, 2, 2, 2), {"stride": 3}, 6),
}


def made(shape: tuple[int, ...], how: dict[str, Any]) -> Any:
    """A module with such a weight, some way from where it was registered."""
    torch.manual_seed(0)
    module: Any = nn.Module()
    module.weight = nn.Parameter(torch.randn(shape, dtype=torch.float64))
    parametrization = OrthogonalConvolution(how.get("stride", 1), how.get("groups", 1))
    register_parametrization(module, "weight", parametrization)
    with torch.no_grad():
        for original in chain_of(module).originals():
            original.add_(torch.randn_like(original))
    return module


def value(name: str) -> Tensor:
    shape, how, _ = KERNELS[name]
    result: Tensor = made(shape, how).weight.detach()
    return result


@pytest.mark.parametrize("name", KERNELS)
def test_all_singular_values_are_one_with_circular_padding(name: str) -> None:
    _, how, size = KERNELS[name]
    values = singular_values(value(name), size, **how)
    torch.testing.assert_close(values, torch.ones_like(values), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", KERNELS)
def test_no_singular_value_is_above_one_with_zero_padding(name: str) -> None:
    _, how, size = KERNELS[name]
    assert singular_values(value(name), size, "zeros", **how).max() <= 1 + 1e-12


def test_zero_padding_loses_length_at_the_borders() -> None:
    values = singular_values(value("square"), 5, "zeros")
    assert values.min() < 0.9
    assert values.max() > 0.99


@pytest.mark.parametrize("name", ["square", "more outputs", "even kernel", "1d", "dilation"])
def test_full_padding_is_exact_where_outputs_are_not_fewer(name: str) -> None:
    _, how, size = KERNELS[name]
    values = singular_values(value(name), size, "full", **how)
    torch.testing.assert_close(values, torch.ones_like(values), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["square", "fewer outputs", "stride", "stride, groups", "3d"])
def test_no_padding_is_exact_where_outputs_are_not_more(name: str) -> None:
    _, how, size = KERNELS[name]
    values = singular_values(value(name), size, "none", **how)
    torch.testing.assert_close(values, torch.ones_like(values), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["square", "fewer outputs", "stride", "stride, groups"])
def test_a_transposed_convolution_of_the_same_weight_keeps_lengths(name: str) -> None:
    _, how, _ = KERNELS[name]
    matrix = operator_matrix(value(name), 3, "none", transposed=True, **how)
    identity = torch.eye(matrix.shape[1], dtype=matrix.dtype)
    torch.testing.assert_close(matrix.T @ matrix, identity, rtol=0, atol=1e-12)


def test_transposed_layers_keep_lengths() -> None:
    torch.manual_seed(0)
    for layer in (
        nn.ConvTranspose2d(4, 2, 4, stride=2, groups=2, bias=False),
        nn.ConvTranspose2d(4, 4, 3, bias=False),
        nn.ConvTranspose1d(2, 6, 5, bias=False),
    ):
        orthogonal_convolution(layer)
        images = torch.randn(3, layer.in_channels, *[5] * len(layer.kernel_size))
        torch.testing.assert_close(layer(images).norm(), images.norm())


@pytest.mark.parametrize("name", KERNELS)
def test_values_of_the_map_are_kept(name: str) -> None:
    shape, how, _ = KERNELS[name]
    module = made(shape, how)
    before = module.weight.detach().clone()
    again = made(shape, how)
    chain_of(again)[0].strict = True
    again.weight = before
    torch.testing.assert_close(again.weight, before, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", [(64, 3, 7, 7), (32, 16, 7, 7), (16, 16, 9), (8, 8, 5, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_long_products_are_found_again(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    before = made(shape, {}).weight.detach().to(dtype)
    module = made(shape, {}).to(dtype)
    module.weight = before
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(module.weight, before, rtol=0, atol=1e4 * eps)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_identity_of_an_odd_kernel_is_kept(channels: int) -> None:
    layer = orthogonal_convolution(nn.Conv2d(channels, channels, 5))
    chain_of(layer)[0].strict = True
    nn.init.dirac_(layer.weight)
    expected = nn.init.dirac_(torch.empty(channels, channels, 5, 5))
    torch.testing.assert_close(layer.weight, expected)


@pytest.mark.parametrize(
    "ranks", [(3, 1), (1, 3), (4, 0), (1, 2, 4, 1), (0, 4, 4, 0), (3, 3, 2, 0)]
)
def test_in_one_dimension_only_the_sum_of_ranks_counts(ranks: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    bases = torch.linalg.qr(torch.randn(len(ranks), 4, 4, dtype=torch.float64))[0]
    K = bases[:1, :, None]
    for basis, rank in zip(bases, ranks, strict=True):
        K = expanded(K, basis[:, :rank], 2, shifts_rest=False)
    weight = K[0].movedim(-1, 1)
    module = made(weight.shape, {})
    chain_of(module)[0].strict = True
    module.weight = weight
    torch.testing.assert_close(module.weight, weight, rtol=0, atol=1e-9)


def test_what_replaces_another_kernel_is_near_it() -> None:
    torch.manual_seed(0)
    Y = torch.randn(8, 8, 3, 3, dtype=torch.float64)
    module = made((8, 8, 3, 3), {})
    module.weight = Y
    inner = correlation(Y, module.weight.detach())
    for tap in Y.flatten(2).unbind(-1):  # the nearest kernels of a single tap are worse
        assert inner > 1.5 * torch.linalg.matrix_norm(tap, "nuc")
    for _ in range(20):  # and so are values close by
        with torch.no_grad():
            for original in chain_of(module).originals():
                original.copy_(0.1 * torch.randn_like(original))
        assert correlation(Y, module.weight.detach()) < inner


@pytest.mark.parametrize("name", ["square", "more outputs", "fewer outputs", "stride", "groups"])
def test_deviation_is_that_of_the_whole_matrix_per_pixel(name: str) -> None:
    shape, how, _ = KERNELS[name]
    torch.manual_seed(0)
    Y = torch.randn(shape, dtype=torch.float64)
    matrix = operator_matrix(Y, 6, **how)
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.T
    error = matrix.T @ matrix - torch.eye(matrix.shape[1], dtype=Y.dtype)
    groups, stride = how.get("groups", 1), how.get("stride", 1)
    deviation = OrthogonalConvolution(stride, groups).deviation(Y)
    per_pixel = error.norm() / (6 // stride)
    if groups == 1:
        torch.testing.assert_close(deviation, per_pixel)
    else:
        assert per_pixel / groups**0.5 <= deviation <= per_pixel


def test_other_orthogonal_convolutions_are_refused_if_strict() -> None:
    layer: Any = orthogonal_convolution(nn.Conv1d(2, 2, 3))
    chain_of(layer)[0].strict = True
    before = layer.weight.detach().clone()
    corner = torch.zeros(2, 2, 3)
    corner[:, :, 0] = torch.eye(2)  # its determinant is of another degree
    with pytest.raises(ValueError, match="is not a product of factors"):
        layer.weight = corner
    with pytest.raises(ConstraintError, match="not an orthogonal convolution"):
        layer.weight = torch.ones(2, 2, 3)
    torch.testing.assert_close(layer.weight, before)
    layer.parametrizations.weight[0].strict = False
    layer.weight = corner
    assert singular_values(layer.weight.detach().double(), 8).sub(1).abs().max() < 1e-5


def test_impossible_weights_are_refused() -> None:
    def register(*shape: int, stride: int = 1, groups: int = 1) -> None:
        module: Any = nn.Module()
        module.weight = nn.Parameter(torch.randn(shape))
        register_parametrization(module, "weight", OrthogonalConvolution(stride, groups))

    register(8, 2, 2, 2, stride=3)
    with pytest.raises(ValueError, match="skips pixels at stride=.3, 3.*or at most 8 outputs"):
        register(9, 2, 2, 2, stride=3)
    with pytest.raises(ValueError, match=r"Got shape \[3, 3\]"):
        register(3, 3)
    with pytest.raises(ValueError, match="groups divide"):
        register(3, 3, 3, groups=2)
    with pytest.raises(ValueError, match="spatial dimensions"):
        OrthogonalConvolution((1, 2)).right_inverse(torch.randn(2, 2, 3))
    with pytest.raises(ValueError, match="must be positive"):
        OrthogonalConvolution(0)
    with pytest.raises(RuntimeError, match="once it is registered"):
        OrthogonalConvolution()(torch.ones(1, 1, 1), torch.ones(1, 1, 1, 1))


def test_arguments_come_from_a_layer() -> None:
    layer = nn.Conv2d(4, 8, 3, stride=(2, 1), groups=2)
    found = OrthogonalConvolution.for_module(layer)
    assert repr(found).startswith("OrthogonalConvolution(\n  stride=(2, 1), groups=2")
    OrthogonalConvolution.for_module(nn.Conv1d(2, 2, 3, stride=2, dilation=3))
    with pytest.raises(ValueError, match="common divisor"):
        OrthogonalConvolution.for_module(nn.Conv1d(2, 2, 3, stride=2, dilation=2))
    with pytest.raises(TypeError, match="Got Linear"):
        OrthogonalConvolution.for_module(nn.Linear(2, 2))


@pytest.mark.parametrize("name", ["square", "1 x 1", "stride, groups"])
def test_base_points_follow_the_training(name: str) -> None:
    shape, how, _ = KERNELS[name]
    torch.manual_seed(0)
    layer: Any = nn.Module()
    layer.weight = nn.Parameter(torch.randn(shape, dtype=torch.float64))
    found = OrthogonalConvolution(how.get("stride", 1), how.get("groups", 1), rebase=3)
    register_parametrization(layer, "weight", found)
    fixed = copy.deepcopy(layer)
    chain_of(fixed)[0].rebase = chain_of(fixed)[0].matrix.rebase = None
    chain_of(fixed)[0].planes.rebase = None
    direction = torch.randn_like(layer.weight)
    for module in (layer, fixed):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            (module.weight * direction).sum().backward()
            optimizer.step()
    assert not any(bool(original.any()) for original in chain_of(layer).originals())
    assert any(bool(original.any()) for original in chain_of(fixed).originals())
    torch.testing.assert_close(layer.weight, fixed.weight, rtol=0, atol=1e-12)
    assert not chain_of(layer)[0].matrix.base.equal(chain_of(fixed)[0].matrix.base)


def test_registering_on_meta_searches_nothing() -> None:
    on_meta, with_numbers = Count(), Count()
    with on_meta:
        layer = orthogonal_convolution(nn.Conv2d(8, 8, 3, device="meta"))
    with with_numbers:
        orthogonal_convolution(nn.Conv2d(8, 8, 3))
    assert on_meta.operations < with_numbers.operations / 3
    assert layer.weight.shape == (8, 8, 3, 3)
    shapes = {name: x.shape for name, x in layer.state_dict().items()}
    on_cpu = orthogonal_convolution(nn.Conv2d(8, 8, 3))
    assert shapes == {name: x.shape for name, x in on_cpu.state_dict().items()}


def test_layers_keep_lengths_while_they_train() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular", bias=False)
    orthogonal_convolution(layer)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    images, target = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    losses = []
    for _ in range(50):
        optimizer.zero_grad()
        loss = (layer(images) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    torch.testing.assert_close(layer(images).norm(), images.norm())
