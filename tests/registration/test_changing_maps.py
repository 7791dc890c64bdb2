"""One map of a chain is inserted, replaced or removed, and the value stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import paramdesc as P
from paramdesc.errors import ChainError, ConstraintError, MissingRightInverseError
from paramdesc.parametrizations import (
    LowRank,
    Orthogonal,
    SpectralNorm,
    Sphere,
    Symmetric,
    WeightNorm,
)
from tests.helpers import Double, Shift, Sum, chain_of, linear


def chained(n: int = 4) -> Any:
    """Symmetric, then half of it: each value is twice a symmetric matrix."""
    layer = linear(Symmetric(), n)
    return P.register_parametrization(layer, "weight", Double())


EDITS: dict[str, tuple[Callable[[Any], object], list[type]]] = {
    "insert": (lambda chain: chain.insert(1, Shift()), [Symmetric, Shift, Double]),
    "insert first": (lambda chain: chain.insert(0, Double()), [Double, Symmetric, Double]),
    "insert last": (lambda chain: chain.insert(9, Double()), [Symmetric, Double, Double]),
    "replace": (lambda chain: chain.replace(1, Shift()), [Symmetric, Shift]),
    "replace by type": (lambda chain: chain.replace(Double, Shift()), [Symmetric, Shift]),
    "replace by name": (lambda chain: chain.replace("Double", Shift()), [Symmetric, Shift]),
    "replace a map": (lambda chain: chain.replace(chain[0], Double()), [Double, Double]),
    "remove": (lambda chain: chain.remove(-1), [Symmetric]),
    "remove by type": (lambda chain: chain.remove(Symmetric), [Double]),
}


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("scope", ["none", "cached", "persistent", "auto"])
def test_value_original_and_optimizer_stay(name: str, scope: str) -> None:
    edit, types = EDITS[name]
    layer = chained()
    original = chain_of(layer).original
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    momentum = optimizer.state[original]["exp_avg"].clone()
    if scope == "auto":
        P.auto_cache(layer)
    layer.train(scope != "persistent")
    block = P.cached(layer, persistent=scope == "persistent")
    with block if scope in ("cached", "persistent") else torch.enable_grad():
        before = layer.weight.detach().clone()
        edit(chain_of(layer))
        assert [type(x) for x in chain_of(layer).maps()] == types
        torch.testing.assert_close(layer.weight, before)
        assert layer.weight.grad_fn is not None
        layer.weight.sum().backward()
    assert chain_of(layer).original is original
    assert any(x is original for x in layer.parameters())
    assert optimizer.state[original]["exp_avg"].equal(momentum)
    optimizer.step()
    assert not layer.weight.equal(before)


def test_with_keep_value_false_the_original_stays() -> None:
    edits: list[Callable[[Any], object]] = [
        lambda chain: chain.insert(1, Double(), keep_value=False),
        lambda chain: chain.replace(1, Shift(), keep_value=False),
        lambda chain: chain.remove(1, keep_value=False),
        lambda chain: chain.pop(1),
    ]
    for edit in edits:
        chain: Any = chain_of(chained())
        numbers, value = chain.original.detach().clone(), chain().detach()
        edit(chain)
        assert chain.original.equal(numbers)
        assert not torch.allclose(chain(), value)


def test_the_map_that_goes_is_returned() -> None:
    chain = chain_of(chained())
    first, second = chain.maps()
    assert chain.replace(1, Shift()) is second
    assert chain.remove(Symmetric) is first


def test_functions_are_maps_here_too() -> None:
    layer = P.register_parametrization(chained(), "weight", torch.exp)
    chain = chain_of(layer)
    value = layer.weight.detach().clone()
    chain.remove(torch.exp, keep_value=True)
    torch.testing.assert_close(layer.weight, value)
    chain.insert(2, torch.exp, keep_value=False)
    torch.testing.assert_close(layer.weight, value.exp())


def test_a_value_that_the_new_maps_do_not_reach_is_projected() -> None:
    layer = chained()
    nn.init.normal_(layer.weight)
    before = layer.weight.detach().clone()
    chain_of(layer).replace(Symmetric, Orthogonal())
    chain_of(layer).remove(Double)
    W = layer.weight
    torch.testing.assert_close(W @ W.T, torch.eye(4), rtol=1e-4, atol=1e-4)
    U, _, V = torch.linalg.svd(before)
    torch.testing.assert_close(W, U @ V, rtol=1e-3, atol=1e-3)


def test_a_base_point_comes_and_goes() -> None:
    layer = linear(Orthogonal(), 4)
    before = layer.weight.detach().clone()
    P.register_parametrization(layer, "weight", Double())
    chain = chain_of(layer)
    chain.remove(Orthogonal)
    assert "_steps_since" not in vars(chain)
    torch.testing.assert_close(layer.weight, 2 * before)
    chain.insert(0, Orthogonal())
    assert vars(chain)["_steps_since"] == 0
    torch.testing.assert_close(layer.weight, 2 * before, rtol=1e-4, atol=1e-4)
    assert chain.original.abs().max() < 1e-4  # relative to the new base point


def test_warm_starts_begin_anew_and_end() -> None:
    layer = chained(6)
    chain = chain_of(layer)
    chain.insert(2, SpectralNorm())
    assert torch.linalg.matrix_norm(layer.weight, 2) < 1.2
    assert "_steps" in vars(chain)
    before = layer.weight.detach().clone()
    gone = chain.remove(SpectralNorm)
    assert not gone.is_led
    torch.testing.assert_close(layer.weight, before)


def test_several_originals() -> None:
    layer = P.register_parametrization(linear(WeightNorm(), 4), "weight", Double())
    chain = chain_of(layer)
    originals, before = chain.originals(), layer.weight.detach().clone()
    assert chain.ntensors == 2
    chain.remove(Double)
    torch.testing.assert_close(layer.weight, before)
    chain.insert(1, Shift())
    torch.testing.assert_close(layer.weight, before)
    assert all(x is y for x, y in zip(chain.originals(), originals, strict=True))
    edits: list[Callable[[Any], object]] = [
        lambda chain: chain.replace(0, Symmetric()),
        lambda chain: chain.remove(0),
    ]
    for edit in edits:
        with pytest.raises(ChainError, match="register_parametrization"):
            edit(chain)
        torch.testing.assert_close(layer.weight, before)
    other = linear(Symmetric(), 4)
    with pytest.raises(ChainError, match="remove_parametrizations"):
        chain_of(other).replace(0, Sum())


def test_originals_of_another_shape_are_refused() -> None:
    layer = linear(LowRank(1), 4)
    before = [x.detach().clone() for x in chain_of(layer).originals()]
    with pytest.raises(ChainError, match="shape of 'original0'"):
        chain_of(layer).replace(LowRank, LowRank(2))
    assert all(x.equal(y) for x, y in zip(chain_of(layer).originals(), before, strict=True))


class OneWay(nn.Module):
    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return X.sinh()


class Unfinished(OneWay):
    def right_inverse(self, Y: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class Flat(nn.Module):
    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return X.flatten()

    def right_inverse(self, Y: torch.Tensor) -> torch.Tensor:
        return Y + 1


class Failing(Double):
    def right_inverse(self, Y: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError("on purpose")


REFUSED: dict[str, tuple[Callable[[Any], object], type[Exception], str]] = {
    "no right_inverse": (
        lambda chain: chain.insert(1, OneWay()),
        MissingRightInverseError,
        "keep_value=False",
    ),
    "an unfinished one": (
        lambda chain: chain.insert(1, Unfinished()),
        MissingRightInverseError,
        "keep_value=False",
    ),
    "shape": (lambda chain: chain.insert(2, Flat()), ChainError, "shape of 'weight'"),
    "fails": (lambda chain: chain.replace(1, Failing()), ZeroDivisionError, "on purpose"),
    "strict": (lambda chain: chain.insert(2, Sphere(strict=True)), ConstraintError, "nearby"),
    "no such index": (lambda chain: chain.remove(2), ChainError, r"remove\(0\)"),
    "no such type": (lambda chain: chain.remove(Orthogonal), ChainError, "0: Symmetric"),
    "no such name": (lambda chain: chain.replace("Orthogonal", Double()), ChainError, "1: Double"),
    "several": (lambda chain: chain.remove(nn.Module), ChainError, "2 parametrizations"),
    "clear": (lambda chain: chain.clear(), ChainError, "remove_parametrizations"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("nested", [False, True])
def test_a_refused_change_leaves_everything_as_it_was(name: str, nested: bool) -> None:
    edit, error, message = REFUSED[name]
    layer = chained()
    chain = chain_of(layer)
    if nested:
        P.register_parametrization(chain, "original", torch.sinh, right_inverse=torch.asinh)
    keys, maps, value = list(layer.state_dict()), list(chain.maps()), layer.weight.detach().clone()
    with pytest.raises(error, match=message) as caught:
        edit(chain)
    if error in (ZeroDivisionError, ConstraintError):
        assert any("keep_value=False" in note for note in caught.value.__notes__)
    assert list(chain.maps()) == maps
    assert list(layer.state_dict()) == keys
    assert layer.weight.equal(value)


def test_the_last_map_is_not_removed() -> None:
    layer = linear()
    with pytest.raises(ChainError, match=r"remove_parametrizations\(module, \"weight\"\)"):
        chain_of(layer).remove(0)


def test_chains_are_not_deleted_by_hand() -> None:
    layer: Any = chained()
    before = layer.weight.detach().clone()
    edits: list[Callable[[Any], object]] = [
        lambda chains: chains.__delitem__("weight"),
        lambda chains: chains.pop("weight"),
        lambda chains: chains.clear(),
    ]
    for edit in edits:
        with pytest.raises(ChainError, match=r"remove_parametrizations\(module, \"weight\"\)"):
            edit(layer.parametrizations)
        assert layer.weight.equal(before)
    with pytest.raises(KeyError):
        del layer.parametrizations["bias"]


def test_tied_tensors_follow() -> None:
    model: Any = nn.ModuleDict({"embed": nn.Embedding(4, 4), "head": nn.Linear(4, 4)})
    P.register_parametrization(model, "embed.weight", Symmetric())
    P.tie_weights(model, "embed.weight", "head.weight")
    before = model["head"].weight.detach().clone()
    P.chain_of(model["embed"], "weight").insert(1, Double())
    for layer in model.values():
        torch.testing.assert_close(layer.weight, before)
    assert len(chain_of(model["head"])) == 2


def test_a_parameter_of_another_module_is_not_overwritten() -> None:
    layer, other = chained(), nn.Linear(4, 4)
    P.transfer_parametrizations_and_params(layer, other)
    before = other.weight.detach().clone()
    with pytest.raises(ChainError, match="keep_value=False"):
        chain_of(layer).remove(Double)
    assert layer.weight.equal(before)
    assert other.weight.equal(before)
    chain_of(layer).remove(Double, keep_value=False)
    assert other.weight.equal(before)


def test_new_maps_are_in_the_mode_of_the_chain() -> None:
    layer = chained().eval()
    chain_of(layer).insert(1, Double())
    chain_of(layer).append(Shift().eval())
    assert not any(x.training for x in layer.modules())


def test_not_inside_a_block_that_switches_the_tensor_off() -> None:
    layer = chained()
    before = layer.weight.detach().clone()
    with P.disabled(layer), pytest.raises(P.errors.DisabledError):
        chain_of(layer).remove(Double)
    assert layer.weight.equal(before)


def test_compiled_code_follows() -> None:
    layer, x = chained(), torch.randn(2, 4)
    compiled: Any = torch.compile(layer, backend="eager", fullgraph=True)
    before = compiled(x)
    chain_of(layer).remove(Double)
    torch.testing.assert_close(compiled(x), before)
    chain_of(layer).insert(1, Double(), keep_value=False)
    torch.testing.assert_close(compiled(x), layer(x))
    assert not torch.allclose(layer(x), before)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_scripts_made_later_follow() -> None:
    layer, x = chained(), torch.randn(2, 4)
    before = P.jit.script(layer)(x)
    chain_of(layer).replace(Double, Shift())
    torch.testing.assert_close(P.jit.script(layer)(x), before)
