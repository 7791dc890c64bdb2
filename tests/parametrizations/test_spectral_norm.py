"""`SpectralNorm`: its norm is the one that `torch.linalg` finds, whatever the weight."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as torch_maps
from torch.nn.utils import parametrize as torch_engine

from paramdesc import adopt, cached, register_parametrization
from paramdesc.errors import ConstraintError
from paramdesc.parametrizations import SpectralNorm, Symmetric
from paramdesc.parametrizations.norms.normalized import Normalized
from tests.helpers import Double, Shift, Sum, chain_of, linear, train_step

pytestmark = pytest.mark.usefixtures("algorithms")

CONVERGED = 0.02
"""How far from one the norm may be after the first iterations, for a random weight."""


def true_norm(weight: Tensor, dim: int = 0) -> Any:
    wide = weight.detach().to(torch.complex128 if weight.is_complex() else torch.float64)
    if wide.ndim == 1:
        return torch.linalg.vector_norm(wide).item()
    return torch.linalg.matrix_norm(wide.movedim(dim, 0).flatten(1), 2).item()


def holder(weight: Tensor, **arguments: Any) -> Any:
    """A module with this weight, normalized."""
    module = nn.Module()
    module.weight = nn.Parameter(weight.clone())
    return register_parametrization(module, "weight", SpectralNorm(**arguments))


LAYERS: dict[str, tuple[Callable[[], Any], int]] = {
    "linear": (lambda: nn.Linear(7, 5), 0),
    "wide": (lambda: nn.Linear(7, 1), 0),
    "tall": (lambda: nn.Linear(1, 7), 0),
    "last dimension": (lambda: nn.Linear(6, 4), -1),
    "convolution": (lambda: nn.Conv2d(3, 8, 3), 0),
    "transposed convolution": (lambda: nn.ConvTranspose2d(3, 8, 3), 1),
    "embedding": (lambda: nn.Embedding(30, 7), 0),
    "complex": (lambda: nn.Linear(6, 6, dtype=torch.complex64), 0),
    "complex128": (lambda: nn.Linear(6, 6, dtype=torch.complex128), 0),
    "float64": (lambda: nn.Linear(6, 6, dtype=torch.float64), 0),
    "float16": (lambda: nn.Linear(6, 6, dtype=torch.float16), 0),
    "bfloat16": (lambda: nn.Linear(6, 6, dtype=torch.bfloat16), 0),
}


@pytest.mark.parametrize("bound", [1.0, 0.3, 5.0])
@pytest.mark.parametrize("name", LAYERS)
def test_norm_of_every_layer_is_the_bound(name: str, bound: float) -> None:
    torch.manual_seed(0)
    make, dim = LAYERS[name]
    layer = make()
    dtype = layer.weight.dtype
    register_parametrization(layer, "weight", SpectralNorm(bound, dim=dim))
    assert layer.weight.dtype == dtype
    assert true_norm(layer.weight, dim) == pytest.approx(bound, rel=CONVERGED)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.float16])
def test_vector_is_divided_by_its_length(dtype: torch.dtype) -> None:
    module = holder(torch.tensor([3.0, 4.0], dtype=dtype))
    torch.testing.assert_close(module.weight, torch.tensor([0.6, 0.8], dtype=dtype))


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_scale_of_the_weight_does_not_matter(scale: float) -> None:
    module = holder(torch.randn(5, 5) * scale)
    assert true_norm(module.weight) == pytest.approx(1, rel=CONVERGED)
    module.weight.sum().backward()
    assert chain_of(module).original.grad.isfinite().all()


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 3e3, 6e4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scale_does_not_matter_in_half_precision(dtype: torch.dtype, scale: float) -> None:
    module = holder((torch.rand(50, 50) * scale).to(dtype))
    assert true_norm(module.weight) == pytest.approx(1, rel=CONVERGED)


@pytest.mark.parametrize("shape", [(3, 4), (5,)])
def test_zero_weight_stays_zero_with_finite_gradient(shape: tuple[int, ...]) -> None:
    module = holder(torch.zeros(shape))
    assert not module.weight.any()
    module.weight.sum().backward()
    assert chain_of(module).original.grad.isfinite().all()


@pytest.mark.parametrize("only_shrink", [False, True])
def test_weight_that_starts_at_zero_is_normalised_once_it_grows(only_shrink: bool) -> None:
    torch.manual_seed(0)
    module = holder(torch.zeros(5, 5), only_shrink=only_shrink)
    train_step(module, scale=3.0)
    for _ in range(20):
        train_step(module, scale=0.01)
        weight = module.weight
    assert true_norm(weight) == pytest.approx(1, rel=CONVERGED)


def test_weight_that_passes_through_zero_is_normalised_after_it() -> None:
    torch.manual_seed(0)
    module = holder(torch.randn(4, 4))
    original = chain_of(module).original
    for value in (torch.zeros(4, 4), torch.randn(4, 4)):
        for _ in range(50):
            with torch.no_grad():
                original.copy_(value)
            weight = module.weight
    assert true_norm(weight) == pytest.approx(1, rel=CONVERGED)


def test_weight_that_was_not_finite_is_normalised_once_it_is_restored() -> None:
    torch.manual_seed(0)
    module = holder(torch.randn(5, 5))
    original = chain_of(module).original
    backup = original.detach().clone()
    for value in (torch.full((5, 5), math.nan), torch.full((5, 5), math.inf), backup):
        with torch.no_grad():
            original.copy_(value)
        weight = module.weight
    assert true_norm(weight) == pytest.approx(1, rel=CONVERGED)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,), (2, 0, 3)])
def test_empty_weights_have_nothing_to_normalise(shape: tuple[int, ...]) -> None:
    module = holder(torch.empty(shape))
    train_step(module)
    module.weight.sum().backward()
    assert module.weight.shape == shape


def test_only_shrink_leaves_smaller_weights_and_bounds_larger_ones() -> None:
    small = 0.1 * torch.eye(3)
    module = holder(small, only_shrink=True)
    assert module.weight.equal(small)
    module.weight = 4 * torch.eye(3)
    assert true_norm(module.weight) == pytest.approx(1)


def test_norms_up_to_eps_count_as_zero() -> None:
    assert true_norm(holder(0.1 * torch.eye(3), eps=0.2).weight) == pytest.approx(0.1)
    assert true_norm(holder(0.1 * torch.eye(3), eps=0.05).weight) == pytest.approx(1)


@pytest.mark.parametrize("bound", [1.0, 2.5])
def test_weight_of_the_right_norm_is_kept(bound: float) -> None:
    orthogonal = torch.linalg.qr(torch.randn(6, 6))[0] * bound
    layer: Any = nn.Linear(6, 6)
    layer.weight.data.copy_(orthogonal)
    register_parametrization(layer, "weight", SpectralNorm(bound))
    torch.testing.assert_close(layer.weight.detach(), orthogonal)
    layer.weight = -orthogonal
    torch.testing.assert_close(layer.weight.detach(), -orthogonal)


def test_random_numbers_of_the_user_are_left_alone() -> None:
    layer = nn.Linear(4, 4)
    before = torch.get_rng_state()
    register_parametrization(layer, "weight", SpectralNorm())
    layer.weight = torch.eye(4)
    train_step(layer, scale=0.0)
    drawn = torch.randn(4, 4)
    torch.set_rng_state(before)
    torch.randn(4, 4)
    assert torch.randn(4, 4).equal(drawn)


CASES: list[tuple[tuple[int, ...], torch.dtype, dict[str, Any]]] = [
    ((4, 3), torch.float64, {}),
    ((4, 3), torch.complex128, {}),
    ((3, 2, 2), torch.float64, {"dim": 1}),
    ((5,), torch.float64, {}),
    ((5,), torch.complex128, {}),
    ((4, 3), torch.float64, {"only_shrink": True, "bound": 0.5}),
    ((4, 3), torch.float64, {"bound": 2.5}),
]


@pytest.mark.parametrize(("shape", "dtype", "arguments"), CASES)
def test_gradients_are_those_of_the_formula(
    shape: tuple[int, ...], dtype: torch.dtype, arguments: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    parametrization = holder(torch.randn(shape, dtype=dtype), **arguments).parametrizations.weight
    original = parametrization.original

    def evaluate(X: Tensor) -> Tensor:
        value: Tensor = torch.func.functional_call(parametrization, {"original": X}, ())
        return value

    assert torch.autograd.gradcheck(evaluate, original)
    assert torch.autograd.gradgradcheck(evaluate, original)


def test_gradient_is_that_of_the_exact_norm() -> None:
    weight = torch.randn(5, 4, dtype=torch.float64)
    module = holder(weight, n_power_iterations=500)
    train_step(module, scale=0.0)
    direction = torch.randn(5, 4, dtype=torch.float64)
    (module.weight * direction).sum().backward()
    exact = weight.clone().requires_grad_()
    (exact / torch.linalg.matrix_norm(exact, 2) * direction).sum().backward()
    torch.testing.assert_close(chain_of(module).original.grad, exact.grad)


@pytest.mark.parametrize("arguments", [{}, {"bound": 2.0}, {"bound": 0.1, "only_shrink": True}])
@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2)])
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.complex128, 1e-12), (torch.bfloat16, 0.03)],
)
def test_gradient_is_that_of_the_operations(
    arguments: dict[str, Any],
    shape: tuple[int, ...],
    dim: int,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    torch.manual_seed(0)
    module = holder(torch.randn(shape, dtype=dtype), dim=dim, **arguments)
    train_step(module, scale=0.01)
    parametrization, original = chain_of(module)[0], chain_of(module).original
    value = module.weight
    expected = parametrization.divided(original, parametrization.norm(original))
    gradient = torch.randn_like(value)
    (found,) = torch.autograd.grad(value, original, gradient)
    (exact,) = torch.autograd.grad(expected, original, gradient)
    torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(found, exact, rtol=tolerance, atol=tolerance)


def test_weight_within_the_bound_has_the_gradient_of_a_plain_one() -> None:
    module = holder(0.1 * torch.eye(3), only_shrink=True)
    module.weight.backward(torch.ones(3, 3))
    torch.testing.assert_close(chain_of(module).original.grad, torch.ones(3, 3))


def test_norm_follows_a_weight_that_drifts() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 32)
    register_parametrization(layer, "weight", SpectralNorm())
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    norms = []
    for _ in range(100):
        optimizer.zero_grad()
        (layer(torch.randn(16, 64)) - 1).square().mean().backward()
        optimizer.step()
        norms.append(true_norm(layer.weight))
    assert min(norms) > 1 - 1e-5
    assert max(norms) < 1.01


def test_more_iterations_follow_closer() -> None:
    def error(count: int) -> Any:
        torch.manual_seed(0)
        module = holder(torch.randn(20, 20), n_power_iterations=count)
        errors = []
        for _ in range(20):
            train_step(module, scale=0.3)
            errors.append(abs(true_norm(module.weight) - 1))
        return max(errors)

    assert error(50) < error(1) / 2


def drift_error(maker: Callable[[Any], Any], weight: Tensor) -> Any:
    """The largest relative error of the norm while the weight drifts by 1 % a step."""
    torch.manual_seed(1)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    layer.weight.data.copy_(weight)
    layer = maker(layer)
    original = chain_of(layer).original
    errors = []
    for _ in range(100):
        noise = torch.randn_like(weight)
        with torch.no_grad():
            original.add_(noise * (0.01 * original.norm() / noise.norm()))
        errors.append(abs(true_norm(layer.weight) - 1))
    return max(errors)


@pytest.mark.parametrize("gap", [0.0, 1.5])
def test_error_under_drift_is_a_twentieth_of_torchs(gap: float) -> None:
    torch.manual_seed(0)
    weight = torch.randn(48, 48, dtype=torch.float64)
    left, right = (nn.functional.normalize(torch.randn(48), dim=0) for _ in range(2))
    weight += gap * 48**0.5 * torch.outer(left, right)

    def ours(layer: Any) -> Any:
        return register_parametrization(layer, "weight", SpectralNorm())

    assert drift_error(ours, weight) < drift_error(torch_maps.spectral_norm, weight) / 20


def test_tolerance_is_kept_under_drift() -> None:
    torch.manual_seed(0)
    weight = torch.randn(48, 48)

    def ours(layer: Any) -> Any:
        return register_parametrization(layer, "weight", SpectralNorm(tolerance=1e-6))

    assert drift_error(ours, weight) < 1e-6


def test_one_iteration_is_that_of_torch() -> None:
    torch.manual_seed(0)
    theirs: Any = torch_maps.spectral_norm(nn.Linear(6, 5))
    ours = register_parametrization(nn.Linear(6, 5), "weight", SpectralNorm(n_power_iterations=1))
    ours.load_state_dict(theirs.state_dict())
    for _ in range(3):
        change = torch.randn(5, 6)
        for layer in (ours, theirs):
            with torch.no_grad():
                chain_of(layer).original.add_(change)
        torch.testing.assert_close(ours.weight, theirs.weight)


def test_checkpoints_of_torch_give_the_same_value_both_ways() -> None:
    torch.manual_seed(0)
    theirs: Any = torch_maps.spectral_norm(nn.Conv2d(3, 4, 3)).eval()
    ours = register_parametrization(nn.Conv2d(3, 4, 3), "weight", SpectralNorm()).eval()
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours.weight, theirs.weight)
    ours.train()
    train_step(ours)
    value = ours.weight
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(theirs.weight, value)


def test_forward_mode_gives_the_derivative() -> None:
    torch.manual_seed(0)
    module = holder(torch.randn(4, 3, dtype=torch.float64))
    original, tangent = chain_of(module).original, torch.randn(4, 3, dtype=torch.float64)
    weights = torch.randn(4, 3, dtype=torch.float64)
    (module.weight * weights).sum().backward()

    class Context:
        saved_tensors: Any
        sigma = quotient = 0.0

    parametrization = chain_of(module)[0]
    context: Any = Context()
    context.saved_tensors = (original.detach(), parametrization._u, parametrization._v)
    context.sigma = parametrization.norm(original).item()
    context.quotient = 1 / context.sigma
    change = Normalized.jvp(context, tangent)
    torch.testing.assert_close((change * weights).sum(), (original.grad * tangent).sum())


def test_strict_refuses_another_norm_and_tells_by_how_much() -> None:
    module = holder(torch.eye(3), strict=True)
    module.weight = -torch.eye(3)
    with pytest.raises(ConstraintError, match=r"spectral norm: it deviates by 1\b"):
        module.weight = 2 * torch.eye(3)
    assert SpectralNorm(2.0, only_shrink=True).deviation(torch.eye(3)) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_reach_the_norm(dtype: torch.dtype) -> None:
    layer = linear(SpectralNorm())
    train_step(layer, scale=0.01)
    with torch.autocast("cpu", dtype=dtype):
        layer(torch.ones(2, 3)).sum().backward()
        assert layer.weight.dtype == torch.float32
        assert true_norm(layer.weight) == pytest.approx(1, rel=CONVERGED)


# its place in chains and engines


def test_second_in_a_chain_it_normalises_what_the_first_gives() -> None:
    torch.manual_seed(0)
    layer = linear(Symmetric(), n=6)
    register_parametrization(layer, "weight", SpectralNorm(2.0))
    for _ in range(30):
        train_step(layer, scale=0.01)
        weight = layer.weight
    assert true_norm(weight) == pytest.approx(2, rel=CONVERGED)
    torch.testing.assert_close(weight, weight.mT)


@pytest.mark.parametrize("before", [Sum, Shift, Double])
def test_it_follows_whatever_is_trained_before_it(before: type[nn.Module]) -> None:
    torch.manual_seed(0)
    layer = linear(before(), n=6)
    register_parametrization(layer, "weight", SpectralNorm())
    for _ in range(50):
        with torch.no_grad():
            for parameter in chain_of(layer).parameters():
                parameter.add_(0.05)
        weight = layer.weight
    assert true_norm(weight) == pytest.approx(1, rel=CONVERGED)


def test_it_follows_originals_that_are_parametrized_themselves() -> None:
    torch.manual_seed(0)
    layer = linear(SpectralNorm(), n=6)
    register_parametrization(chain_of(layer), "original", Double())
    for _ in range(50):
        train_step(chain_of(layer), "original", scale=0.02)
        weight = layer.weight
    assert true_norm(weight) == pytest.approx(1, rel=CONVERGED)


@pytest.mark.parametrize("then_adopt", [False, True])
def test_it_works_under_torchs_engine_and_after_adoption(then_adopt: bool) -> None:
    torch.manual_seed(0)
    layer: Any = torch_engine.register_parametrization(nn.Linear(6, 5), "weight", SpectralNorm())
    assert true_norm(layer.weight) == pytest.approx(1, rel=CONVERGED)
    if then_adopt:
        adopt(layer)
    for _ in range(30):
        with torch.no_grad():
            layer.parametrizations.weight.original.add_(torch.randn(5, 6), alpha=0.02)
        weight = layer.weight
    assert true_norm(weight) == pytest.approx(1, rel=CONVERGED)


def test_cache_scope_keeps_one_value_per_step() -> None:
    layer = linear(SpectralNorm())
    with cached() as scope:
        for _ in range(3):
            train_step(layer)
            layer(layer(torch.ones(2, 3))).sum().backward()
        assert (scope.misses, scope.hits) == (3, 3)


# what it refuses

WRONG_ARGUMENTS: list[dict[str, Any]] = [
    {"bound": 0.0},
    {"bound": -1.0},
    {"bound": math.nan},
    {"bound": math.inf},
    {"n_power_iterations": 0},
    {"n_power_iterations": -1},
    {"eps": -1.0},
    {"eps": math.nan},
    {"tolerance": 0.0},
    {"tolerance": 1.0},
]


@pytest.mark.parametrize("arguments", WRONG_ARGUMENTS)
def test_arguments_out_of_range_are_refused_by_name(arguments: dict[str, Any]) -> None:
    (name,) = arguments
    with pytest.raises(ValueError, match=name):
        SpectralNorm(**arguments)


@pytest.mark.parametrize("dim", [2, -3])
def test_dimension_that_the_weight_lacks_is_refused_with_its_shape(dim: int) -> None:
    layer = nn.Linear(3, 4)
    weight = layer.weight
    with pytest.raises(ValueError, match=rf"shape \[4, 3\] has no dimension {dim}"):
        register_parametrization(layer, "weight", SpectralNorm(dim=dim))
    assert layer.weight is weight


def test_scalar_is_refused() -> None:
    with pytest.raises(ValueError, match="no dimension 0"):
        holder(torch.tensor(3.0))


def test_repr_shows_the_arguments() -> None:
    assert repr(SpectralNorm(2.0, dim=1)) == "SpectralNorm(bound=2.0, dim=1)"
    assert "only_shrink=True" in repr(SpectralNorm(only_shrink=True))


def test_copy_goes_on_from_the_same_state() -> None:
    layer = linear(SpectralNorm())
    twin = copy.deepcopy(layer)
    for module in (layer, twin):
        torch.manual_seed(1)
        train_step(module)
    assert twin.weight.equal(layer.weight)


@pytest.mark.parametrize("shape", [(1, 16), (16, 1), (2, 2), (2, 5), (5, 300), (300, 5)])
def test_small_and_thin_weights_are_followed_through_large_steps(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(*shape)
    register_parametrization(layer, "weight", SpectralNorm())
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(40):
        optimizer.zero_grad()
        (layer(torch.randn(8, shape[0])) - 1).square().mean().backward()
        optimizer.step()
    for _ in range(20):  # the weight stays, but for a step to follow
        train_step(layer, scale=0.0)
        weight = layer.weight
    assert true_norm(weight) == pytest.approx(1, rel=CONVERGED)
