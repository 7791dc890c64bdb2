"""`bake` replaces parametrized tensors by their values, and leaves nothing behind."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as torch_parametrizations
from torch.nn.utils import parametrize as torch_engine
from torch.nn.utils import prune

import paramdesc as P
from paramdesc.errors import BakingError, SelectionError, ShardedModuleError
from paramdesc.parametrizations import LowRank, Orthogonal, SpectralNorm, Symmetric, WeightNorm
from tests.helpers import chain_of, original_of
from tests.jit.models import DEPRECATED
from tests.models.zoo import ARCHITECTURES, example, old_spectral_norm, old_weight_norm

LOAD = """
import sys
sys.modules["paramdesc"] = None  # importing it raises
import torch
model = torch.load(sys.argv[1], weights_only=False)
print(sum(float(x.double().sum()) for x in model.parameters()))
"""


@pytest.fixture(params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return ARCHITECTURES[request.param]()


def values_of(model: nn.Module, names: list[str]) -> dict[str, Tensor]:
    return {
        name: getattr(model.get_submodule(path), tensor_name).detach().clone()
        for name in names
        for path, _, tensor_name in [name.rpartition(".")]
    }


def state_of(model: nn.Module) -> Any:
    """All that can be seen of a model: classes, hooks, attributes, and numbers."""
    return {
        path: (
            type(module),
            {name: id(x) for name, x in vars(module).items() if not isinstance(x, Tensor)},
            [list(hooks) for name, hooks in vars(module).items() if name.endswith("_hooks")],
            {
                name: (id(x), x.detach().clone())
                for name, x in module._parameters.items()
                if x is not None
            },
            {
                name: (id(x), x.clone())
                for name, x in dict(module._buffers.items()).items()
                if x is not None
            },
            list(module._modules),
        )
        for path, module in model.named_modules()
    }


def assert_same_state(model: nn.Module, before: Any) -> None:
    after = state_of(model)
    assert list(after) == list(before)
    for path, (cls, attributes, hooks, parameters, buffers, children) in before.items():
        found = after[path]
        assert found[:3] == (cls, attributes, hooks), path
        assert found[5] == children, path
        for old, new in ((parameters, found[3]), (buffers, found[4])):
            assert [(k, v[0]) for k, v in old.items()] == [(k, v[0]) for k, v in new.items()], path
            assert all(torch.equal(old[k][1], new[k][1]) for k in old), path


def test_values_and_outputs_stay(model: nn.Module) -> None:
    x = example()
    before = model.eval()(x)
    baked = P.bake(model, copy=True)
    names = baked.names()
    values = values_of(model, names)
    assert baked.model is not model
    for name, value in values_of(baked.model, names).items():
        assert torch.equal(value, values[name]), name
    torch.testing.assert_close(baked.model(x), before, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(model(x), before, rtol=0, atol=0)
    in_place = P.bake(model)
    assert in_place.model is model
    assert in_place.names() == names
    for name, value in values_of(model, names).items():
        assert torch.equal(value, values[name]), name


def test_nothing_is_left(model: nn.Module, tmp_path: Path) -> None:
    plain = {
        path: type(m) for path, m in copy.deepcopy(P.bake(model, copy=True).model).named_modules()
    }
    model(example())
    P.auto_cache(model)
    P.bake(model)
    assert {path: type(module) for path, module in model.named_modules()} == plain
    assert not any("parametrizations" in path for path in plain)
    for module in model.modules():
        assert type(module._buffers) is dict
        for name, hooks in vars(module).items():
            assert not (name.endswith("_hooks") and hooks), (name, hooks)
        assert not any(isinstance(x, Tensor) for x in vars(module).values())
    content = pickle.dumps(model)
    assert b"paramdesc" not in content
    assert b"parametriz" not in content
    file = tmp_path / "model.pt"
    torch.save(model, file)
    script = tmp_path / "load.py"
    script.write_text(LOAD)
    root = str(Path(__file__).parents[2])
    run = subprocess.run(
        [sys.executable, str(script), str(file)],
        capture_output=True, text=True, check=True, env={"PYTHONPATH": root},
    )  # fmt: skip
    assert float(run.stdout) == sum(float(x.detach().double().sum()) for x in model.parameters())


def test_a_baked_model_trains(model: nn.Module) -> None:
    P.bake(model)
    assert all(x.is_leaf and x.requires_grad for x in model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    first = model(example()).square().sum()
    first.backward()
    assert all(x.grad is not None for x in model.parameters())
    optimizer.step()


def test_tied_tensors_stay_tied() -> None:
    model: Any = ARCHITECTURES["tied language model"]()
    baked = P.bake(model)
    assert model.head.weight is model.embedding.weight
    assert [(x.name, x.tied_to) for x in baked.tensors] == [
        ("embedding.weight", None),
        ("block.0.weight", None),
        ("head.weight", "embedding.weight"),
    ]
    assert model.head.weight.is_leaf


def test_a_part_of_tied_tensors_leaves_the_others_as_they_are() -> None:
    model: Any = ARCHITECTURES["tied language model"]()
    value = model.head.weight.detach().clone()
    original = model.embedding.parametrizations.weight.original
    P.bake(model, "head.weight")
    assert torch.equal(model.head.weight, value)
    assert model.head.weight is not original
    assert model.embedding.parametrizations.weight.original is original
    assert torch.equal(model.embedding.weight, value)


def test_the_original_of_another_tensor_is_not_overwritten() -> None:
    encoder: Any = nn.Linear(3, 3)
    head: Any = nn.Linear(3, 3)
    head.weight = encoder.weight
    P.register_parametrization(head, "weight", lambda X: 2 * X)
    head.parametrizations.weight._parameters["original"] = encoder.weight
    before = encoder.weight.detach().clone()
    value = head.weight.detach().clone()
    for model in (nn.ModuleList([encoder, head]), nn.Sequential(head)):
        baked = P.bake(model, copy=isinstance(model, nn.ModuleList))
        head_baked: Any = baked.model[-1]
        assert torch.equal(head_baked.weight, value)
        assert baked.tensors[0].keeps_parameter == isinstance(model, nn.Sequential)
        if isinstance(model, nn.ModuleList):
            assert torch.equal(encoder.weight, before)


def test_transferred_parametrizations_outside_of_the_model_stay() -> None:
    inside: Any = nn.Linear(3, 3)
    outside: Any = nn.Linear(3, 3)
    P.register_parametrization(inside, "weight", Symmetric())
    P.transfer_parametrizations_and_params(inside, outside)
    with torch.no_grad():
        outside.parametrizations.weight.original.copy_(torch.randn(3, 3))
    value = outside.weight.detach().clone()
    original = outside.parametrizations.weight.original.detach().clone()
    P.bake(nn.Sequential(inside))
    assert torch.equal(outside.parametrizations.weight.original, original)
    assert torch.equal(outside.weight, value)
    assert torch.equal(inside.weight, value)


def test_tensors_are_chosen_by_selectors() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model.append(old_weight_norm(nn.Linear(3, 3)))
    for layer in list(model)[:2]:
        P.register_parametrization(layer, "weight", Symmetric())
        P.register_parametrization(layer, "bias", lambda b: b * 2)
    baked = P.bake(model, "0.*", model[2], exclude=["bias"])
    assert baked.names() == ["0.weight", "2.weight"]
    assert [(x.name, x.reason) for x in baked.left] == [
        ("0.bias", "not selected"), ("1.weight", "not selected"), ("1.bias", "not selected"),
    ]  # fmt: skip
    assert P.is_parametrized(model[0], "bias")
    assert not P.is_parametrized(model[0], "weight")
    P.bake(model, "1.weight")
    assert P.get_parametrizations(model).names() == ["0.bias", "1.bias"]
    assert P.bake(model, nn.Linear, copy=True).names() == []
    assert P.bake(model, model[1], copy=True).names() == ["1.bias"]
    with pytest.raises(SelectionError, match="Did you mean '0.bias'"):
        P.bake(model, "0.bais")
    assert P.bake(model, copy=True).names() == ["0.bias", "1.bias"]


def test_one_of_two_tensors_that_torch_parametrizes() -> None:
    layer: Any = torch_parametrizations.weight_norm(nn.Linear(3, 3))
    torch_engine.register_parametrization(layer, "bias", Doubled())
    twin = copy.deepcopy(layer)
    bias = layer.bias.detach().clone()
    P.bake(layer, "weight")
    assert isinstance(layer._parameters["weight"], nn.Parameter)
    assert torch_engine.is_parametrized(layer, "bias")
    assert not torch_engine.is_parametrized(layer, "weight")
    assert torch.equal(layer.bias, bias)
    assert twin.weight.grad_fn is not None  # copies share the class that torch has made
    P.bake(layer)
    assert type(layer) is nn.Linear
    assert type(twin).__name__ == "ParametrizedLinear"


class Doubled(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return 2 * X


class Reading(nn.Module):
    """Reads its own weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3))
        P.register_parametrization(self, "weight", Symmetric())

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight)


class Noise(nn.Module):
    """A random map."""

    def forward(self, X: Tensor) -> Tensor:
        return X + torch.randn_like(X)


class Broken(nn.Module):
    is_broken = False

    def forward(self, X: Tensor) -> Tensor:
        if self.is_broken:
            raise ValueError("broken")
        return X


def test_one_evaluation_is_the_value_of_a_random_map() -> None:
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", Noise())
    torch.manual_seed(5)
    expected = layer.weight.detach()
    torch.manual_seed(5)
    P.bake(layer)
    assert torch.equal(layer.weight, expected)


@pytest.mark.parametrize("is_training", [True, False])
def test_spectral_norms_are_baked_as_the_model_reads_them(is_training: bool) -> None:
    model = nn.Sequential(
        torch_parametrizations.spectral_norm(nn.Linear(3, 3)),
        old_spectral_norm(nn.Linear(3, 3)),
        P.register_parametrization(nn.Linear(3, 3), "weight", SpectralNorm()),
    ).train(is_training)
    x = torch.randn(2, 3)
    before = model(x)
    baked: Any = P.bake(model, copy=True).model
    assert torch.equal(baked(x), before)
    assert model[0].parametrizations.weight[0].training is is_training  # type: ignore[union-attr, index]


def test_a_failure_leaves_the_model_as_it_was() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(*(make() for make in ARCHITECTURES.values()), nn.Linear(3, 3))
    broken = Broken()
    P.register_parametrization(model[-1], "weight", broken)
    P.auto_cache(model)
    for architecture in list(model)[:-1]:
        architecture(example())
    for parameter in model.parameters():  # a step: the state of spectral norms is to move
        parameter.grad = torch.ones_like(parameter)
    torch.optim.SGD(model.parameters(), 0.1).step()
    broken.is_broken = True
    before = state_of(model)
    with pytest.raises(ValueError, match="broken"):
        P.bake(model)
    assert_same_state(model, before)


def test_a_failure_after_the_evaluations_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(*(make() for make in ARCHITECTURES.values()))
    P.auto_cache(model)
    model[0](example())
    outputs = [part(example() * 0 + 1).detach() for part in model.eval()]
    model.train()
    before = state_of(model)
    monkeypatch.setattr("paramdesc.models.bake.reads_as", lambda *_: False)
    with pytest.raises(BakingError, match="does not return the evaluated value"):
        P.bake(model)
    assert_same_state(model, before)
    for part, output in zip(model.eval(), outputs, strict=True):
        assert torch.equal(part(example() * 0 + 1), output)
    monkeypatch.undo()
    assert len(P.bake(model)) == 15


def test_the_parameter_stays_if_there_is_one() -> None:
    model: Any = nn.Sequential(
        P.register_parametrization(nn.Linear(3, 3), "weight", Symmetric()),
        P.register_parametrization(nn.Linear(3, 3), "weight", WeightNorm()),
        old_weight_norm(nn.Linear(3, 3)),
        old_spectral_norm(nn.Linear(3, 3)),
        nn.Linear(3, 3),
    )
    prune.l1_unstructured(model[4], "weight", 1)  # type: ignore[no-untyped-call]
    kept = [
        model[0].parametrizations.weight.original,
        model[3].weight_orig,
        model[4].weight_orig,
    ]
    baked = P.bake(model)
    assert baked.new_parameters() == ["1.weight", "2.weight"]
    for i, parameter in zip((0, 3, 4), kept, strict=True):
        assert model[i].weight is parameter
    assert not any("weight_" in name for name, _ in model.named_parameters())
    assert not list(model.buffers())


def test_frozen_originals_and_buffers() -> None:
    layer: Any = nn.Module()
    layer.frozen = nn.Parameter(torch.randn(3, 3), requires_grad=False)
    layer.several = nn.Parameter(torch.randn(3, 3), requires_grad=False)
    layer.register_buffer("kept", torch.randn(3, 3))
    layer.register_buffer("temporary", torch.randn(3, 3), persistent=False)
    layer.register_buffer("parts", torch.randn(3, 3))
    for name in ("frozen", "kept", "temporary"):
        P.register_parametrization(layer, name, Symmetric())
    for name in ("several", "parts"):
        P.register_parametrization(layer, name, LowRank(2))
    for original in layer.parametrizations.several.originals():
        original.requires_grad_(False)
    P.bake(layer)
    assert [(name, x.requires_grad) for name, x in layer.named_parameters()] == [
        ("frozen", False),
        ("several", False),
    ]
    assert sorted(dict(layer.named_buffers())) == ["kept", "parts", "temporary"]
    assert sorted(layer.state_dict()) == ["frozen", "kept", "parts", "several"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_dtypes_and_devices(dtype: torch.dtype, device: str) -> None:
    layers = [nn.Linear(3, 5, dtype=dtype, device=device) for _ in range(3)]
    P.register_parametrization(layers[0], "weight", Orthogonal())
    P.register_parametrization(layers[1], "weight", LowRank(2))
    torch_engine.register_parametrization(layers[2], "weight", Doubled())
    model = nn.Sequential(*layers)
    values = [layer.weight for layer in layers]
    P.bake(model)
    for layer, value in zip(layers, values, strict=True):
        assert isinstance(layer.weight, nn.Parameter)
        assert (layer.weight.dtype, layer.weight.device) == (value.dtype, value.device)
        assert layer.weight.is_contiguous()
        assert device == "meta" or torch.equal(layer.weight, value)


def test_a_lazy_tensor_is_left() -> None:
    model = nn.Sequential(nn.LazyLinear(3))
    P.register_parametrization(model[0], "weight", Orthogonal())
    baked = P.bake(model)
    assert "call the model once" in baked.left[0].reason
    model(torch.ones(1, 2))
    assert P.bake(model).names() == ["0.weight"]


def test_originals_that_are_parametrized_themselves() -> None:
    layer: Any = P.register_parametrization(nn.Linear(3, 3), "weight", WeightNorm())
    P.register_parametrization(layer.parametrizations.weight, "original1", Symmetric())
    other: Any = P.register_parametrization(nn.Linear(3, 3), "weight", Symmetric())
    prune.l1_unstructured(other.parametrizations.weight, "original", 4)  # type: ignore[no-untyped-call]
    model: Any = nn.Sequential(layer, other)
    values = [x.weight.detach().clone() for x in model]
    baked = P.bake(model)
    assert baked.names() == ["0.weight", "1.weight"]
    assert all(torch.equal(x.weight, y) for x, y in zip(model, values, strict=True))
    assert b"paramdesc" not in pickle.dumps(model)


def test_a_tensor_that_another_hook_computes_from() -> None:
    layer: Any = old_weight_norm(nn.Linear(3, 3))
    prune.l1_unstructured(layer, "weight_v", 3)  # type: ignore[no-untyped-call]
    P.register_parametrization(layer, "weight_g", Doubled())
    layer(torch.ones(1, 3))
    layer(torch.ones(1, 3))
    before = layer.weight.detach().clone()
    baked = P.bake(layer, "weight")
    assert baked.names() == ["weight"]
    assert torch.equal(layer.weight, before)
    assert [name for name, _ in layer.named_parameters()] == ["bias", "weight"]
    assert not dict(layer.named_buffers())


def test_a_module_in_two_places_is_baked_once() -> None:
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", Symmetric())
    model = nn.Sequential(layer, layer)
    assert P.bake(model).names() == ["0.weight"]
    assert model[0] is model[1]


def test_modules_of_fsdp_are_refused() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    for layer in model:
        P.register_parametrization(layer, "weight", Symmetric())
    model[1]._is_fsdp_managed_module = True
    with pytest.raises(ShardedModuleError, match=r"then call fully_shard\(module\)"):
        P.bake(model)
    assert len(P.get_parametrizations(model)) == 2


@DEPRECATED
def test_programs_are_refused() -> None:
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", Symmetric())
    model = nn.Sequential(layer)
    graph = torch.fx.symbolic_trace(Reading())
    for program in (nn.Sequential(P.jit.script(model)), graph):
        with pytest.raises(BakingError, match="Bake the model from which the program was created"):
            P.bake(program)
    scripted = nn.Sequential(P.jit.script(model), layer)
    assert P.bake(scripted, "1.weight").names() == ["1.weight"]


def test_values_that_share_memory_get_their_own() -> None:
    class Shown(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("shown", torch.randn(4, 4))

        def forward(self, X: Tensor) -> Tensor:
            shown: Any = self.shown
            corner: Tensor = shown[:3, :3]
            return corner

    shown = Shown()
    layers = [nn.Linear(3, 3), nn.Linear(3, 3)]
    for layer in layers:
        P.register_parametrization(layer, "weight", shown)
        P.register_parametrization(layer, "bias", lambda X: X[:1].expand(3))
    values = [(x.weight.clone(), x.bias.clone()) for x in layers]
    P.bake(nn.Sequential(*layers))
    for layer, (weight, bias) in zip(layers, values, strict=True):
        assert torch.equal(layer.weight, weight)
        assert torch.equal(layer.bias, bias)
        for x in layer.parameters():
            assert x.untyped_storage().nbytes() == 4 * x.numel()
    assert layers[0].weight.data_ptr() != layers[1].weight.data_ptr()


def test_what_has_been_done_is_told() -> None:
    model = nn.Sequential(old_weight_norm(nn.Linear(3, 2)), nn.Linear(3, 3))
    P.register_parametrization(model[1], "weight", Symmetric())
    baked = P.bake(model, "0.weight", exclude=["bias"])
    assert str(baked).splitlines() == [
        "tensor    by                          maps        shape",
        "0.weight  torch.nn.utils.weight_norm  WeightNorm  2x3    a new tensor",
        "1.weight  paramdesc                                      left: not selected",
    ]
    assert repr(baked) == "<Baked: 1 tensor of Sequential>"
    assert (len(baked), bool(P.bake(nn.Linear(3, 3)))) == (1, True)


def test_a_chain_that_another_thread_evaluates_keeps_its_original() -> None:
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", Symmetric())
    chain, weight = chain_of(layer), original_of(layer)
    nn.init.normal_(weight)
    old = weight.detach().clone()
    P.bake(layer)
    assert layer.weight is weight
    assert not torch.equal(weight, old)
    assert torch.equal(chain.original, old)


def test_another_thread_reads_while_a_model_is_baked() -> None:
    layers = [P.register_parametrization(nn.Linear(3, 3), "weight", Symmetric()) for _ in range(50)]
    values = [layer.weight.detach().clone() for layer in layers]
    wrong: list[Any] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                wrong.extend(
                    layer
                    for layer, value in zip(layers, values, strict=True)
                    if not torch.equal(layer.weight, value)
                )
            except Exception as error:  # noqa: PERF203  # an assertion in a thread is not seen
                wrong.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        P.bake(nn.Sequential(*layers))
    finally:
        done.set()
        reader.join()
    assert not wrong
