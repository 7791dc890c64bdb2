"""`orthogonal`, against torch's: the same tensors mean the same weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as theirs

from paramdesc.parametrizations.functions.torch_functions import orthogonal
from paramdesc.parametrizations.orthogonality.torch_layouts import TorchOrthogonal


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


SHAPES = [(4, 4), (6, 3), (3, 6), (2, 4, 3), (1, 1), (4, 1), (1, 4)]
MAPS = ["matrix_exp", "cayley", "householder"]


class Holder(nn.Module):
    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())


def both(weight: Tensor, **options: Any) -> tuple[Any, Any]:
    """The weight in a module of ours and in one of torch's."""
    torch.manual_seed(0)
    other: Any = theirs.orthogonal(Holder(weight), **options)
    return orthogonal(Holder(weight), **options), other


def cases() -> list[Any]:
    return [
        (dtype, shape, name, trivialization)
        for dtype in (torch.float64, torch.complex128)
        for shape in SHAPES
        for name in MAPS
        for trivialization in (True, False)
        if not (dtype.is_complex and name == "householder")
    ]


@pytest.mark.parametrize(("dtype", "shape", "name", "trivialization"), cases())
def test_a_checkpoint_means_the_same_weight_and_gradient_in_both_directions(
    dtype: torch.dtype, shape: tuple[int, ...], name: str, trivialization: bool
) -> None:
    ours, other = both(
        torch.randn(shape, dtype=dtype), orthogonal_map=name, use_trivialization=trivialization
    )
    assert list(ours.state_dict()) == list(other.state_dict())
    for source, target in ((other, ours), (ours, other)):
        with torch.no_grad():
            original = source.parametrizations.weight.original
            original.copy_(1.5 * torch.randn(shape, dtype=dtype))
            if name == "householder":
                original.diagonal(dim1=-2, dim2=-1).copy_(torch.tensor(-1.0))
                original[..., 0, 0] = 1.9  # of which torch takes the integer part, and we the sign
        target.load_state_dict(source.state_dict())
        assert torch.allclose(target.weight, source.weight, rtol=0, atol=1e-13)
        factor = torch.randn(shape, dtype=dtype)
        slopes = [
            torch.autograd.grad(
                (module.weight * factor).sum().abs(), module.parametrizations.weight.original
            )[0]
            for module in (ours, other)
        ]
        assert torch.allclose(slopes[0], slopes[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", MAPS)
def test_registering_gives_the_weight_that_torch_gives(shape: tuple[int, ...], name: str) -> None:
    ours, other = both(torch.randn(shape, dtype=torch.float64), orthogonal_map=name)
    assert torch.allclose(ours.weight, other.weight, rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
def test_householder_without_a_base_is_assigned_as_in_torch(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, dtype=torch.float64)
    ours, other = both(weight, orthogonal_map="householder", use_trivialization=False)
    assert torch.allclose(ours.weight, other.weight, rtol=0, atol=1e-13)
    value = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    Q = value.U @ value.Vh
    ours.weight = Q
    assert torch.allclose(ours.weight, Q, rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", MAPS)
def test_assigning_after_training_gives_the_weight_that_torch_gives(
    shape: tuple[int, ...], name: str
) -> None:
    ours, other = both(torch.randn(shape, dtype=torch.float64), orthogonal_map=name)
    for module in (ours, other):
        with torch.no_grad():
            original = module.parametrizations.weight.original
            original.add_(0.5)
            original.diagonal(dim1=-2, dim2=-1).sub_(0.5)  # signs, which are not trained
    for value in (torch.randn(shape, dtype=torch.float64), ours.weight.detach().clone()):
        ours.weight, other.weight = value, value
        assert torch.allclose(ours.weight, other.weight, rtol=0, atol=1e-12)
    assert torch.allclose(ours.weight, value, rtol=0, atol=1e-12)


def test_the_default_map_is_that_of_torch() -> None:
    for weight, name in (
        (torch.randn(3, 3), "matrix_exp"),
        (torch.randn(4, 3), "householder"),
        (torch.randn(4, 3, dtype=torch.complex64), "matrix_exp"),
    ):
        found: Any = orthogonal(Holder(weight))
        assert found.parametrizations.weight[0].orthogonal_map == name


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_what_double_precision_gives_rounded(
    name: str, dtype: torch.dtype
) -> None:
    module: Any = orthogonal(Holder(torch.randn(5, 5).to(dtype)), orthogonal_map=name)
    with torch.no_grad():
        module.parametrizations.weight.original.add_(torch.randn(5, 5).tril(-1).to(dtype))
    value = module.weight
    assert value.dtype == dtype
    exact = module.double().weight
    assert torch.allclose(value.double(), exact, rtol=0, atol=2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("name", MAPS)
def test_an_orthogonal_weight_of_half_precision_is_kept(name: str) -> None:
    Q = torch.linalg.qr(torch.randn(8, 8)).Q.bfloat16()
    assert orthogonal(Holder(Q), orthogonal_map=name).weight.equal(Q)
    W = torch.randn(8, 8).bfloat16()
    assert not orthogonal(Holder(W), orthogonal_map=name).weight.equal(W)


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)])
@pytest.mark.parametrize("name", MAPS)
def test_weights_without_full_rank_become_orthogonal(name: str, shape: tuple[int, int]) -> None:
    for weight in (torch.zeros(shape), torch.ones(shape)):
        module = orthogonal(Holder(weight), orthogonal_map=name)
        parametrization = TorchOrthogonal(name)
        assert parametrization.deviation(module.weight) < 1e-5


def test_a_weight_on_meta_is_registered_and_evaluated() -> None:
    with torch.device("meta"):
        layer = orthogonal(nn.Linear(3, 4))
    assert layer.weight.is_meta
    assert layer.weight.shape == (4, 3)


def test_registering_draws_no_random_numbers() -> None:
    weight = torch.randn(5, 3)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    orthogonal(Holder(weight))
    assert torch.rand(1).equal(expected)


def test_strict_refuses_what_is_not_orthogonal() -> None:
    layer = Holder(torch.eye(3))
    orthogonal(layer)
    parametrization = TorchOrthogonal("cayley", strict=True)
    with pytest.raises(ValueError, match=r"is not orthogonal: it deviates by 1\.73"):
        parametrization.right_inverse(torch.zeros(3, 3))
    assert parametrization.right_inverse(torch.eye(3)).equal(-torch.eye(3))


def test_maps_without_a_base_cannot_be_assigned_to() -> None:
    for name in ("matrix_exp", "cayley"):
        layer: Any = orthogonal(nn.Linear(3, 3), orthogonal_map=name, use_trivialization=False)
        with pytest.raises(NotImplementedError, match="use_trivialization=False"):
            layer.weight = torch.eye(3)


def test_errors_are_those_of_torch() -> None:
    for function in (orthogonal, theirs.orthogonal):
        with pytest.raises(ValueError, match="orthogonal_map has to be one of"):
            function(nn.Linear(3, 3), "weight", "polar")
        with pytest.raises(ValueError, match="Expected a matrix or batch of matrices"):
            function(nn.Linear(3, 3), "bias")
        with pytest.raises(ValueError, match="has no parameter or buffer with name 'kernel'"):
            function(nn.Linear(3, 3), "kernel")
        with pytest.raises(ValueError, match="does not support complex"):
            function(Holder(torch.zeros(2, 2, dtype=torch.complex64)), "weight", "householder")
        layer: Any = function(Holder(torch.eye(3)), "weight")
        with pytest.raises(ValueError, match="Expected a matrix or batch of matrices of shape"):
            layer.weight = torch.eye(4)


def test_a_lazy_weight_needs_the_name_of_a_map() -> None:
    with pytest.raises(ValueError, match='orthogonal_map="householder"'):
        orthogonal(nn.LazyLinear(3))
    layer = orthogonal(nn.LazyLinear(3), orthogonal_map="householder")
    layer(torch.ones(2, 5))
    assert torch.allclose(layer.weight @ layer.weight.T, torch.eye(3), atol=1e-6)


@pytest.mark.parametrize("flatten", [0, (0, 2), (3, -2)])
def test_flatten_makes_a_matrix_of_a_convolution(flatten: int | tuple[int, ...]) -> None:
    layer = orthogonal(nn.Conv2d(4, 3, 2), flatten=flatten)
    rows = [flatten] if isinstance(flatten, int) else list(flatten)
    W = layer.weight.movedim(rows, list(range(len(rows)))).flatten(0, len(rows) - 1).flatten(1)
    gram = W @ W.T if W.shape[0] <= W.shape[1] else W.T @ W
    assert torch.allclose(gram, torch.eye(len(gram)), atol=1e-6)


@pytest.mark.parametrize("trivialization", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(4, 4), (6, 3), (3, 6), (2, 4, 3)])
def test_weight_decay_leaves_the_weight_orthogonal(
    shape: tuple[int, ...], dtype: torch.dtype, trivialization: bool
) -> None:
    weight = torch.randn(shape, dtype=dtype)
    module: Any = orthogonal(
        Holder(weight), orthogonal_map="householder", use_trivialization=trivialization
    )
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, weight_decay=0.5)
    factor = torch.randn(shape, dtype=dtype)
    for _ in range(20):
        optimizer.zero_grad()
        (module.weight * factor).sum().backward()
        optimizer.step()
    diagonal = module.parametrizations.weight.original.diagonal(dim1=-2, dim2=-1)
    assert diagonal.abs().max() < 0.5
    allowed = 100 * torch.finfo(dtype).eps
    assert TorchOrthogonal("householder").deviation(module.weight) < allowed
