"""Plain and mixed checkpoints load into parametrized models, and models are saved as plain ones."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import paramdesc as P
from paramdesc import parametrizations as maps
from paramdesc.errors import CheckpointError
from paramdesc.parametrizations import (
    LoRA,
    Orthogonal,
    Positive,
    Skew,
    SpectralNorm,
    Sphere,
    Symmetric,
    WeightNorm,
)
from tests.models.architectures import Attention, LanguageModel, Recurrent, convolutions

Model = Callable[[], nn.Module]


def tokens() -> Tensor:
    return torch.tensor([[0, 3, 6], [1, 2, 5]])


def language_model() -> nn.Module:
    model = LanguageModel()
    P.parametrize(model, {nn.Embedding: Sphere})
    return model


def parametrized_attention() -> nn.Module:
    model = Attention()
    P.parametrize(
        model,
        {"*in_proj_weight": lambda: SpectralNorm(3.0), "*out_proj.weight": Orthogonal},
    )
    return model


def parametrized_convolutions() -> nn.Module:
    model = convolutions()
    model(torch.randn(2, 3, 6, 6))
    P.register_parametrization(model, "0.weight", WeightNorm(), unsafe=True)
    maps.spectral_norm(model[3])
    P.register_parametrization(model, "1.weight", Positive())
    return model


def parametrized_recurrent() -> nn.Module:
    model = Recurrent()
    P.parametrize(model, {"*weight_hh_*": lambda: LoRA(2), "out.weight": Sphere})
    return model


MODELS: dict[str, tuple[Model, Callable[[], Tensor]]] = {
    "tied language model": (language_model, tokens),
    "attention": (parametrized_attention, lambda: torch.randn(2, 3, 4)),
    "convolutions": (parametrized_convolutions, lambda: torch.randn(2, 3, 6, 6)),
    "LSTM": (parametrized_recurrent, lambda: torch.randn(2, 5, 3)),
}
each_model = pytest.mark.parametrize(("make", "inputs"), MODELS.values(), ids=MODELS)


def plain_twin(model: nn.Module) -> Any:
    return P.bake(model, copy=True).model


def error_of(model: nn.Module, state_dict: Any, **options: Any) -> str:
    with pytest.raises(RuntimeError) as caught:
        model.load_state_dict(state_dict, **options)
    return str(caught.value)


# loading


@each_model
@pytest.mark.parametrize("assign", [False, True])
def test_plain_checkpoint_gives_the_values_of_the_plain_model(
    make: Model, inputs: Callable[[], Tensor], assign: bool
) -> None:
    plain, model, x = plain_twin(make().eval()), make().eval(), inputs()
    trained = {name: p.requires_grad for name, p in model.named_parameters()}
    before = dict(model.named_parameters())
    result = model.load_state_dict(plain.state_dict(), assign=assign)
    assert result == ([], [])
    torch.testing.assert_close(model(x), plain(x))
    assert {name: p.requires_grad for name, p in model.named_parameters()} == trained
    if not assign:
        assert all(p is before[name] for name, p in model.named_parameters())


@each_model
def test_layout_of_torch_still_loads(make: Model, inputs: Callable[[], Tensor]) -> None:
    one, other, x = make().eval(), make().eval(), inputs()
    assert other.load_state_dict(one.state_dict()) == ([], [])
    assert torch.equal(one(x), other(x))


def layers(*functions: Callable[[nn.Module], Any]) -> Any:
    made = [nn.Linear(4, 4) for _ in functions]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for layer, function in zip(made, functions, strict=True):
            function(layer)
    return nn.Sequential(*made).eval()


def of(parametrization: Callable[[], nn.Module]) -> Callable[[nn.Module], Any]:
    return lambda layer: P.register_parametrization(layer, "weight", parametrization())


def test_a_mixed_file_loads_in_one_call() -> None:
    stored = layers(
        lambda layer: None,
        of(Symmetric),
        weight_norm,
        spectral_norm,
        lambda layer: prune.random_unstructured(layer, "weight", 0.5),  # type: ignore[no-untyped-call]
        weight_norm,
        spectral_norm,
    )
    model = layers(*[of(lambda: LoRA(2)), of(Symmetric)], *[of(lambda: LoRA(2))] * 3).eval()
    model.append(maps.weight_norm(nn.Linear(4, 4))).append(maps.spectral_norm(nn.Linear(4, 4)))
    model.eval()
    x = torch.randn(3, 4)
    for _ in range(20):  # else the norm of the older spectral_norm may be negative
        stored.train()(x)
    stored.eval()
    assert model.load_state_dict(stored.state_dict()) == ([], [])
    torch.testing.assert_close(model(x), stored(x))


def test_missing_and_unexpected_keys_are_reported_as_usual() -> None:
    model = layers(of(Symmetric), of(Symmetric))
    state = {"0.weight": torch.eye(4), "0.bias": torch.ones(4), "0.extra": torch.ones(1)}
    result = model.load_state_dict(state, strict=False)
    assert result.missing_keys == ["1.bias", "1.parametrizations.weight.original"]
    assert result.unexpected_keys == ["0.extra"]
    message = error_of(model, state)
    assert '"1.parametrizations.weight.original"' in message
    assert '"0.extra"' in message
    assert '"0.weight"' not in message


def test_a_plain_key_beside_the_original_is_unexpected() -> None:
    model = layers(of(Symmetric))
    state = {**model.state_dict(), "0.weight": torch.eye(4)}
    assert model.load_state_dict(state, strict=False).unexpected_keys == ["0.weight"]
    assert not torch.equal(model[0].weight, torch.eye(4))


def test_one_tensor_is_all_or_nothing_and_errors_are_collected() -> None:
    model: Any = nn.ModuleDict(
        {
            "shape": nn.Linear(4, 4),
            "strict": nn.Linear(4, 4),
            "one way": nn.Linear(4, 4),
            "text": nn.Linear(4, 4),
            "right": nn.Linear(4, 4),
        }
    )
    P.register_parametrization(model["shape"], "weight", Symmetric())
    P.register_parametrization(model["strict"], "weight", Sphere())
    model["strict"].weight = torch.eye(4)
    P.register_parametrization(model["strict"], "weight", Orthogonal(strict=True))
    P.register_parametrization(model["one way"], "weight", torch.exp)
    P.register_parametrization(model["text"], "weight", Symmetric())
    P.register_parametrization(model["right"], "weight", Symmetric())
    before = {name: model[name].weight.detach().clone() for name in model}
    state: dict[str, Any] = {f"{name}.bias": torch.ones(4) for name in model}
    state |= {f"{name}.weight": torch.ones(4, 4) for name in model}
    state |= {"shape.weight": torch.ones(3, 4), "text.weight": "a text"}
    message = error_of(model, state)
    assert (
        "size mismatch for shape.weight: copying a param with shape torch.Size([3, 4]) from "
        "checkpoint, the shape in current model is torch.Size([4, 4])." in message
    )
    assert '"strict.weight" of the checkpoint cannot be the value' in message
    assert "without strict=True" in message
    assert '"one way.weight"' in message
    assert "right_inverse" in message
    assert "store them as 'one way.parametrizations.weight.original'" in message
    assert "parametrized by exp: " in message
    assert "expected torch.Tensor or Tensor-like object from checkpoint but received" in message
    assert "Missing" not in message
    assert "Unexpected" not in message
    for name in ("shape", "strict", "one way", "text"):
        assert torch.equal(model[name].weight, before[name])
    assert torch.equal(model["right"].weight, torch.ones(4, 4))


def test_a_model_on_meta_gets_its_tensors_with_assign() -> None:
    plain = plain_twin(parametrized_attention())
    with torch.device("meta"):
        model = parametrized_attention()
    model.load_state_dict(plain.state_dict(), assign=True)
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(model.eval()(x), plain.eval()(x))
    assert all(x.device.type == "cpu" for x in model.state_dict().values())
    with torch.device("meta"):
        model = parametrized_attention()
    with pytest.warns(UserWarning, match="assign=True"):
        model.load_state_dict(plain.state_dict())


def test_dtype_is_that_of_the_model_and_with_assign_that_of_the_checkpoint() -> None:
    state = {"0.weight": torch.eye(4, dtype=torch.float64), "0.bias": torch.ones(4)}
    model = layers(of(Symmetric))
    model.load_state_dict(state)
    assert model[0].weight.dtype == torch.float32
    model.load_state_dict(state, assign=True)
    assert model[0].weight.dtype == torch.float64


def test_the_model_keeps_its_strides() -> None:
    model = layers(of(lambda: LoRA(2)))
    model.load_state_dict({"0.weight": torch.randn(4, 4).T, "0.bias": torch.ones(4)})
    assert P.chain_of(model, "0.weight").original.is_contiguous()


def test_the_checkpoint_and_the_model_share_no_memory() -> None:
    state = {"0.weight": torch.eye(4), "0.bias": torch.ones(4)}
    model = layers(of(lambda: LoRA(2)))
    model.load_state_dict(state)
    state["0.weight"].zero_()
    assert torch.equal(model[0].weight, torch.eye(4))


def test_kept_values_base_points_and_warm_starts_follow() -> None:
    model: Any = nn.Sequential(
        maps.orthogonal(nn.Linear(4, 4)), maps.spectral_norm(nn.Linear(4, 4))
    )
    plain = plain_twin(copy.deepcopy(model).eval())
    plain[0].weight.data = torch.linalg.qr(torch.randn(4, 4))[0]
    plain[1].weight.data = torch.diag(torch.tensor([1.0, 0.5, 0.2, 0.1]))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with P.cached(model, persistent=True):
        for _ in range(3):
            model(torch.randn(2, 4)).sum().backward()
            optimizer.step()
        model.load_state_dict(plain.state_dict())
        for own, theirs in zip(model, plain, strict=True):
            torch.testing.assert_close(own.weight, theirs.weight)
    model(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    assert torch.isfinite(model[0].weight).all()


@pytest.mark.parametrize("assign", [False, True])
def test_a_warm_start_loads_where_torch_swaps_tensors(assign: bool) -> None:
    model = layers(maps.spectral_norm)
    plain = {key: value.clone() for key, value in P.plain_state_dict(model).items()}
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model.load_state_dict(plain, assign=assign)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)
    for key, value in P.plain_state_dict(model).items():
        torch.testing.assert_close(value, plain[key])


def test_shared_modules_and_paths_of_wrappers() -> None:
    layer = P.register_parametrization(nn.Linear(4, 4), "weight", Symmetric())
    model = nn.ModuleDict({"one": layer, "module": nn.Sequential(layer)})
    state = {
        f"{path}.{name}": x
        for path in ("one", "module.0")
        for name, x in {"weight": torch.eye(4), "bias": torch.ones(4)}.items()
    }
    assert model.load_state_dict(state) == ([], [])
    assert torch.equal(layer.weight, torch.eye(4))


def test_an_original_that_is_parametrized_itself() -> None:
    layer = P.register_parametrization(nn.Linear(4, 4), "weight", LoRA(2))
    P.register_parametrization(layer, "parametrizations.weight.original", Symmetric())
    state = layer.state_dict()
    layer.load_state_dict({"weight": torch.eye(4), "bias": torch.ones(4)})
    torch.testing.assert_close(layer.weight.detach(), torch.eye(4))
    layer.load_state_dict(state)
    assert not torch.equal(layer.weight, torch.eye(4))


COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "adopt": lambda model: P.adopt(
        nn.Sequential(parametrizations.orthogonal(nn.Linear(4, 4)).eval())
    ),
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies_load_plain_checkpoints_too(copied: Callable[[nn.Module], nn.Module]) -> None:
    model: Any = copied(layers(of(Orthogonal)))
    model.load_state_dict({"0.weight": torch.eye(4), "0.bias": torch.ones(4)})
    torch.testing.assert_close(model[0].weight.detach(), torch.eye(4))


def broken(x: Tensor) -> Tensor:
    raise ArithmeticError


REMOVALS: dict[str, Callable[[Any], Any]] = {
    "remove_parametrizations": lambda model: P.remove_parametrizations(model, "0.weight"),
    "bake": P.bake,
}


@pytest.mark.parametrize("remove", REMOVALS.values(), ids=REMOVALS)
def test_nothing_is_left_on_a_plain_module(remove: Callable[[Any], Any]) -> None:
    model = layers(of(Symmetric))
    assert model[0]._load_state_dict_pre_hooks
    remove(model)
    assert not model[0]._load_state_dict_pre_hooks
    assert model.load_state_dict({"0.weight": torch.eye(4), "0.bias": torch.ones(4)}) == ([], [])


def test_nothing_is_left_by_a_failed_registration() -> None:
    layer = nn.Linear(4, 4)
    with pytest.raises(ArithmeticError):
        P.register_parametrization(layer, "weight", broken)
    assert not layer._load_state_dict_pre_hooks


def test_originals_of_other_maps_are_warned_of_where_the_metadata_is_kept() -> None:
    saved, model = layers(of(Symmetric)).state_dict(), layers(of(Skew))
    with pytest.warns(UserWarning, match=r"for Symmetric, but it is loaded into Skew"):
        model.load_state_dict(saved)
    model.load_state_dict(dict(saved))  # without metadata
    model.load_state_dict(layers(of(Skew)).state_dict())


def test_maps_of_torch_and_maps_added_since_are_not_warned_of() -> None:
    adopted = P.adopt(layers(parametrizations.weight_norm))
    layers(maps.weight_norm).load_state_dict(adopted.state_dict())
    saved = layers(of(Symmetric)).state_dict()
    model = layers(of(Symmetric))
    maps.lora(model[0], rank=2)
    model.load_state_dict(saved, strict=False)
    torch.testing.assert_close(model[0].weight, model[0].weight.T)


def test_a_lazy_module_loads_before_it_has_a_shape() -> None:
    model: Any = nn.Sequential(nn.LazyLinear(4))
    P.register_parametrization(model[0], "weight", Orthogonal())
    model.load_state_dict({"0.weight": torch.eye(4), "0.bias": torch.ones(4)})
    model(torch.randn(2, 4))
    assert P.is_parametrized(model[0])
    torch.testing.assert_close(model[0].weight.detach(), torch.eye(4))


def test_transferred_and_tied_tensors_get_the_one_value() -> None:
    model: Any = nn.ModuleDict({"one": nn.Linear(4, 4), "other": nn.Linear(4, 4)})
    P.register_parametrization(model["one"], "weight", Orthogonal())
    P.transfer_parametrizations_and_params(model["one"], model["other"])
    value = torch.linalg.qr(torch.randn(4, 4))[0]
    state = {f"{path}.weight": value for path in model}
    assert not model.load_state_dict(state, strict=False).unexpected_keys
    for layer in model.values():
        torch.testing.assert_close(layer.weight.detach(), value)
    stored = P.plain_state_dict(model)
    assert stored["one.weight"] is stored["other.weight"]


def test_joint_parts_are_refused_with_the_line_to_write() -> None:
    model: Any = nn.ModuleDict({"q": nn.Linear(4, 2), "k": nn.Linear(4, 2)})
    maps.joint(Orthogonal(), [(model["q"], "weight"), (model["k"], "weight")])
    plain = plain_twin(copy.deepcopy(model))
    assert "assign_jointly(" in error_of(model, plain.state_dict())
    assert plain.load_state_dict(P.plain_state_dict(model)) == ([], [])


# saving


@each_model
def test_plain_state_dict_loads_into_a_plain_model(
    make: Model, inputs: Callable[[], Tensor]
) -> None:
    model, x = make().eval(), inputs()
    plain = plain_twin(make().eval())
    state = P.plain_state_dict(model)
    assert set(state) == set(plain.state_dict())
    assert not any(x.requires_grad for x in state.values())
    plain.load_state_dict(state)
    torch.testing.assert_close(plain(x), model(x))
    assert not any("parametrizations" in path for path in state._metadata)  # type: ignore[attr-defined]


def test_plain_state_dict_keeps_ties_and_evaluates_once() -> None:
    calls = []
    model = language_model()
    chain = P.chain_of(model, "embed.weight")
    chain[0].register_forward_hook(lambda *_: calls.append(1))
    state = P.plain_state_dict(model)
    assert state["embed.weight"].data_ptr() == state["head.weight"].data_ptr()
    assert len(calls) == 1


def test_states_do_not_move() -> None:
    model: Any = nn.Sequential(maps.spectral_norm(nn.Linear(4, 4)))
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    model(torch.randn(2, 4)).sum().backward()
    optimizer.step()  # the states have not followed this step yet
    twin = copy.deepcopy(model)
    before = copy.deepcopy(dict(model.state_dict()))
    P.plain_state_dict(model)
    after = model.state_dict()
    assert all(torch.equal(x, after[name]) for name, x in before.items())
    assert torch.equal(model[0].weight, twin[0].weight)
    assert any(not torch.equal(x, model.state_dict()[name]) for name, x in before.items())


def test_selectors_choose_what_is_plain() -> None:
    model = layers(of(Symmetric), of(Symmetric))
    state = P.plain_state_dict(model, "0.*")
    assert {"0.weight", "1.parametrizations.weight.original"} < set(state)
    assert set(P.plain_state_dict(model, exclude=["0.*"])) == {
        "0.parametrizations.weight.original",
        "0.bias",
        "1.weight",
        "1.bias",
    }
    with pytest.raises(ValueError, match="matches no tensor"):
        P.plain_state_dict(model, "2.*")


def test_old_layouts_load_into_the_older_functions() -> None:
    model = layers(maps.weight_norm, maps.spectral_norm)
    x = torch.randn(2, 4)
    old = layers(weight_norm, lambda layer: None)
    old.load_state_dict(P.plain_state_dict(model, layout="weight_g"))
    torch.testing.assert_close(old(x), model(x))
    old = layers(lambda layer: None, spectral_norm)
    old.load_state_dict(P.plain_state_dict(model, layout="spectral_norm"))
    torch.testing.assert_close(old(x), model(x))
    with pytest.raises(ValueError, match="layout must be"):
        P.plain_state_dict(model, layout="other")  # type: ignore[arg-type]


def test_older_machinery_is_saved_as_values() -> None:
    model = layers(weight_norm, spectral_norm, parametrizations.weight_norm)
    x = torch.randn(2, 4)
    plain = layers(*[lambda layer: None] * 3)
    plain.load_state_dict(P.plain_state_dict(model))
    torch.testing.assert_close(plain(x), model(x))


def test_the_stream_evaluates_one_tensor_at_a_time() -> None:
    calls: list[int] = []
    model = layers(*[of(Symmetric)] * 3)
    for layer in model:
        layer.parametrizations.weight[0].register_forward_hook(lambda *_: calls.append(1))
    names = []
    for name, tensor in P.plain_tensors(model):
        names.append(name)
        assert len(calls) == sum(name.endswith("weight") for name in names)
        assert not tensor.requires_grad
    assert len(calls) == 3


# adapters


def adapted() -> Any:
    model: Any = parametrized_recurrent()
    maps.lora(model.out, rank=2, alpha=4.0)
    for name, x in model.named_parameters():
        if name.endswith("lora_B"):
            nn.init.normal_(x)
    return model


def test_adapters_are_saved_and_loaded_alone() -> None:
    one, other = adapted(), adapted()
    state = maps.adapter_state_dict(one)
    assert all(name.endswith(("lora_A", "lora_B")) for name in state)
    assert len(state) == 6
    before = {name: x.clone() for name, x in other.state_dict().items()}
    maps.load_adapters(other, state)
    after = other.state_dict()
    assert all(torch.equal(after[name], state.get(name, x)) for name, x in before.items())


def test_adapters_that_do_not_fit_are_refused_whole() -> None:
    model = adapted()
    state = maps.adapter_state_dict(adapted())
    name = "out.parametrizations.weight.1.lora_A"
    before = {name: x.clone() for name, x in model.state_dict().items()}
    for wrong, problem in (
        ({**state, "other": state[name]}, "unexpected: other"),
        ({key: x for key, x in state.items() if key != name}, f"missing: {name}"),
        ({**state, name: torch.ones(3, 4)}, r"has shape \[3, 4\], not \[2, 4\]"),
    ):
        with pytest.raises(CheckpointError, match=problem):
            maps.load_adapters(model, wrong)
    scaled = adapted()
    scaled.out.parametrizations.weight[1].alpha = 1.0
    with pytest.raises(CheckpointError, match="was saved with alpha=1, not 4"):
        maps.load_adapters(model, maps.adapter_state_dict(scaled))
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    maps.load_adapters(model, {name: state[name], "other": state[name]}, strict=False)
    assert torch.equal(model.state_dict()[name], state[name])


def test_merged_adapters_are_taken_out_again() -> None:
    model: Any = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(12, 4))
    for layer in (model[0], model[2]):
        maps.lora(layer, rank=2, alpha=4.0)
        nn.init.normal_(layer.parametrizations.weight[0].lora_B)
    x = torch.randn(2, 2, 3, 3)
    before, frozen, state = (
        model(x),
        copy.deepcopy(model.state_dict()),
        maps.adapter_state_dict(model),
    )
    maps.merge_lora(model)
    assert not P.is_parametrized(model[0])
    maps.unmerge_lora(model, state)
    torch.testing.assert_close(model(x), before)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, frozen[name])
    trained = [name for name, x in model.named_parameters() if x.requires_grad]
    assert set(trained) - {"0.bias", "2.bias"} == set(state)
    with pytest.raises(CheckpointError, match=r"'3\.weight' has no weight"):
        maps.unmerge_lora(model, {"3.parametrizations.weight.0.lora_A": torch.ones(2, 2)})


# files


def test_state_dicts_load_with_weights_only() -> None:
    model = layers(of(Symmetric), maps.spectral_norm, maps.weight_norm, maps.lora, maps.orthogonal)
    state: Any
    for state in (model.state_dict(), P.plain_state_dict(model), maps.adapter_state_dict(model)):
        file = io.BytesIO()
        torch.save(state, file)
        loaded = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
        assert loaded._metadata == state._metadata
        assert list(loaded) == list(state)


def test_whole_models_load_with_weights_only_and_safe_globals() -> None:
    model = layers(of(Symmetric))
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    needed: Any = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    names = [name for name in needed if name.startswith("paramdesc.")]
    assert set(names) == {
        "paramdesc.AttributeNamespace",
        "paramdesc.ParametrizationDict",
        "paramdesc.ParametrizationList",
        "paramdesc.ParametrizedTensor",
        "paramdesc.PlainKeys",
        "paramdesc.parametrizations.Symmetric",
    }
