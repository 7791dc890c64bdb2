"""Maps made of others, and frozen, scaled and rounded tensors, against plain computations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paramdesc import register_parametrization
from paramdesc.errors import ConstraintError
from paramdesc.parametrizations.composition.blocks import Blocks, Stacked
from paramdesc.parametrizations.composition.compose import Compose
from paramdesc.parametrizations.composition.flattened import Flattened
from paramdesc.parametrizations.entries.frozen import Frozen
from paramdesc.parametrizations.entries.scaled import ReZero, Scaled
from paramdesc.parametrizations.entries.straight_through import Rounded, StraightThrough
from paramdesc.parametrizations.norms.spectral_norm import SpectralNorm
from paramdesc.parametrizations.norms.weight_norm import WeightNorm
from paramdesc.parametrizations.orthogonality.torch_layouts import TorchOrthogonal
from paramdesc.parametrizations.spectra.low_rank import LowRank
from paramdesc.parametrizations.structure.symmetric import Symmetric


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Holder(nn.Module):
    weight: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape))


def holder(parametrization: Any, *shape: int) -> Any:
    return register_parametrization(Holder(*shape), "weight", parametrization)


def map_of(module: Any) -> Any:
    return module.parametrizations.weight[0]


def norm(X: Tensor) -> float:
    return float(torch.linalg.matrix_norm(X.detach(), 2))


def step(module: nn.Module) -> None:
    """A training step that changes the weight a good deal."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))


def test_a_composition_is_its_maps_in_order() -> None:
    module = holder(Compose(torch.exp, Symmetric()), 3, 3)
    X = module.parametrizations.weight.original
    assert module.weight.equal(X.exp().triu() + X.exp().triu(1).mT)


def test_a_composition_takes_the_originals_of_its_first_map() -> None:
    module = holder(Compose(WeightNorm(), Symmetric()), 3, 3)
    chain = module.parametrizations.weight
    assert chain.original0.shape == (3, 1)
    Y = chain.original0 * chain.original1 / chain.original1.norm(dim=1, keepdim=True)
    assert torch.allclose(module.weight, Y.triu() + Y.triu(1).mT)


def test_a_composition_without_maps_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one map"):
        Compose()


def test_a_map_without_right_inverse_inside_is_named_at_assignment() -> None:
    for parametrization in (Compose(torch.exp), Blocks(torch.exp, 3), Flattened(torch.exp)):
        module = holder(parametrization, 3, 3)
        with pytest.raises(NotImplementedError, match="does not implement right_inverse"):
            module.weight = torch.ones(3, 3)


def test_blocks_have_maps_of_their_own() -> None:
    module = holder(Blocks([Symmetric(), None, TorchOrthogonal("cayley")], [3, 1, 2]), 6, 3)
    X = module.parametrizations.weight.original
    A, b, Q = module.weight.split([3, 1, 2])
    assert A.equal(A.mT)
    assert b.equal(X[3:4])
    assert torch.allclose(Q @ Q.mT, torch.eye(2), atol=1e-6)


def test_blocks_get_copies_of_one_map_with_states_of_their_own() -> None:
    module = holder(Blocks(TorchOrthogonal("cayley"), 4), 12, 3)
    bases = [inner.base for inner in map_of(module).maps]
    assert len({id(base) for base in bases}) == 4
    assert torch.allclose(module.weight, torch.cat(bases), atol=1e-6)


@pytest.mark.parametrize("dim", [0, -1, 1])
def test_a_stack_of_blocks_is_what_the_blocks_are(dim: int) -> None:
    X = torch.randn(6, 6)
    stacked, apart = Stacked(torch.matrix_exp, 2, dim=dim), Blocks(torch.matrix_exp, 2, dim=dim)
    X = torch.randn(*((6, 3) if dim == 0 else (3, 6)))
    assert torch.allclose(stacked(X), apart(X))


def test_blocks_that_do_not_fit_are_refused_with_the_sizes() -> None:
    with pytest.raises(
        ValueError, match=r"\[5, 3\] cannot be split into 2 blocks of the same size"
    ):
        holder(Blocks(Symmetric(), 2), 5, 3)
    with pytest.raises(ValueError, match=r"\[5, 3\] cannot be split into 2"):
        holder(Stacked(Symmetric(), 2), 5, 3)
    with pytest.raises(ValueError, match=r"sizes \[3, 3\] do not fill dimension 0"):
        holder(Blocks(Symmetric(), [3, 3]), 5, 3)
    with pytest.raises(ValueError, match="Blocks got 2 maps for blocks=3"):
        Blocks([Symmetric(), None], 3)
    with pytest.raises(ValueError, match="Blocks got one map for blocks=0"):
        Blocks(Symmetric())
    with pytest.raises(ValueError, match="has no dimension 2"):
        holder(Blocks(Symmetric(), 2, dim=2), 4, 2)
    with pytest.raises(ValueError, match="count=0"):
        Stacked(Symmetric(), 0)
    with pytest.raises(ValueError, match="LowRank has several originals"):
        holder(Blocks(LowRank(1), 2), 4, 2)
    with pytest.raises(ValueError, match="LowRank has several originals"):
        holder(Stacked(LowRank(1), 2), 4, 2)


@pytest.mark.parametrize("rows", [(0,), 1, (1, 3), (-1, 0), (0, 1, 2, 3)])
def test_flattened_sees_the_axes_as_rows_in_their_order(rows: int | tuple[int, ...]) -> None:
    seen = []

    def double(X: Tensor) -> Tensor:
        seen.append(X)
        return 2 * X

    X = torch.randn(2, 3, 4, 5)
    assert Flattened(double, rows)(X).equal(2 * X)
    axes = [rows] if isinstance(rows, int) else [axis % 4 for axis in rows]
    order = axes + [axis for axis in range(4) if axis not in axes]
    m = torch.Size(X.shape[axis] for axis in axes).numel()
    assert seen[0].equal(X.permute(order).reshape(m, -1))


def test_flattened_refuses_axes_that_are_not_there_or_twice() -> None:
    for rows in ((0, 0), (0, -3), 3, (-4,)):
        with pytest.raises(ValueError, match="of a weight with 3 dimensions"):
            Flattened(Symmetric(), rows)(torch.randn(2, 3, 4))


def test_flattened_keeps_the_shape_of_one_original_and_factors_of_several() -> None:
    assert holder(Flattened(Symmetric()), 4, 2, 2).parametrizations.weight.original.ndim == 3
    module = holder(Flattened(LowRank(2), (0, 2)), 3, 4, 2)
    matrix = module.weight.movedim(2, 1).flatten(0, 1)
    assert torch.linalg.matrix_rank(matrix) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: Blocks(SpectralNorm(n_power_iterations=5), 2),
        lambda: Compose(Scaled(), Blocks([SpectralNorm(n_power_iterations=5), None])),
    ],
)
def test_states_inside_move_at_training_steps_only(make: Any) -> None:
    module = holder(make(), 6, 3)
    assert norm(module.weight[:3]) == pytest.approx(1.0, abs=1e-3)
    for _ in range(3):
        step(module)
        first = module.weight.detach()
        assert module.weight.equal(first)
    module.eval()
    step(module)
    value = module.weight.detach()
    assert module.weight.equal(value)
    twin = holder(make(), 6, 3).eval()
    twin.load_state_dict(module.state_dict())
    assert twin.weight.equal(value)
    module.train()
    for _ in range(30):
        with torch.no_grad():
            module.parametrizations.weight.original.mul_(1.0)
        value = module.weight
    assert norm(value[:3]) == pytest.approx(1.0, abs=1e-4)


def test_frozen_entries_keep_their_value_whatever_the_optimizer_does() -> None:
    module = holder(Frozen((slice(None), 1)), 3, 4)
    before = module.weight.detach().clone()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=1.0)
    for _ in range(3):
        module.weight.square().sum().backward()
        optimizer.step()
    assert module.weight[:, 1].equal(before[:, 1])
    assert (module.weight != before).sum() == 9
    assert not module.parametrizations.weight.original.grad[:, 1].any()


def test_assigning_leaves_frozen_entries_and_writing_to_the_value_changes_them() -> None:
    module = holder(Frozen(torch.eye(3).bool()), 3, 3)
    before = module.weight.detach().clone()
    module.weight = torch.ones(3, 3)
    assert module.weight.equal(torch.where(torch.eye(3).bool(), before, 1.0))
    map_of(module).value.fill_(2.0)
    assert module.weight.equal(1 + torch.eye(3))


def test_strict_refuses_other_values_of_frozen_entries() -> None:
    module = holder(Frozen([0], strict=True), 2, 2)
    value = module.weight.detach().clone()
    value[0, 0] += 2.0
    with pytest.raises(ConstraintError, match="in the frozen entries: it deviates by 2,"):
        module.weight = value
    value[0, 0] = module.weight[0, 0].detach()
    value[1] = 7.0
    module.weight = value
    assert module.weight.equal(value)


def test_masks_and_indices_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"mask of shape \[2\] does not fit a weight of shape"):
        holder(Frozen(torch.ones(2).bool()), 3, 3)
    with pytest.raises(IndexError):
        holder(Frozen(5), 3, 3)


@pytest.mark.parametrize("dim", [None, 0, (0, -1)])
def test_scales_are_trained_along_their_axes(dim: Any) -> None:
    module = holder(Scaled(dim, init=3.0), 2, 4, 3)
    before = module.weight.detach().clone()
    scale = map_of(module).scale
    expected = {None: (), 0: (2, 1, 1), (0, -1): (2, 1, 3)}
    assert scale.shape == expected[dim]
    assert torch.allclose(module.parametrizations.weight.original * 3, before)
    with torch.no_grad():
        scale.mul_(2.0)
    assert torch.allclose(module.weight, 2 * before)
    module.weight = before
    assert torch.allclose(module.weight, before)
    assert (scale == 6).all()


def test_rezero_starts_at_zero_and_grows_by_its_scale() -> None:
    module = holder(ReZero(), 3, 4)
    assert not module.weight.any()
    module.weight.sum().backward()
    original = module.parametrizations.weight.original
    assert original.any()
    assert not original.grad.any()
    assert map_of(module).scale.grad == pytest.approx(original.sum().item(), abs=1e-5)


def test_scales_that_are_no_numbers_or_axes_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="init=inf"):
        Scaled(init=float("inf"))
    with pytest.raises(IndexError, match="has no axis 2"):
        holder(Scaled(2), 3, 4)


def test_symmetric_rounding_is_what_torch_makes_of_eight_bits() -> None:
    X = torch.randn(5, 7)
    step = (X.abs().max() / 127).item()
    expected = torch.fake_quantize_per_tensor_affine(X, step, 0, -127, 127)
    assert torch.allclose(Rounded()(X), expected, rtol=0, atol=1e-6)
    steps = X.abs().amax(1) / 7
    zeros = torch.zeros(5, dtype=torch.int32)
    expected = torch.fake_quantize_per_channel_affine(X, steps, zeros, 0, -7, 7)
    assert torch.allclose(Rounded(4, dim=0)(X), expected, rtol=0, atol=1e-6)


def test_rounding_with_a_zero_point_is_what_torch_makes_of_it() -> None:
    X = torch.rand(5, 7) - 0.2
    parametrization = Rounded(symmetric=False)
    step, zero = parametrization.scale_and_zero(X)
    assert step.item() == pytest.approx((X.max() - X.min()).item() / 255)
    expected = torch.fake_quantize_per_tensor_affine(X, step.item(), int(zero.item()), 0, 255)
    assert torch.allclose(parametrization(X), expected, rtol=0, atol=1e-6)
    assert parametrization(X).unique().numel() <= 256
    positive = parametrization(X.abs() + 1)
    assert torch.allclose(positive, X.abs() + 1, rtol=0, atol=0.01)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_rounded_stays_as_it_is(symmetric: bool, dtype: torch.dtype) -> None:
    for bits in (2, 4, 8):
        parametrization = Rounded(bits, symmetric=symmetric)
        Y = parametrization(torch.randn(20, 20).to(dtype))
        assert torch.allclose(parametrization(Y), Y, rtol=2 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("symmetric", [True, False])
def test_rounding_leaves_zeros_and_passes_gradients_on(symmetric: bool) -> None:
    parametrization = Rounded(symmetric=symmetric)
    X = torch.zeros(2, 3, requires_grad=True)
    Y = parametrization(X)
    (Y * torch.arange(6.0).reshape(2, 3)).sum().backward()
    assert not Y.any()
    assert X.grad is not None
    assert X.grad.equal(torch.arange(6.0).reshape(2, 3))


def test_strict_rounding_refuses_what_is_not_on_the_grid() -> None:
    module = Holder(2, 2)
    with pytest.raises(ConstraintError, match="is not on its grid"):
        register_parametrization(module, "weight", Rounded(4, strict=True))
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[7.0, -3.0], [0.0, 1.0]]))
    before = module.weight.detach().clone()
    register_parametrization(module, "weight", Rounded(4, strict=True))
    assert module.weight.equal(before)


def test_bits_and_axes_out_of_range_are_refused() -> None:
    for bits in (1, 17):
        with pytest.raises(ValueError, match=f"bits={bits}"):
            Rounded(bits)
    with pytest.raises(IndexError, match="no axis 2"):
        Rounded(dim=2)(torch.ones(2, 2))


def test_straight_through_is_the_function_with_the_gradient_of_the_identity() -> None:
    X = torch.randn(3, 4, requires_grad=True)
    Y = StraightThrough(torch.sign)(X)
    assert Y.equal(X.sign())
    (2 * Y).sum().backward()
    assert X.grad is not None
    assert (X.grad == 2).all()
