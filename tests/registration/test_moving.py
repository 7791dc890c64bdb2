"""Base points that follow the training."""

from __future__ import annotations

import copy
import gc
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.nn import Module
from torch.optim import LBFGS, SGD, Adam, AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel

from paramdesc import cached, register_parametrization, transfer_parametrizations_and_params
from paramdesc.chain.bases import steps_of
from paramdesc.errors import AveragedOriginalsError
from paramdesc.parametrizations import (
    AlmostOrthogonal,
    Blocks,
    Compose,
    FixedRank,
    Flattened,
    Grassmann,
    Normal,
    Orthogonal,
    PositiveDeterminant,
    Scaled,
    SpecialLinear,
    SpecialOrthogonal,
    Sphere,
    Stacked,
    Symmetric,
    Symplectic,
    TorchOrthogonal,
    almost_orthogonal,
    correlation,
    fixed_rank,
    frobenius_norm,
    grassmann,
    joint,
    normal,
    oblique,
    orthogonal,
    orthogonal_convolution,
    positive_determinant,
    special_linear,
    special_orthogonal,
    sphere,
    symplectic,
    tie,
)
from paramdesc.registration import groups, moving
from paramdesc.registration.tied import modules_with

MAPS: dict[str, Callable[[int | None], Module]] = {
    "cayley": lambda rebase: Orthogonal(rebase=rebase),
    "matrix_exp": lambda rebase: Orthogonal("matrix_exp", rebase=rebase),
    "householder": lambda rebase: Orthogonal("householder", rebase=rebase),
    "rotation": lambda rebase: SpecialOrthogonal(rebase=rebase),
    "subspace": lambda rebase: Grassmann(rebase=rebase),
    "band": lambda rebase: AlmostOrthogonal(0.3, rebase=rebase),
    "normal": lambda rebase: Normal(rebase=rebase),
    "symplectic": lambda rebase: Symplectic(rebase=rebase),
    "determinant": lambda rebase: PositiveDeterminant(rebase=rebase),
    "special linear": lambda rebase: SpecialLinear(rebase=rebase),
    "torch, cayley": lambda rebase: TorchOrthogonal("cayley", rebase=rebase),
    "torch, matrix_exp": lambda rebase: TorchOrthogonal("matrix_exp", rebase=rebase),
    "torch, householder": lambda rebase: TorchOrthogonal("householder", rebase=rebase),
    "compose": lambda rebase: Compose(Orthogonal(rebase=rebase), Scaled()),
    "blocks": lambda rebase: Blocks([Orthogonal(rebase=rebase), None], dim=0),
    "stacked": lambda rebase: Stacked(Orthogonal(rebase=rebase), 2),
    "flattened": lambda rebase: Flattened(Orthogonal(rebase=rebase), rows=(1,)),
}
SQUARE_ONLY = {"rotation", "normal", "symplectic", "determinant", "special linear"}
CASES = [(name, shape) for name in MAPS for shape in ([4, 4], [6, 4], [4, 6])]
CASES = [(name, shape) for name, shape in CASES if shape[0] == shape[1] or name not in SQUARE_ONLY]


def layer_of(parametrization: Module, shape: list[int], dtype: torch.dtype = torch.float64) -> Any:
    torch.manual_seed(0)
    layer = nn.Linear(shape[1], shape[0], bias=False, dtype=dtype)
    return register_parametrization(layer, "weight", parametrization)


def chain_of(layer: Any, name: str = "weight") -> Any:
    return layer.parametrizations[name]


def bases_of(layer: Any) -> dict[str, Tensor]:
    return {name: x for name, x in layer.named_buffers() if name.endswith("base")}


def goal(shape: list[int], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(7))


def step(layer: Any, optimizer: Optimizer, name: str = "weight") -> None:
    value = getattr(layer, name)
    optimizer.zero_grad()
    (value * goal(list(value.shape), value.dtype)).sum().backward()
    optimizer.step()


def train(layer: Any, steps: int, lr: float = 0.05) -> Optimizer:
    optimizer = SGD(layer.parameters(), lr=lr, momentum=0.5)
    for _ in range(steps):
        step(layer, optimizer)
    return optimizer


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_a_move_keeps_the_value(name: str, shape: list[int]) -> None:
    layer = layer_of(MAPS[name](None), shape)
    train(layer, 7)
    chain = chain_of(layer)
    original, value, bases = chain.original, layer.weight.detach(), bases_of(layer)
    places = {key: x.data_ptr() for key, x in bases.items()}
    before = {key: x.clone() for key, x in bases.items()}
    chain.move_base()
    rounding = 1e-14 * max(10.0, value.abs().max().item() ** 2)
    torch.testing.assert_close(layer.weight.detach(), value, rtol=0, atol=rounding)
    assert chain.original is original
    assert bases
    for key, base in bases_of(layer).items():
        assert base is bases[key]
        assert base.data_ptr() == places[key]
        assert not torch.equal(base, before[key])
    # moved again, nothing is left to move: the chart is at its middle
    again = {key: x.clone() for key, x in bases.items()}
    chain.move_base()
    for key, base in bases_of(layer).items():
        torch.testing.assert_close(base, again[key], rtol=0, atol=rounding)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex128])
@pytest.mark.parametrize("name", ["cayley", "matrix_exp", "subspace", "band", "normal"])
def test_a_move_keeps_the_value_in_other_dtypes(name: str, dtype: torch.dtype) -> None:
    layer = layer_of(MAPS[name](None), [4, 4], dtype)
    with torch.no_grad():
        chain_of(layer).original.add_(0.3 * goal([4, 4], dtype))
    value = layer.weight.detach()
    chain_of(layer).move_base()
    allowed = {torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.complex128: 1e-13}[dtype]
    torch.testing.assert_close(layer.weight.detach(), value, rtol=0, atol=allowed)


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_base_points_move_by_count(name: str, shape: list[int]) -> None:
    layer = layer_of(MAPS[name](3), shape)
    optimizer = SGD(layer.parameters(), lr=0.01)
    versions = []
    for _ in range(7):
        step(layer, optimizer)
        versions.append(sum(x._version for x in bases_of(layer).values()))
    moves = [later - earlier for earlier, later in zip([versions[0], *versions], versions)]  # noqa: B905
    assert [bool(moved) for moved in moves] == [False, False, True, False, False, True, False]


def test_none_never_moves() -> None:
    layer = layer_of(Orthogonal(rebase=None), [4, 4])
    base = bases_of(layer)["parametrizations.weight.0.base"].clone()
    train(layer, 120)
    assert torch.equal(chain_of(layer)[0].base, base)


@pytest.mark.parametrize("rebase", [0, -1, 2.0, True, "50"])
def test_the_number_of_steps_is_checked(rebase: Any) -> None:
    with pytest.raises(ValueError, match="rebase is the number of training steps"):
        Orthogonal(rebase=rebase)


def test_a_base_point_on_another_device_stays() -> None:
    layer = layer_of(Orthogonal(rebase=1), [4, 4])
    optimizer = SGD(layer.parameters(), lr=0.1)
    first = chain_of(layer)[0]
    first.base = first.base.to("meta")  # stands for a GPU, beside originals on the CPU
    chain_of(layer).original.grad = goal([4, 4])
    optimizer.step()
    torch.testing.assert_close(chain_of(layer).original, -0.1 * goal([4, 4]))


# training


def far_target(n: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(n, n, dtype=torch.float64, generator=generator)
    Q: Tensor = torch.linalg.qr(start).Q
    return Q


@pytest.mark.parametrize("orthogonal_map", ["cayley", "matrix_exp"])
@pytest.mark.parametrize(
    "make",
    [
        lambda p: SGD(p, lr=0.2),
        lambda p: SGD(p, lr=0.05, momentum=0.9),
        lambda p: SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
        lambda p: Adam(p, lr=0.01),
        lambda p: AdamW(p, lr=0.01, weight_decay=0.1),
    ],
    ids=["SGD", "momentum", "decay", "Adam", "AdamW"],
)
def test_it_recovers_a_matrix_far_away(make: Any, orthogonal_map: str) -> None:
    target = far_target()
    layer = layer_of(Orthogonal(orthogonal_map), [32, 32])
    optimizer = make(layer.parameters())
    for _ in range(500):
        loss = (layer.weight - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (layer.weight - target).square().sum() < 1e-6
    assert Orthogonal().deviation(layer.weight) < 1e-14


def test_momentum_carries_over() -> None:
    """On a circle, a rotation under momentum goes on as if there were no base point."""
    moving, fixed = (layer_of(SpecialOrthogonal("matrix_exp", rebase=r), [2, 2]) for r in (1, None))
    optimizers = [SGD(x.parameters(), lr=1e-3, momentum=0.9) for x in (moving, fixed)]
    for _ in range(40):
        for layer, optimizer in zip((moving, fixed), optimizers, strict=True):
            step(layer, optimizer)
    torch.testing.assert_close(moving.weight, fixed.weight, rtol=0, atol=1e-13)
    torch.testing.assert_close(
        optimizers[0].state[chain_of(moving).original]["momentum_buffer"],
        optimizers[1].state[chain_of(fixed).original]["momentum_buffer"],
    )


def test_a_closure_is_evaluated_at_one_base_point() -> None:
    layer, target = layer_of(Orthogonal(rebase=1), [8, 8]), far_target(8)
    optimizer = LBFGS(layer.parameters(), line_search_fn="strong_wolfe")
    versions = set()

    def closure() -> Tensor:
        versions.add(chain_of(layer)[0].base._version)
        optimizer.zero_grad()
        loss: Any = (layer.weight - target).square().sum()
        loss.backward()
        return loss  # type: ignore[no-any-return]

    for i in range(6):
        versions.clear()
        optimizer.step(closure)  # type: ignore[no-untyped-call]
        assert len(versions) == 1, i
    if torch.linalg.det(target) * torch.linalg.det(layer.weight) > 0:
        assert closure() < 1e-9


def test_a_graph_outlives_a_move() -> None:
    layer = layer_of(Orthogonal(rebase=1), [4, 4])
    optimizer = SGD(layer.parameters(), lr=0.1)
    value = layer.weight
    (expected,) = torch.autograd.grad(value[0, 0], chain_of(layer).original, retain_graph=True)
    step(layer, optimizer)
    (found,) = torch.autograd.grad(value[0, 0], chain_of(layer).original)
    assert torch.equal(found, expected)


GRAPHS: dict[str, Callable[[int | None], Module]] = {
    **MAPS,
    "householder": lambda rebase: Orthogonal("householder", rebase=rebase),
    "fixed rank": lambda rebase: FixedRank(2, rebase=rebase),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_has_a_copy_of_the_base_point(name: str) -> None:
    layer = layer_of(GRAPHS[name](None), [4, 4])
    train(layer, 3)
    originals = [x for x in layer.parameters() if x.requires_grad]
    loss = (layer.weight * goal([4, 4])).sum()
    expected = torch.autograd.grad(loss, originals, retain_graph=True)
    with torch.no_grad():
        for x in filter(torch.is_floating_point, layer.buffers()):  # others are never moved
            x.add_(0)
    found = torch.autograd.grad(loss, originals)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_evaluation_never_moves() -> None:
    layer = layer_of(Orthogonal(rebase=1), [4, 4])
    base = chain_of(layer)[0].base
    version = base._version
    for mode in (True, False):
        layer.train(mode)
        layer(torch.randn(2, 4, dtype=torch.float64)).sum().backward()
        torch.func.functional_call(layer, {}, torch.randn(2, 4, dtype=torch.float64))
        with torch.no_grad():
            chain_of(layer).original.mul_(0.9)
    assert base._version == version


def test_kept_values_are_stale_after_a_move() -> None:
    layer = layer_of(Orthogonal(rebase=1), [4, 4])
    optimizer = SGD(layer.parameters(), lr=0.1)
    with cached(layer, persistent=True):
        for _ in range(3):
            kept = layer.weight
            assert layer.weight is kept
            step(layer, optimizer)
            assert layer.weight is not kept
            torch.testing.assert_close(layer.weight, chain_of(layer)(), rtol=0, atol=0)


def test_what_is_not_finite_is_not_moved() -> None:
    layer = layer_of(Orthogonal(rebase=1), [4, 4])
    base = chain_of(layer)[0].base.clone()
    with torch.no_grad():
        chain_of(layer).original[0, 1] = float("nan")
    step(layer, SGD(layer.parameters(), lr=0.1))
    assert torch.equal(chain_of(layer)[0].base, base)


def test_a_map_that_raises_leaves_all_as_it_was() -> None:
    class Raises(Orthogonal):
        def recenter(self, X: Tensor) -> tuple[Tensor, Tensor]:
            raise RuntimeError("no way")

    layer = layer_of(Raises(rebase=1), [4, 4])
    optimizer = SGD(layer.parameters(), lr=0.1)
    base = chain_of(layer)[0].base.clone()
    with pytest.raises(RuntimeError, match="no way") as caught:
        step(layer, optimizer)
    assert "moving the base point of 'weight' of Linear" in str(caught.value.__notes__)
    assert torch.equal(chain_of(layer)[0].base, base)


def test_a_result_of_another_shape_leaves_all_as_it_was() -> None:
    class Larger(Orthogonal):
        def recenter(self, X: Tensor) -> tuple[Tensor, ...]:
            zero, base = super().recenter(X)
            return zero, base.expand(2, 4, 4)

    layer = layer_of(Larger(rebase=None), [4, 4])
    train(layer, 3)
    value = layer.weight
    with pytest.raises(ValueError, match=r"returned \[2, 4, 4\] in place of \[4, 4\]"):
        chain_of(layer).move_base()
    assert torch.equal(layer.weight, value)


def test_an_inherited_recenter_is_not_used_for_another_forward() -> None:
    class Doubled(Orthogonal):
        def forward(self, X: Tensor) -> Tensor:
            return 2 * super().forward(X)

        def right_inverse(self, Y: Tensor) -> Tensor:
            return super().right_inverse(Y / 2)

    class Right(Doubled):
        def recenter(self, X: Tensor) -> tuple[Tensor, ...]:
            return torch.zeros_like(X), self.forward(X) / 2

    layer = layer_of(Doubled(rebase=1), [4, 4])
    train(layer, 3)
    assert chain_of(layer).original.any()
    with pytest.raises(ValueError, match="no base point to move"):
        chain_of(layer).move_base()
    layer = layer_of(Right(rebase=1), [4, 4])
    train(layer, 3)
    assert not chain_of(layer).original.any()


def test_fixed_rank_that_is_not_finite_is_not_moved() -> None:
    layer = layer_of(FixedRank(2, rebase=1), [5, 4])
    chain = chain_of(layer)
    before = {name: x.clone() for name, x in layer.named_buffers()}
    with torch.no_grad():
        chain.original0[0, 1] = float("nan")
    step(layer, SGD(layer.parameters(), lr=0.1))
    assert chain.original0.isnan().any()
    for name, x in layer.named_buffers():
        assert torch.equal(x, before[name]), name


def test_long_training_stays_in_the_set() -> None:
    layer = layer_of(Orthogonal(rebase=1), [8, 8], torch.float32)
    value = layer.weight.detach()
    optimizer = SGD(layer.parameters(), lr=0.0)
    chain_of(layer).original.grad = torch.ones(8, 8)
    for _ in range(2000):
        optimizer.step()
    assert Orthogonal().deviation(layer.weight) < 1e-6
    torch.testing.assert_close(layer.weight, value, rtol=0, atol=2e-6)


# copies and checkpoints


def copied(layer: Any) -> Any:
    return copy.deepcopy(layer)


def pickled(layer: Any) -> Any:
    return pickle.loads(pickle.dumps(layer))


def loaded(layer: Any) -> Any:
    twin = layer_of(type(chain_of(layer)[0])(rebase=chain_of(layer)[0].rebase), [6, 4])
    twin.load_state_dict(layer.state_dict())
    return twin


@pytest.mark.parametrize("resume", [copied, pickled, loaded])
def test_a_resumed_run_moves_at_the_same_steps(resume: Any) -> None:
    layer = layer_of(Orthogonal(rebase=5), [6, 4])
    train(layer, 13)
    twin = resume(layer)
    for trained in (layer, twin):
        optimizer = SGD(trained.parameters(), lr=0.05)
        for _ in range(9):
            step(trained, optimizer)
    assert torch.equal(layer.weight, twin.weight)
    assert torch.equal(chain_of(layer)[0].base, chain_of(twin)[0].base)


def test_an_assignment_starts_the_count_again() -> None:
    layer = layer_of(Orthogonal(rebase=5), [4, 4])
    base = chain_of(layer)[0].base
    optimizer = train(layer, 4)
    layer.weight = layer.weight
    assert chain_of(layer)[0].base is base
    version = base._version
    for expected in (0, 0, 0, 0, 1):
        step(layer, optimizer)
        assert (base._version > version) == expected


# originals that others hold


def test_shared_chains_move_once() -> None:
    one = layer_of(Orthogonal(rebase=2), [4, 4])
    two = transfer_parametrizations_and_params(one, nn.Linear(4, 4, bias=False).double())
    optimizer = SGD(one.parameters(), lr=0.1)
    for _ in range(4):
        step(one, optimizer)
        assert torch.equal(one.weight, two.weight)
    assert not chain_of(one).original.any()


def test_the_parts_of_a_joint_map_move_together() -> None:
    q, k = (nn.Linear(6, 2, bias=False).double() for _ in range(2))
    joint(Orthogonal(rebase=1), [(q, "weight"), (k, "weight")])
    fixed_q, fixed_k = copy.deepcopy((q, k))
    for layer in (fixed_q, fixed_k):
        chain_of(layer)[0].map.rebase = None
    for one, two in ((q, k), (fixed_q, fixed_k)):
        optimizer = SGD([*one.parameters(), *two.parameters()][:2], lr=1e-4)
        for _ in range(3):
            loss: Any = (one.weight * goal([2, 6])).sum() + two.weight[0, 1]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert not chain_of(q).original0.any()
    torch.testing.assert_close(q.weight, fixed_q.weight, rtol=0, atol=1e-6)
    torch.testing.assert_close(k.weight, fixed_k.weight, rtol=0, atol=1e-6)
    both = torch.cat([q.weight, k.weight])
    torch.testing.assert_close(both @ both.T, torch.eye(4).double())


def test_an_original_that_is_a_plain_weight_elsewhere_is_left_alone() -> None:
    plain, follows = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    tie((follows, "weight"), to=(plain, "weight"), parametrization=Orthogonal(rebase=1))
    before = follows.weight.detach()
    optimizer = SGD(plain.parameters(), lr=1e-3)
    for _ in range(2):
        step(follows, optimizer)
    assert plain.weight.any()
    torch.testing.assert_close(follows.weight, before, rtol=0, atol=0.1)

    holder: Any = nn.Module()
    layer = layer_of(Orthogonal(rebase=1), [4, 4])
    holder.weight = chain_of(layer).original
    chain_of(layer).original.data += 0.1
    step(layer, SGD(layer.parameters(), lr=1e-3))
    assert holder.weight.any()
    with pytest.raises(ValueError, match="another module uses the same original"):
        chain_of(layer).move_base()


def test_a_module_that_holds_the_original_later_is_noticed() -> None:
    layer, holder = layer_of(Orthogonal(rebase=2), [4, 4]), nn.Module()
    optimizer = SGD(layer.parameters(), lr=0.1)
    for _ in range(5):
        step(layer, optimizer)
    holder.weight = chain_of(layer).original
    step(layer, optimizer)
    assert chain_of(layer).original.any()
    del holder
    for _ in range(2):
        step(layer, optimizer)
    assert not chain_of(layer).original.any()


def test_the_search_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = []

    def counted(tensors: Any) -> Any:
        searched.append(len(tensors))
        return modules_with(tensors)

    monkeypatch.setattr(groups, "modules_with", counted)
    layer = layer_of(Orthogonal(rebase=2), [4, 4])
    optimizer = SGD(layer.parameters(), lr=0.1, momentum=0.9)
    for _ in range(8):
        step(layer, optimizer)
    assert len(searched) == 1


def test_parts_of_a_joint_map_that_gc_has_frozen_move_together() -> None:
    q, k = (nn.Linear(6, 2, bias=False).double() for _ in range(2))
    joint(Orthogonal(rebase=1), [(q, "weight"), (k, "weight")])
    gc.freeze()
    try:
        optimizer = SGD([*q.parameters()], lr=0.1)
        loss: Any = q.weight.sum() + k.weight[0, 1]
        loss.backward()
        optimizer.step()
    finally:
        gc.unfreeze()
    both = torch.cat([q.weight, k.weight])
    torch.testing.assert_close(both @ both.T, torch.eye(4).double())


def test_steps_count_after_one_that_raised() -> None:
    """The step that raised and the next one may have the same frame."""
    layer = layer_of(Orthogonal(rebase=50), [4, 4])
    optimizer = SGD(layer.parameters(), lr=0.1)
    for count in range(1, 9):
        with cached(layer, deferred=True):
            layer.weight.sum().backward()
            with pytest.raises(RuntimeError, match="deferred"):
                optimizer.step()
        step(layer, optimizer)
        assert steps_of(chain_of(layer)) == count


def test_frozen_and_later_maps_are_left_alone() -> None:
    layer = layer_of(Orthogonal(rebase=1), [4, 4])
    chain_of(layer).original.requires_grad_(False)
    with pytest.raises(ValueError, match="no base point to move"):
        chain_of(layer).move_base()
    layer = layer_of(Symmetric(), [4, 4])
    with pytest.raises(ValueError, match="no base point to move"):
        chain_of(layer).move_base()


# optimizers inside optimizers, and those with copies


class Nested(Optimizer):
    """Steps another optimizer twice, and writes to the parameters after that."""

    def __init__(self, inner: Optimizer) -> None:
        self.inner = inner
        super().__init__([x for group in inner.param_groups for x in group["params"]], {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        before = [x.detach().clone() for group in self.param_groups for x in group["params"]]
        self.inner.step()
        self.inner.step()
        with torch.no_grad():
            for old, x in zip(before, self.param_groups[0]["params"], strict=True):
                x.lerp_(old, 0.5)


def test_an_outer_optimizer_is_one_step() -> None:
    layers = [layer_of(Orthogonal(rebase=r), [4, 4]) for r in (1, None)]
    for layer in layers:
        optimizer = Nested(SGD(layer.parameters(), lr=0.01))
        step(layer, optimizer)
    torch.testing.assert_close(layers[0].weight, layers[1].weight, rtol=0, atol=1e-15)
    assert not chain_of(layers[0]).original.any()


class Interpolating(Optimizer):
    """Keeps a second point `z`, of which the parameter is an average."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for x in group["params"]:
                z = self.state[x].setdefault("z", x.clone())
                z.sub_(x.grad, alpha=group["lr"])
                x.lerp_(z, 0.1)


def train_with(kind: Any, layers: list[Any], steps: int) -> None:
    for layer in layers:
        optimizer = kind(layer.parameters(), lr=0.01)
        for _ in range(steps):
            step(layer, optimizer)


@pytest.fixture
def no_warned_classes() -> Iterator[None]:
    before = set(moving._WARNED)
    moving._WARNED.clear()
    yield
    moving._WARNED.clear()
    moving._WARNED.update(before)


@pytest.mark.usefixtures("no_warned_classes")
def test_an_optimizer_with_a_copy_is_noticed() -> None:
    layers = [layer_of(Orthogonal(rebase=r), [4, 4]) for r in (3, None)]
    text = r"Interpolating keeps a copy of the original \(state\['z'"
    with pytest.warns(UserWarning, match=text):
        train_with(Interpolating, layers, 7)
    assert torch.equal(layers[0].weight, layers[1].weight)


class Wrapped(Optimizer):
    """Averages with slow weights, without the constructor that adds torch's hooks."""

    def __init__(self, parameters: Any, lr: float) -> None:
        self.inner = SGD(parameters, lr=lr)
        self.slow = [x.detach().clone() for x in self.inner.param_groups[0]["params"]]
        self.state: Any = {}
        self.param_groups = self.inner.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.inner.zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.inner.step()
        for x in self.param_groups[0]["params"]:
            slow = self.state.setdefault(x, {}).setdefault("slow", x.clone())
            x.copy_(slow.lerp_(x, 0.5))


@pytest.mark.usefixtures("no_warned_classes")
def test_a_wrapper_without_hooks_is_noticed() -> None:
    layers = [layer_of(Orthogonal(rebase=r), [4, 4]) for r in (3, None)]
    with pytest.warns(UserWarning, match=r"Wrapped keeps a copy of the original \(state\['slow'"):
        train_with(Wrapped, layers, 7)
    assert torch.equal(layers[0].weight, layers[1].weight)


class Listing(Optimizer):
    """Averages with slow weights that it keeps in a list."""

    def __init__(self, parameters: Any, lr: float) -> None:
        self.inner = SGD(parameters, lr=lr)
        super().__init__([x for group in self.inner.param_groups for x in group["params"]], {})
        self.slow = [[x.detach().clone() for x in self.param_groups[0]["params"]]]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.inner.step()
        for x, slow in zip(self.param_groups[0]["params"], self.slow[0], strict=True):
            x.copy_(slow.lerp_(x, 0.5))


@pytest.mark.usefixtures("no_warned_classes")
def test_copies_in_a_list_are_noticed() -> None:
    layers = [layer_of(Orthogonal(rebase=r), [4, 4]) for r in (3, None)]
    with pytest.warns(UserWarning, match=r"Listing keeps a copy of the original \(slow\)"):
        train_with(Listing, layers, 7)
    assert torch.equal(layers[0].weight, layers[1].weight)


class Perturbing(Optimizer):
    """Takes the gradient elsewhere, as SAM does, and goes back to the tensor that it kept."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})
        self.inner = SGD(self.param_groups, lr=lr)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for x in self.param_groups[0]["params"]:
            self.state[x]["old"] = x.clone()
            x.add_(x.grad, alpha=0.01)
            x.data = self.state[x]["old"]
        self.inner.step()


def test_the_tensor_itself_is_not_taken_for_a_copy() -> None:
    layer = layer_of(Orthogonal(rebase=2), [4, 4])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        train_with(Perturbing, [layer], 4)
    assert not chain_of(layer).original.any()


@pytest.mark.usefixtures("no_warned_classes")
def test_averages_in_torch_are_noticed() -> None:
    layer = layer_of(Orthogonal(rebase=2), [4, 4])
    with pytest.warns(UserWarning, match="ASGD keeps a copy"):
        train_with(torch.optim.ASGD, [layer], 4)


OPTIMIZERS = ["Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Muon"]
OPTIMIZERS += ["NAdam", "RAdam", "RMSprop", "Rprop", "SGD"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_with_the_optimizers_of_torch_base_points_move(name: str) -> None:
    layer = layer_of(Orthogonal(rebase=2), [4, 4])
    optimizer = getattr(torch.optim, name)(layer.parameters(), lr=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for _ in range(4):
            step(layer, optimizer)
    assert not chain_of(layer).original.any()


def test_a_freed_layer_is_forgotten() -> None:
    layer = layer_of(Orthogonal(rebase=1), [4, 4])
    train(layer, 2)
    base = chain_of(layer)[0].base
    del layer
    gc.collect()
    referrers = [x for x in gc.get_referrers(base) if isinstance(x, dict) and "base" in x]
    assert referrers == []


# averages


def test_an_average_of_moving_originals_is_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2), layer_of(Blocks([Orthogonal(), None], dim=0), [4, 4]))
    averaged = AveragedModel(model)
    text = r"the original of '1.weight' is relative to a base point .* rebase=None before training"
    with pytest.raises(AveragedOriginalsError, match=text):
        averaged.update_parameters(model)


@pytest.mark.parametrize(
    "make", [lambda: Orthogonal(rebase=None), lambda: Orthogonal("polar"), lambda: Sphere()]
)
def test_other_averages_are_not(make: Any) -> None:
    model = layer_of(make(), [4, 4])
    averaged: Any = AveragedModel(model)
    train(model, 1)
    averaged.update_parameters(model)
    assert torch.equal(averaged.module.weight, model.weight)


def test_originals_that_are_not_trained_may_be_averaged() -> None:
    model = nn.Sequential(nn.Linear(4, 4), layer_of(Orthogonal(), [4, 4]))
    model[1].requires_grad_(False)
    AveragedModel(model).update_parameters(model)


# compiled and scripted code


def test_compiled_code_sees_the_moves_and_is_not_compiled_again() -> None:
    torch._dynamo.reset()
    layers = [layer_of(Orthogonal(rebase=2), [4, 4]) for _ in range(2)]
    counter = CompileCounter()
    compiled: Any = torch.compile(layers[0], backend=counter)
    frames = []
    inputs = torch.randn(3, 4, dtype=torch.float64)
    optimizers = [SGD(layer.parameters(), lr=0.1) for layer in layers]
    for _ in range(7):
        for model, optimizer in zip((compiled, layers[1]), optimizers, strict=True):
            optimizer.zero_grad()
            model(inputs).square().sum().backward()
            optimizer.step()
        torch.testing.assert_close(compiled(inputs), layers[1](inputs), rtol=0, atol=1e-12)
        frames.append(counter.frame_count)
    assert len(set(frames[1:])) == 1
    assert chain_of(layers[0])[0].base._version == chain_of(layers[1])[0].base._version


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")
def test_a_scripted_program_follows_the_model() -> None:
    layer = layer_of(Orthogonal(rebase=1), [4, 4])
    scripted = torch.jit.script(layer)
    optimizer = SGD(scripted.parameters(), lr=0.1)
    inputs = torch.randn(3, 4, dtype=torch.float64)
    for _ in range(3):
        optimizer.zero_grad()
        (scripted(inputs) * goal([3, 4])).sum().backward()
        optimizer.step()
        torch.testing.assert_close(scripted(inputs), layer(inputs))
    assert not chain_of(layer).original.any()


def test_each_block_has_its_own_number_of_steps() -> None:
    layer = layer_of(Blocks([Orthogonal(rebase=2), Orthogonal(rebase=None)], dim=0), [8, 4])
    versions = [x._version for x in bases_of(layer).values()]
    train(layer, 4)
    moves = [x._version - old for x, old in zip(bases_of(layer).values(), versions, strict=True)]
    assert moves == [2, 0]
    chain_of(layer).move_base()
    assert [x._version for x in bases_of(layer).values()] == [versions[0] + 3, versions[1] + 1]


def test_zero_steps_are_never() -> None:
    layer = layer_of(Orthogonal(), [4, 4])
    chain_of(layer)[0].rebase = 0
    version = chain_of(layer)[0].base._version
    train(layer, 3)
    assert chain_of(layer)[0].base._version == version


@pytest.mark.parametrize("make", [Orthogonal, lambda: Blocks([Orthogonal(), None], dim=0)])
def test_originals_without_their_base_point_are_noticed(make: Any) -> None:
    layer = layer_of(make(), [4, 4])
    train(layer, 1)
    saved = {name: x.detach().clone() for name, x in layer.named_parameters()}
    with pytest.warns(UserWarning, match=r"loaded without its base point '0\..*base'"):
        layer.load_state_dict(saved, strict=False)
    layer.load_state_dict(layer.state_dict())


FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    function.__name__: (function, arguments)
    for function, arguments in [
        (almost_orthogonal, ()),
        (correlation, ()),
        (fixed_rank, ("weight", 2)),
        (frobenius_norm, ()),
        (grassmann, ()),
        (normal, ()),
        (oblique, ()),
        (orthogonal, ()),
        (orthogonal_convolution, ()),
        (positive_determinant, ()),
        (special_linear, ()),
        (special_orthogonal, ()),
        (sphere, ()),
        (symplectic, ()),
    ]
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_take_the_number_of_steps(name: str) -> None:
    function, arguments = FUNCTIONS[name]
    layer: nn.Module = nn.Linear(4, 4)
    if name == "orthogonal_convolution":
        layer = nn.Conv2d(4, 4, 3)
    layer = function(layer, *arguments, rebase=7)
    parametrization = chain_of(layer)[0]
    assert parametrization.is_move_due(14)
    assert not parametrization.is_move_due(15)
