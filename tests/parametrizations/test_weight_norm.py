"""`WeightNorm`: torch's numbers and layout, without what torch gets wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as torch_parametrizations

from paramdesc import register_parametrization
from paramdesc.parametrizations.norms.weight_norm import WeightNorm
from tests.helpers import chain_of
from tests.linalg.operations import operations

pytestmark = pytest.mark.usefixtures("algorithms")

LAYERS: dict[str, tuple[Any, int | None, int | None]] = {
    # torch takes dim=-1 for the whole tensor
    "linear": (lambda: nn.Linear(5, 4), 0, 0),
    "columns": (lambda: nn.Linear(5, 4), -1, 1),
    "whole": (lambda: nn.Linear(5, 4), None, None),
    "convolution": (lambda: nn.Conv2d(2, 4, 3), 0, 0),
    "transposed convolution": (lambda: nn.ConvTranspose2d(2, 4, 3), 1, 1),
    "last of three": (lambda: nn.Conv1d(2, 4, 3), -1, 2),
    "float64": (lambda: nn.Linear(5, 4, dtype=torch.float64), 0, 0),
}


def holder(weight: Tensor, dim: int | None = 0, **arguments: Any) -> Any:
    module = nn.Module()
    module.weight = nn.Parameter(weight.clone())
    return register_parametrization(module, "weight", WeightNorm(dim, **arguments))


@pytest.mark.parametrize("name", LAYERS)
def test_values_gradients_and_layout_are_those_of_torch(name: str) -> None:
    make, dim, torch_dim = LAYERS[name]
    torch.manual_seed(0)
    ours: Any = register_parametrization(make(), "weight", WeightNorm(dim))
    torch.manual_seed(0)
    theirs: Any = torch_parametrizations.weight_norm(make(), dim=torch_dim)  # type: ignore[arg-type]
    for a, b in zip(chain_of(ours).parameters(), chain_of(theirs).parameters(), strict=True):
        torch.testing.assert_close(a, b)
    state = {key: torch.randn_like(x) for key, x in theirs.state_dict().items()}
    gradient = torch.randn_like(ours.weight)
    for layer in (ours, theirs):
        layer.load_state_dict(state)
        layer.weight.backward(gradient)
    torch.testing.assert_close(ours.weight, theirs.weight)
    for a, b in zip(chain_of(ours).parameters(), chain_of(theirs).parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    g, v = torch.rand(4, 1).to(dtype), torch.randn(4, 5).to(dtype)
    exact = v.double() * (g.double() / v.double().norm(dim=1, keepdim=True))
    torch.testing.assert_close(
        WeightNorm()(g, v).double(), exact, rtol=torch.finfo(dtype).eps, atol=0
    )


def test_complex_weight_has_real_lengths() -> None:
    weight = torch.randn(3, 4, dtype=torch.complex64)
    module = holder(weight)
    torch.testing.assert_close(module.weight.detach(), weight)
    assert chain_of(module).original0.dtype == torch.float32
    with torch.no_grad():
        chain_of(module).original0.fill_(2)
    torch.testing.assert_close(module.weight.norm(dim=1), torch.full((3,), 2.0))


@pytest.mark.parametrize("arguments", [{}, {"eps": 1e-3}])
@pytest.mark.parametrize("dim", [0, -1, None])
def test_zero_slices_of_v_give_zero_and_finite_gradients(
    dim: int | None, arguments: dict[str, Any]
) -> None:
    parametrization = WeightNorm(dim, **arguments)
    v = torch.randn(4, 3)
    v[1], v[:, 1] = 0, 0
    if dim is None:
        v.zero_()
    v.requires_grad_()
    g = torch.ones_like(parametrization.norm(v)).detach().requires_grad_()
    value = parametrization(g, v)
    assert not value[1].any()
    assert not value[:, 1].any()
    for gradient in torch.autograd.grad(value.sum(), (g, v)):
        assert gradient.isfinite().all()


def test_zero_rows_do_not_change_the_others() -> None:
    g, v = torch.rand(3, 1), torch.randn(3, 4)
    expected = WeightNorm()(g, v)
    v[1] = 0
    torch.testing.assert_close(WeightNorm()(g, v)[[0, 2]], expected[[0, 2]])


def test_weight_that_starts_at_zero_learns() -> None:
    module = holder(torch.zeros(3, 4))
    assert not module.weight.any()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(50):
        optimizer.zero_grad()
        (module.weight - 1).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(module.weight, torch.ones(3, 4), rtol=0.01, atol=0)


def test_second_derivatives_are_right_where_torch_has_a_kernel() -> None:
    g = torch.rand(3, 1, dtype=torch.float64).requires_grad_()
    v = torch.randn(3, 4, dtype=torch.float64).requires_grad_()
    parametrization = WeightNorm()
    assert torch.autograd.gradgradcheck(parametrization, (g, v))
    for fixed in (g, v):
        fixed.requires_grad_(False)
        assert torch.autograd.gradgradcheck(parametrization, (g, v))
        fixed.requires_grad_()


@pytest.mark.parametrize("eps", [None, 0.8])
@pytest.mark.parametrize("dim", [0, 1, -1, None])
def test_derivatives_are_those_of_the_formula(dim: int | None, eps: float | None) -> None:
    torch.manual_seed(0)
    v = torch.randn(3, 4, 2, dtype=torch.float64)
    v.select(dim or 0, 1).mul_(0.1)  # shorter than `eps`
    parametrization = WeightNorm(dim, eps=eps)
    g = torch.rand_like(parametrization.norm(v)).requires_grad_()
    v.requires_grad_()
    gradient = torch.randn_like(v)
    expected = torch.autograd.grad(parametrization.formula(g, v), (g, v), gradient)
    found = torch.autograd.grad(parametrization(g, v), (g, v), gradient)
    torch.testing.assert_close(found, expected)
    assert torch.autograd.gradgradcheck(parametrization, (g, v))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_in_half_precision_are_near_the_exact_ones(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    tensors = torch.rand(4, 1).to(dtype), torch.randn(4, 5).to(dtype)
    gradient = torch.randn(4, 5).to(dtype)
    found, exact = (
        torch.autograd.grad(WeightNorm()(*inputs), inputs, gradient.to(inputs[0].dtype))
        for inputs in (
            tuple(x.clone().requires_grad_() for x in tensors),
            tuple(x.double().requires_grad_() for x in tensors),
        )
    )
    for near, far in zip(found, exact, strict=True):
        assert near.dtype == dtype
        torch.testing.assert_close(near.double(), far, rtol=0.03, atol=0.03)


@pytest.mark.usefixtures("few_launches")
@pytest.mark.parametrize(("dim", "most"), [(0, 5), (-1, 5), (1, 10), (None, 9)])
def test_few_operations_start_a_kernel(dim: int | None, most: int) -> None:
    parametrization = WeightNorm(dim)
    v = torch.randn(4, 3, 2, requires_grad=True)
    g = torch.rand_like(parametrization.norm(v)).detach().requires_grad_()
    gradient = torch.ones(4, 3, 2)
    with operations() as counted:
        torch.autograd.grad(parametrization(g, v), (g, v), gradient)
    assert "_local_scalar_dense" not in counted
    assert len(counted) <= most


def test_eps_bounds_what_is_divided_by() -> None:
    v = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    value = WeightNorm(eps=1.0)(torch.ones(2, 1), v)
    torch.testing.assert_close(value, torch.tensor([[0.6, 0.8], [0.3, 0.4]]))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)])
def test_empty_weights_have_an_empty_value(shape: tuple[int, ...]) -> None:
    module = holder(torch.empty(shape))
    module.weight.sum().backward()
    assert module.weight.shape == shape


def test_dimension_that_the_weight_lacks_is_refused_with_its_shape() -> None:
    with pytest.raises(ValueError, match=r"shape \[4, 3\] has no dimension 2"):
        holder(torch.randn(4, 3), 2)
    assert holder(torch.randn(4, 3), 1).weight.shape == (4, 3)


@pytest.mark.parametrize("eps", [0.0, -1.0, float("inf"), float("nan")])
def test_eps_out_of_range_is_refused(eps: float) -> None:
    with pytest.raises(ValueError, match="eps must be positive and finite"):
        WeightNorm(eps=eps)


def test_repr_shows_the_arguments() -> None:
    assert repr(WeightNorm()) == "WeightNorm(dim=0)"
    assert repr(WeightNorm(None, eps=0.1)) == "WeightNorm(dim=None, eps=0.1)"
