"""`Orthogonal`, `SpecialOrthogonal`, `Grassmann`: what they give, what they keep, how they move."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import Module

from paramdesc import register_parametrization
from paramdesc.linalg.orthogonality import non_orthonormality
from paramdesc.parametrizations.orthogonality.grassmann import Grassmann
from paramdesc.parametrizations.orthogonality.orthogonal import MAPS, Orthogonal
from paramdesc.parametrizations.orthogonality.special_orthogonal import SpecialOrthogonal
from tests.helpers import chain_of

DTYPES = [torch.float64, torch.complex128]
SHAPES = [(4, 4), (6, 3), (3, 5), (2, 5, 2), (1, 1), (4, 1)]
AROUND_A_BASE = ["cayley", "matrix_exp"]


def holder(parametrization: Module, weight: Tensor) -> Any:
    module = nn.Module()
    module.weight = nn.Parameter(weight)
    return register_parametrization(module, "weight", parametrization)


def orthonormal(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    U, _, Vh = torch.linalg.svd(torch.randn(shape, dtype=dtype), full_matrices=False)
    product: Tensor = U @ Vh
    return product


def moved(module: Any, by: Tensor) -> Tensor:
    """The weight after `by` is added to the original."""
    with torch.no_grad():
        chain_of(module).original.add_(by)
    weight: Tensor = module.weight.detach()
    return weight


# what is kept, and what takes the place of other matrices


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", MAPS)
def test_orthogonal_matrix_is_kept(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    Q, other = orthonormal(*shape, dtype=dtype), orthonormal(*shape, dtype=dtype)
    module = holder(Orthogonal(name, strict=True), Q)
    torch.testing.assert_close(module.weight.detach(), Q, rtol=0, atol=1e-14)
    module.weight = other
    torch.testing.assert_close(module.weight.detach(), other, rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", [(4, 4), (6, 3), (3, 5)])
@pytest.mark.parametrize("make", [*(lambda n=n: Orthogonal(n) for n in MAPS), Grassmann])
def test_nearest_orthogonal_matrix_takes_the_place_of_another(
    make: Any, shape: tuple[int, int]
) -> None:
    X = torch.randn(shape, dtype=torch.float64)
    U, _, Vh = torch.linalg.svd(X, full_matrices=False)
    torch.testing.assert_close(holder(make(), X).weight.detach(), U @ Vh)


@pytest.mark.parametrize("X", [torch.zeros(4, 3), torch.ones(4, 3), torch.ones(2, 3, 3)])
@pytest.mark.parametrize("make", [*(lambda n=n: Orthogonal(n) for n in MAPS), Grassmann])
def test_matrices_of_deficient_rank_are_completed(make: Any, X: Tensor) -> None:
    assert non_orthonormality(holder(make(), X.clone()).weight) < 1e-6


@pytest.mark.parametrize("name", MAPS)
def test_strict_refuses_another_and_tells_how_far_it_is(name: str) -> None:
    module = holder(Orthogonal(name, strict=True), torch.eye(3))
    with pytest.raises(ValueError, match="is not orthogonal: it deviates by 1.73,"):
        module.weight = math.sqrt(2) * torch.eye(3)
    torch.testing.assert_close(module.weight.detach(), torch.eye(3))


# the formulas


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4, 4), (6, 3), (5, 4), (4, 1)])
@pytest.mark.parametrize("name", AROUND_A_BASE)
def test_value_is_the_map_of_the_large_skew_matrix_times_the_base(
    name: str, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    n, k = shape
    base, X = orthonormal(n, k, dtype=dtype), torch.randn(n, k, dtype=dtype)
    tangent = X if n > k else base @ X
    S = base.mH @ tangent
    P = tangent - base @ S
    W = base @ ((S - S.mH) / 2) @ base.mH + P @ base.mH - base @ P.mH
    identity = torch.eye(n, dtype=dtype)
    turn = torch.matrix_exp(W)
    if name == "cayley":
        turn = torch.linalg.solve(identity - W / 2, identity + W / 2)
    torch.testing.assert_close(moved(holder(Orthogonal(name), base), X), turn @ base)


@pytest.mark.parametrize("name", AROUND_A_BASE)
def test_small_steps_move_the_weight_as_if_there_were_no_map(name: str) -> None:
    base, X = orthonormal(6, 3), 1e-6 * torch.randn(6, 3, dtype=torch.float64)
    S = base.mT @ X
    tangent = X - base @ (S + S.mT) / 2
    step = moved(holder(Orthogonal(name), base), X) - base
    torch.testing.assert_close(step, tangent, rtol=1e-4, atol=1e-11)


def test_polar_is_the_factor_of_the_decomposition() -> None:
    module = holder(Orthogonal("polar"), torch.eye(5, 3, dtype=torch.float64))
    X = torch.randn(5, 3, dtype=torch.float64)
    U, _, Vh = torch.linalg.svd(torch.eye(5, 3) + X, full_matrices=False)
    torch.testing.assert_close(moved(module, X), U @ Vh)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 4)])
@pytest.mark.parametrize("name", MAPS)
def test_every_direction_is_reached(name: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    module = holder(Orthogonal(name), orthonormal(*shape, dtype=dtype))
    original = chain_of(module).original.detach()
    is_complex = dtype == torch.complex128

    def evaluate(x: Tensor) -> Tensor:
        value: Tensor = chain_of(module)[0](torch.view_as_complex(x) if is_complex else x)
        return torch.view_as_real(value) if is_complex else value

    x = torch.view_as_real(original) if is_complex else original
    autograd: Any = torch.autograd.functional
    jacobian = autograd.jacobian(evaluate, x)
    n, k = max(shape), min(shape)
    dimension = 2 * n * k - k * k if is_complex else n * k - k * (k + 1) // 2
    assert torch.linalg.matrix_rank(jacobian.reshape(x.numel(), -1), rtol=1e-9) == dimension


@pytest.mark.parametrize("name", ["cayley", "matrix_exp", "householder"])  # polar: at the function
@pytest.mark.parametrize("shape", [(64, 64), (300, 300), (300, 20), (20, 300)])
def test_orthogonal_to_rounding_wherever_the_original_drifts(
    name: str, shape: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    module = holder(Orthogonal(name), orthonormal(*shape, dtype=torch.float32))
    X = torch.randn(shape)
    for norm in (1.0, 3.0, 10.0):
        weight = moved(module, X * (norm / torch.linalg.matrix_norm(X, 2))).double()
        allowed = 20 * torch.finfo(torch.float32).eps * min(shape) ** 0.5
        assert non_orthonormality(weight) <= allowed, norm


def test_long_tall_matrices_need_no_large_square_one() -> None:
    module = holder(Orthogonal(), torch.randn(30000, 4))  # its square would take 3.6 GB
    module.weight.square().sum().backward()
    assert non_orthonormality(module.weight) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", MAPS)
def test_half_precision_is_kept_to_its_rounding(name: str, dtype: torch.dtype) -> None:
    Q = orthonormal(16, 8, dtype=torch.float32)
    module = holder(Orthogonal(name), Q.to(dtype))
    assert module.weight.dtype == dtype
    torch.testing.assert_close(
        module.weight.detach().float(), Q, rtol=0, atol=4 * torch.finfo(dtype).eps
    )


@pytest.mark.parametrize("shape", [(4, 4), (6, 4), (4, 6)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_reflections_without_a_base_point_load_from_earlier_versions(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    old = holder(Orthogonal("householder", trivialization=False), torch.randn(shape, dtype=dtype))
    state = old.state_dict()
    assert not any("base" in name for name in state)
    module = holder(Orthogonal("householder"), torch.randn(shape, dtype=dtype))
    assert not module.parametrizations.weight.original.any()
    state_of_today = copy.deepcopy(module.state_dict())
    module.load_state_dict(state, strict=True)
    assert module.weight.equal(old.weight)
    module.load_state_dict(state_of_today, strict=True)
    other = holder(Orthogonal("householder"), torch.randn(shape, dtype=dtype))
    other.load_state_dict(state_of_today, strict=True)
    assert module.weight.equal(other.weight)


@pytest.mark.parametrize("shape", [(16, 16), (24, 16), (16, 24)])
@pytest.mark.parametrize("name", ["cayley", "matrix_exp", "householder", "polar"])
def test_a_distant_matrix_is_recovered(name: str, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    target, start = orthonormal(*shape), orthonormal(*shape)
    if shape[0] == shape[1]:
        target[0] *= torch.linalg.det(target @ start).sign()
    module = holder(Orthogonal(name), start)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(500):
        optimizer.zero_grad()
        loss = (module.weight - target).square().sum()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-8


# without a base point


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "shape"),
    [("cayley", (4, 4)), ("cayley", (5, 3)), ("cayley", (3, 5)), ("matrix_exp", (4, 4))],
)
def test_without_base_point_the_original_holds_the_value(
    name: str, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    X = torch.eye(*shape) + 0.3 * torch.randn(shape, dtype=dtype)
    U, _, Vh = torch.linalg.svd(X, full_matrices=False)
    module = holder(Orthogonal(name, trivialization=False), X)
    torch.testing.assert_close(module.weight.detach(), U @ Vh)
    assert not any(True for _ in module.parametrizations.weight[0].buffers())


@pytest.mark.parametrize("name", AROUND_A_BASE)
def test_without_base_point_minus_one_is_out_of_reach(name: str) -> None:
    module = holder(Orthogonal(name, trivialization=False), torch.eye(3))
    with pytest.raises(ValueError, match=r"eigenvalue .* away from -1.*Use trivialization=True"):
        module.weight = torch.diag(torch.tensor([1.0, 1.0, -1.0]))
    assert module.weight.equal(torch.eye(3))
    holder(Orthogonal(name), torch.eye(3)).weight = -torch.eye(3)


def test_without_base_point_rectangular_matrices_have_no_logarithm() -> None:
    module = holder(Orthogonal("matrix_exp", trivialization=False), torch.eye(3, 2))
    with pytest.raises(NotImplementedError, match="rectangular"):
        module.weight = torch.eye(3, 2)


# rotations


@pytest.mark.parametrize("name", ["cayley", "matrix_exp", "householder"])
def test_nearest_rotation_takes_the_place_of_a_reflection(name: str) -> None:
    U, S, Vh = torch.linalg.svd(torch.randn(2, 4, 4, dtype=torch.float64))
    U[0] *= torch.linalg.det(U[0] @ Vh[0]).sign()  # the first a reflection, the second a rotation
    U[0, :, -1] *= -torch.linalg.det(U[0] @ Vh[0]).sign()
    U[1, :, -1] *= torch.linalg.det(U[1] @ Vh[1]).sign()
    expected = U.clone()
    expected[0, :, -1] *= -1
    module = holder(SpecialOrthogonal(name), (U * S.unsqueeze(-2)) @ Vh)
    torch.testing.assert_close(module.weight.detach(), expected @ Vh)


@pytest.mark.parametrize("name", ["cayley", "matrix_exp", "householder"])
def test_determinant_stays_one_while_the_original_drifts(name: str) -> None:
    module = holder(SpecialOrthogonal(name), torch.randn(5, 5, dtype=torch.float64))
    for _ in range(5):
        weight = moved(module, torch.randn(5, 5, dtype=torch.float64))
        assert torch.linalg.det(weight).item() == pytest.approx(1)


def test_strict_rotation_refuses_a_reflection() -> None:
    mirror = torch.diag(torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match="is not a rotation: it deviates by 2,"):
        holder(SpecialOrthogonal(strict=True), mirror)
    assert holder(SpecialOrthogonal(strict=True), -torch.eye(2)).weight.equal(-torch.eye(2))


def test_rotations_are_real_and_square_and_not_polar() -> None:
    with pytest.raises(ValueError, match=r"square.*\[3, 2\]"):
        holder(SpecialOrthogonal(), torch.eye(3, 2))
    with pytest.raises(ValueError, match="real.*complex64"):
        holder(SpecialOrthogonal(), torch.eye(3, dtype=torch.complex64))
    with pytest.raises(ValueError, match="can change its sign"):
        SpecialOrthogonal("polar")


# subspaces


@pytest.mark.parametrize("shape", [(6, 3), (2, 5)])
def test_subspace_has_no_gradient_within_itself(shape: tuple[int, int]) -> None:
    module = holder(Grassmann(), orthonormal(*shape))
    (module.weight * torch.randn(shape, dtype=torch.float64)).sum().backward()
    base, gradient = module.weight.detach(), chain_of(module).original.grad
    if shape[0] < shape[1]:
        base, gradient = base.mT, gradient.mT
    assert gradient.norm() > 0.1
    torch.testing.assert_close(base.mT @ gradient, torch.zeros_like(base.mT @ gradient))


def test_subspace_moves_with_the_part_of_the_original_outside() -> None:
    base = orthonormal(6, 2)
    within = base @ torch.randn(2, 2, dtype=torch.float64)
    module = holder(Grassmann(), base)
    torch.testing.assert_close(moved(module, within), base)
    X = torch.randn(6, 2, dtype=torch.float64)
    P = X - base @ (base.mT @ X)
    W = P @ base.mT - base @ P.mT
    identity = torch.eye(6, dtype=torch.float64)
    expected = torch.linalg.solve(identity - W / 2, identity + W / 2) @ base
    torch.testing.assert_close(moved(module, X), expected)


# what is refused


def test_unknown_map_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'cayley', .*Got orthogonal_map='qr'"):
        Orthogonal("qr")


@pytest.mark.parametrize("make", [Orthogonal, Grassmann])
def test_vector_is_refused_with_its_shape(make: Any) -> None:
    with pytest.raises(ValueError, match=r"\(\*, m, n\).*\[3\]"):
        holder(make(), torch.ones(3))


def test_repr_shows_the_arguments() -> None:
    assert repr(Orthogonal()) == "Orthogonal('cayley')"
    shown = repr(Orthogonal("matrix_exp", trivialization=False, strict=True))
    assert shown == "Orthogonal('matrix_exp', trivialization=False, strict=True)"


@pytest.mark.parametrize("orthogonal_map", MAPS)
def test_a_large_weight_is_accepted_by_its_own_strict_map(orthogonal_map: str) -> None:
    torch.manual_seed(0)
    layer: Any = nn.Linear(300, 300, dtype=torch.float64)
    register_parametrization(layer, "weight", Orthogonal(orthogonal_map))
    layer.parametrizations.weight[0].strict = True
    layer.weight = layer.weight.detach()


@pytest.mark.parametrize("orthogonal_map", MAPS)
def test_fake_tensors_are_registered_on_and_assigned(orthogonal_map: str) -> None:
    with FakeTensorMode():
        layer: Any = nn.Linear(3, 5)
        register_parametrization(layer, "weight", Orthogonal(orthogonal_map))
        layer.weight = torch.randn(5, 3)
        assert layer.weight.shape == (5, 3)


@pytest.mark.parametrize("orthogonal_map", MAPS)
def test_what_was_registered_in_inference_mode_can_be_trained(orthogonal_map: str) -> None:
    layer: Any = nn.Linear(3, 3)
    with torch.inference_mode():
        register_parametrization(layer, "weight", Orthogonal(orthogonal_map))
    layer.weight.sum().backward()
