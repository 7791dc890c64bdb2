"""What `torch.nn.init` writes is found by its memory: no numbers, and no second evaluation."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import init

from paramdesc import cached, register_parametrization
from paramdesc.errors import InitialisationError
from tests.helpers import Double, Sum, chain_of, linear


class Drop(nn.Module):
    """Its value is another one each time."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, X: Tensor) -> Tensor:
        return self.drop(X)  # type: ignore[no-any-return]

    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y


class Counted(Double):
    evaluations = 0

    def forward(self, X: Tensor) -> Tensor:
        type(self).evaluations += 1
        return super().forward(X)


class Turned(nn.Module):
    """Its value is a view of a tensor that nobody has, beside other numbers."""

    def forward(self, X: Tensor) -> Tensor:
        return torch.cat([2 * X, X])[:-3].mT if X.dim() == 2 else 2 * X

    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y.mT / 2


class Flipped(nn.Module):
    """Its value is a view of the original."""

    def forward(self, X: Tensor) -> Tensor:
        return X.mT

    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y.mT


MAPS: dict[str, Callable[[], nn.Module]] = {
    "double": Double, "sum": Sum, "turned": Turned, "flipped": Flipped, "identity": nn.Identity,
}  # fmt: skip
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform_": init.uniform_,
    "normal_": init.normal_,
    "trunc_normal_": init.trunc_normal_,
    "constant_": lambda x: init.constant_(x, 3.0),
    "ones_": init.ones_,
    "zeros_": init.zeros_,
    "eye_": init.eye_,
    "xavier_uniform_": init.xavier_uniform_,
    "xavier_normal_": init.xavier_normal_,
    "kaiming_uniform_": init.kaiming_uniform_,
    "kaiming_normal_": init.kaiming_normal_,
    "orthogonal_": init.orthogonal_,
    "sparse_": lambda x: init.sparse_(x, 0.5),
}
OTHERS = {"dirac_"}  # of three dimensions and more


def test_no_function_is_forgotten() -> None:
    public = {name for name in vars(init) if name.endswith("_") and not name.startswith("_")}
    assert public == {*FUNCTIONS, *OTHERS}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("which", MAPS)
def test_each_function_sets_the_value(which: str, name: str) -> None:
    layer = register_parametrization(nn.Linear(3, 3), "weight", MAPS[which](), unsafe=True)
    # torch fills memory in its order
    expected = torch.empty_strided((3, 3), layer.weight.stride())
    for tensor in (expected, layer.weight):
        torch.manual_seed(0)
        FUNCTIONS[name](tensor)
    torch.testing.assert_close(layer.weight.detach(), expected, check_stride=False)


def test_dirac_and_the_old_names_set_the_value() -> None:
    layer = register_parametrization(nn.Conv1d(3, 3, 3), "weight", Double())
    init.dirac_(layer.weight)
    assert layer.weight[:, :, 1].equal(torch.eye(3))
    with pytest.warns(FutureWarning, match="deprecated"):
        init.constant(layer.weight, 2.0)
    assert layer.weight.eq(2).all()


@pytest.mark.parametrize("scope", [nullcontext, cached])
def test_numbers_that_equal_nothing_are_replaced(scope: Callable[[], Any]) -> None:
    layer = linear()
    with torch.no_grad():
        chain_of(layer).original.fill_(float("nan"))
    with scope():
        layer.reset_parameters()
        assert layer.weight.isfinite().all()


def test_a_random_map_gets_what_was_written() -> None:
    layer = linear(Drop())
    init.constant_(layer.weight, 7.0)
    assert chain_of(layer).original.eq(7).all()


def test_to_find_a_value_evaluates_nothing() -> None:
    layer = linear(Counted())
    weight = layer.weight
    before = Counted.evaluations
    init.ones_(torch.empty(3, 3))
    init.ones_(weight.detach().clone())
    assert Counted.evaluations == before
    init.ones_(weight)
    assert Counted.evaluations == before + 1  # what the caller's tensor shows afterwards
    assert layer.weight.eq(1).all()


PARTS: dict[str, Callable[[Tensor], Tensor]] = {
    "a row": lambda x: x[1],
    "rows": lambda x: x[1:],
    "a column": lambda x: x[:, 1],
    "a turned part": lambda x: x.mT[1:],
    "a row of the data": lambda x: x.data[1],
    "a row of a row": lambda x: x[1:][0],
    "all, flat": lambda x: x.reshape(-1) if x.is_contiguous() else x.mT.reshape(-1),
    "the diagonal": lambda x: x.diagonal(),
    "nothing": lambda x: x[3:],
}


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("which", MAPS)
def test_part_of_a_value_is_set(which: str, part: str, gradients: bool) -> None:
    layer = register_parametrization(nn.Linear(3, 3), "weight", MAPS[which](), unsafe=True)
    expected = layer.weight.detach().clone(memory_format=torch.preserve_format)
    with torch.set_grad_enabled(gradients):
        PARTS[part](expected).fill_(5)
        init.constant_(PARTS[part](layer.weight), 5.0)
    torch.testing.assert_close(layer.weight.detach(), expected, check_stride=False)


@pytest.mark.parametrize("which", ["double", "sum"])
def test_a_detached_part_that_cannot_be_told_is_refused(which: str) -> None:
    layer = register_parametrization(nn.Linear(3, 3), "weight", MAPS[which](), unsafe=True)
    before = layer.weight.detach().clone()
    with pytest.raises(InitialisationError, match=r"Write nn.init.zeros_\(module.weight\[0\]\)"):
        init.zeros_(layer.weight[0].detach())
    assert layer.weight.equal(before)
    init.zeros_(layer.weight.data[0])
    assert not layer.weight[0].any()
    assert layer.weight[1:].equal(before[1:])


def test_a_value_that_was_put_aside_is_still_known() -> None:
    first, second = linear(), linear()
    weight, other = first.weight, second.weight
    init.ones_(weight)
    init.zeros_(other)
    assert first.weight.eq(1).all()
    assert not second.weight.any()


def test_threads_find_their_own_values() -> None:
    layers = [linear() for _ in range(4)]
    barrier = threading.Barrier(4)

    def initialize(number: int) -> None:
        for _ in range(50):
            weight = layers[number].weight
            barrier.wait()
            init.constant_(weight, float(number))

    threads = [threading.Thread(target=initialize, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, layer in enumerate(layers):
        assert layer.weight.eq(number).all()


def test_views_on_meta_can_be_initialised() -> None:
    for make in MAPS.values():
        layer = register_parametrization(nn.Linear(3, 3), "weight", make(), unsafe=True).to("meta")
        init.zeros_(layer.weight)
        init.ones_(layer.weight[0])
        assert layer.weight.is_meta


def test_after_meta_and_to_empty_parameters_can_be_reset() -> None:
    with torch.device("meta"):
        layer = register_parametrization(nn.Linear(8, 8), "weight", Double())
    layer.to_empty(device="cpu")
    with torch.no_grad():
        chain_of(layer).original.view(torch.int32).fill_(-1)
    layer.reset_parameters()
    assert layer.weight.isfinite().all()


@pytest.mark.parametrize("scope", [nullcontext, cached])
def test_after_an_error_the_value_is_as_before(scope: Callable[[], Any]) -> None:
    layer = register_parametrization(nn.Linear(3, 3), "weight", torch.exp)
    with scope():
        weight = layer.weight
        before = weight.detach().clone()
        with pytest.raises(RuntimeError):
            init.zeros_(weight)
        assert weight.equal(before)
        assert layer.weight.equal(before)


def test_an_original_that_is_parametrized_itself_is_set() -> None:
    layer = linear(Double())
    register_parametrization(chain_of(layer), "original", Flipped())
    for _ in range(2):
        init.constant_(layer.weight, 4.0)
        assert layer.weight.eq(4).all()


def test_two_names_over_one_original_are_set_together() -> None:
    layer = nn.Bilinear(2, 2, 2)
    other = nn.Bilinear(2, 2, 2)
    init.zeros_(layer.weight)  # else the second registration would write to what the first has
    other.weight = layer.weight
    register_parametrization(layer, "weight", nn.Identity())
    register_parametrization(other, "weight", Flipped(), unsafe=True)
    init.ones_(other.weight)
    assert other.weight.eq(1).all()


def test_memory_beside_an_original_is_left_to_torch() -> None:
    flat = torch.zeros(12)
    layer = nn.Linear(3, 3)
    layer.weight = nn.Parameter(flat[:9].view(3, 3))
    register_parametrization(layer, "weight", nn.Identity())
    layer.weight.sum()
    init.ones_(flat[9:])
    assert flat.tolist() == [0.0] * 9 + [1.0] * 3


def test_a_view_of_a_buffer_is_set_without_an_inverse() -> None:
    host: Any = nn.Module()
    host.register_buffer("table", torch.zeros(2, 3))
    register_parametrization(host, "table", torch.t, unsafe=True)
    init.ones_(host.table[1:])
    assert host.table.tolist() == [[0, 0], [1, 1], [1, 1]]


def test_a_deleted_module_leaves_its_values_to_torch() -> None:
    layer: Any = linear()
    weight = layer.weight.detach()
    del layer
    assert init.ones_(weight) is weight
    assert weight.eq(1).all()


HOSTS: dict[str, tuple[Callable[[], Any], str, str]] = {
    "linear": (lambda: nn.Linear(3, 4), "weight", "reset_parameters"),
    "convolution": (lambda: nn.Conv2d(2, 3, 2), "weight", "reset_parameters"),
    "transposed": (lambda: nn.ConvTranspose1d(2, 3, 2), "weight", "reset_parameters"),
    "embedding": (lambda: nn.Embedding(5, 3, padding_idx=1), "weight", "reset_parameters"),
    "bag": (lambda: nn.EmbeddingBag(5, 3, padding_idx=1), "weight", "reset_parameters"),
    "layer norm": (lambda: nn.LayerNorm(3), "weight", "reset_parameters"),
    "group norm": (lambda: nn.GroupNorm(2, 4), "weight", "reset_parameters"),
    "prelu": (lambda: nn.PReLU(3), "weight", "reset_parameters"),
    "attention": (lambda: nn.MultiheadAttention(4, 2), "in_proj_weight", "_reset_parameters"),
}


@pytest.mark.parametrize("name", HOSTS)
def test_reset_parameters_gives_what_it_gives_a_plain_layer(name: str) -> None:
    make, tensor_name, reset = HOSTS[name]
    plain, layer = make(), make()
    register_parametrization(layer, tensor_name, Double())
    setattr(layer, tensor_name, torch.full_like(getattr(layer, tensor_name), 7.0))
    for module in (plain, layer):
        torch.manual_seed(0)
        getattr(module, reset)()
    torch.testing.assert_close(getattr(layer, tensor_name), getattr(plain, tensor_name))


@pytest.mark.parametrize(
    ("make", "tensor_name"),
    [
        (lambda: nn.LSTM(3, 4), "weight_hh_l0"),
        (lambda: nn.GRU(3, 4), "weight_ih_l0"),
    ],
)
def test_recurrent_layers_reset_their_originals(make: Any, tensor_name: str) -> None:
    layer = make()
    register_parametrization(layer, tensor_name, Double())
    setattr(layer, tensor_name, torch.full_like(getattr(layer, tensor_name), 7.0))
    layer.reset_parameters()
    assert getattr(layer, tensor_name).abs().max() <= 1


def test_a_transformer_resets_what_it_holds() -> None:
    layer: Any = nn.Transformer(4, 2, 1, 1, 8, batch_first=True)
    host = layer.encoder.layers[0].linear1
    register_parametrization(host, "weight", Double())
    host.weight = torch.full_like(host.weight, 7.0)
    layer._reset_parameters()
    assert host.weight.abs().max() < 7


def test_a_function_imported_before_paramdesc_takes_effect() -> None:
    program = (
        "from torch.nn.init import xavier_uniform_, ones_ as fill\n"
        "import torch, pickle\n"
        "pickled = pickle.dumps(xavier_uniform_)\n"
        "import paramdesc\n"
        "register, Linear = paramdesc.register_parametrization, torch.nn.Linear\n"
        "layer = register(Linear(3, 3), 'weight', torch.neg)\n"
        "try: xavier_uniform_(layer.weight)\n"
        "except RuntimeError as error: assert 'right_inverse' in str(error)\n"
        "else: raise AssertionError\n"
        "layer = register(Linear(3, 3), 'weight', torch.nn.Identity())\n"
        "fill(layer.weight)\n"
        "assert layer.weight.eq(1).all()\n"
        "assert pickle.loads(pickled) is xavier_uniform_ is torch.nn.init.xavier_uniform_\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.parametrize("fullgraph", [True, False])
def test_compiled_code_runs_torchs_own(fullgraph: bool) -> None:
    """What it initializes is what torch makes of it; a parametrized weight is not assigned."""

    @torch.compile(backend="eager", fullgraph=fullgraph)
    def fill(tensor: Tensor, layer: Any) -> tuple[Tensor, Tensor]:
        return init.constant_(2 * tensor, 5.0), init.ones_(layer.weight)

    layer = linear()
    before = layer.weight.detach()
    first, second = fill(torch.zeros(2), layer)
    assert first.tolist() == [5, 5]
    assert second.eq(1).all()
    assert layer.weight.equal(before)
