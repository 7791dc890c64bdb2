"""One map on several tensors, and tensors that follow another one."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paramdesc import cached, register_parametrization, remove_parametrizations
from paramdesc.parametrizations.composition.joint import JointPart
from paramdesc.parametrizations.entries.scaled import Scaled
from paramdesc.parametrizations.functions.jointly import assign_jointly, joint, tie
from paramdesc.parametrizations.norms.frobenius_norm import FrobeniusNorm
from paramdesc.parametrizations.norms.spectral_norm import SpectralNorm
from paramdesc.parametrizations.orthogonality.torch_layouts import TorchOrthogonal
from paramdesc.parametrizations.spectra.low_rank import LowRank
from paramdesc.parametrizations.structure.symmetric import Symmetric


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(6, 2, bias=False)
        self.k = nn.Linear(6, 1, bias=False)
        self.v = nn.Linear(6, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.q(x), self.k(x), self.v(x)], -1)

    def places(self) -> list[tuple[nn.Module, str]]:
        return [(self.q, "weight"), (self.k, "weight"), (self.v, "weight")]

    def whole(self) -> Tensor:
        return torch.cat([self.q.weight, self.k.weight, self.v.weight])


def attention() -> Attention:
    model = Attention()
    joint(TorchOrthogonal("cayley"), model.places())
    return model


def train(model: nn.Module, steps: int = 3) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(torch.randn(8, 6)) - 1).square().sum().backward()
        optimizer.step()


def is_orthogonal(W: Tensor) -> bool:
    return torch.allclose(W @ W.mT, torch.eye(len(W), dtype=W.dtype), atol=1e-5)


def test_the_parts_are_those_of_the_map_of_the_whole() -> None:
    model = attention()
    assert is_orthogonal(model.whole())
    before = model.whole().detach().clone()
    train(model)
    assert is_orthogonal(model.whole())
    assert not torch.allclose(model.whole(), before, atol=1e-3)


def test_each_tensor_keeps_its_parameter_and_an_older_optimizer_its_grip() -> None:
    model = Attention()
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    joint(TorchOrthogonal("cayley"), model.places())
    assert {id(x) for x in model.parameters()} == {id(x) for x in parameters}
    before = model.whole().detach().clone()
    model(torch.ones(1, 6)).square().sum().backward()
    optimizer.step()
    assert not model.whole().equal(before)
    assert is_orthogonal(model.whole())


def test_a_step_on_one_part_changes_the_others() -> None:
    model = attention()
    before = model.k.weight.detach().clone()
    q: Any = model.q.parametrizations
    with torch.no_grad():
        q.weight.original0.add_(torch.randn(2, 6))
    assert not torch.allclose(model.k.weight, before, atol=1e-3)
    assert is_orthogonal(model.whole())


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_a_copy_is_joint_in_itself_and_apart_from_its_source(how: str) -> None:
    model = attention()
    twin = copy.deepcopy(model) if how == "deepcopy" else pickle.loads(pickle.dumps(model))
    before = model.whole().detach().clone()
    assert twin.whole().equal(before)
    train(twin)
    assert is_orthogonal(twin.whole())
    assert model.whole().equal(before)


def test_a_copy_of_one_module_alone_keeps_its_value() -> None:
    model = attention()
    twin = copy.deepcopy(model.k)
    train(model)
    assert not twin.weight.equal(model.k.weight)
    assert twin.weight.norm().item() == pytest.approx(1.0, abs=1e-5)


def test_a_state_dict_goes_to_another_model() -> None:
    model, other = attention(), attention()
    train(model)
    other.load_state_dict(model.state_dict(), strict=True)
    assert other.whole().equal(model.whole())


def test_conversion_leaves_the_parts_joint() -> None:
    model = attention().double()
    assert model.q.weight.dtype == torch.float64
    train(model.float())
    assert is_orthogonal(model.whole())


def test_a_scope_keeps_each_part_until_any_original_changes() -> None:
    model = attention()
    q: Any = model.q.parametrizations
    with cached(model):
        value = model.k.weight
        assert model.k.weight is value
        with torch.no_grad():
            q.weight.original0.add_(1.0)
        assert model.k.weight is not value
        assert is_orthogonal(model.whole())


def test_models_compile_export_and_script() -> None:
    model, x = attention(), torch.randn(3, 6)
    expected = model(x)
    compiled: Any = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(x), expected)
    exported = torch.export.export(copy.deepcopy(model), (x,)).module()
    assert torch.allclose(exported(x), expected)
    with pytest.warns(DeprecationWarning, match="script"):
        scripted: Any = torch.jit.script(model)
    assert torch.allclose(scripted(x), expected)


def test_functional_call_lends_a_part_to_all() -> None:
    model, x = attention(), torch.randn(3, 6)
    lent = {name: torch.randn_like(X) for name, X in model.named_parameters()}
    value = torch.func.functional_call(model, lent, (x,))
    with torch.no_grad():
        for name, X in model.named_parameters():
            X.copy_(lent[name])
    assert torch.allclose(model(x), value)


def test_one_part_cannot_be_assigned_to_and_all_together_can() -> None:
    model = attention()
    before = model.whole().detach().clone()
    with pytest.raises(RuntimeError, match=r"assign_jointly\(\[\(module, name\), \.\.\.\]"):
        model.q.weight = torch.eye(6)[:2]
    assert model.whole().equal(before)
    Q = torch.linalg.qr(torch.randn(6, 6)).Q
    assign_jointly(model.places(), Q.split([2, 1, 3]))
    assert torch.allclose(model.whole(), Q, atol=1e-6)
    train(model)
    assert is_orthogonal(model.whole())


def test_joint_assignment_goes_through_later_maps() -> None:
    model = attention()
    register_parametrization(model.k, "weight", Scaled(init=2.0))
    Q = torch.eye(6)
    assign_jointly(model.places(), [Q[:2], 2 * Q[2:3], Q[3:]])
    assert torch.allclose(model.whole(), torch.diag(torch.tensor([1.0, 1, 2, 1, 1, 1])), atol=1e-6)


def test_joint_assignment_is_all_or_nothing() -> None:
    model = attention()
    register_parametrization(model.v, "weight", torch.exp)
    before = model.whole().detach().clone()
    with pytest.raises(RuntimeError, match="does not implement right_inverse"):
        assign_jointly(model.places(), torch.split(torch.eye(6), [2, 1, 3]))
    assert model.whole().equal(before)
    with pytest.raises(RuntimeError, match="cannot assign to one part"):
        model.q.weight = torch.zeros(2, 6)


def test_joint_assignment_takes_all_parts_of_one_map_in_order() -> None:
    model, other = attention(), attention()
    values = torch.split(torch.eye(6), [2, 1, 3])
    with pytest.raises(ValueError, match="is not part 0 of 3"):
        assign_jointly(model.places()[::-1], values)
    with pytest.raises(ValueError, match="is not part 0 of 2"):
        assign_jointly(model.places()[:2], values[:2])
    with pytest.raises(ValueError, match="different joint maps"):
        assign_jointly([*model.places()[:2], other.places()[2]], values)
    with pytest.raises(ValueError, match="does not have a parametrization"):
        assign_jointly([(nn.Linear(1, 1), "weight")], [torch.ones(1, 1)])


def test_removing_from_one_leaves_the_others_with_their_values() -> None:
    model = attention()
    before = model.whole().detach().clone()
    remove_parametrizations(model.k, "weight")
    assert isinstance(model.k.weight, nn.Parameter)
    assert torch.allclose(model.whole(), before)
    remove_parametrizations(model.q, "weight")
    remove_parametrizations(model.v, "weight")
    assert torch.allclose(model.whole(), before)
    assert len(model.state_dict()) == 3


def test_a_weight_and_its_bias_have_one_norm() -> None:
    for dim in (None, 1):
        layer = nn.Linear(3, 4)
        joint(FrobeniusNorm(2.0), [(layer, "weight"), (layer, "bias")], dim=dim)
        total = layer.weight.square().sum() + layer.bias.square().sum()
        assert total.item() == pytest.approx(4.0, abs=1e-5)


def test_a_map_with_a_state_follows_training_in_each_part() -> None:
    model = Attention()
    joint(SpectralNorm(n_power_iterations=20), model.places())
    for _ in range(3):
        train(model, steps=1)
        value = model.whole()
        assert torch.linalg.matrix_norm(value, 2).item() == pytest.approx(1.0, abs=1e-3)
        assert model.whole().equal(value)


def test_parameters_of_the_map_are_shared() -> None:
    model = Attention()
    joint(Scaled(init=2.0), model.places())
    assert len(list(model.parameters())) == 4
    before = model.whole().detach().clone()
    (scale,) = [x for x in model.parameters() if x.ndim == 0]
    with torch.no_grad():
        scale.mul_(2.0)
    assert torch.allclose(model.whole(), 2 * before)


def test_what_does_not_fit_leaves_every_module_as_it_was() -> None:
    model = Attention()
    before = {name: (X, X.detach().clone()) for name, X in model.named_parameters()}
    for parametrization, places in (
        (Symmetric(), model.places()[:2]),  # not square
        (LowRank(1), model.places()),
        (TorchOrthogonal("cayley"), model.places()[:1]),
        (TorchOrthogonal("cayley"), [*model.places(), model.places()[0]]),
        (TorchOrthogonal("cayley"), [*model.places(), (nn.Linear(5, 2), "weight")]),
    ):
        with pytest.raises((ValueError, RuntimeError)):
            joint(parametrization, places)
        assert {name: id(X) for name, X in model.named_parameters()} == {
            name: id(X) for name, (X, _) in before.items()
        }
        assert all(X.equal(value) for X, value in before.values())


def test_parametrized_tensors_are_refused() -> None:
    model = Attention()
    register_parametrization(model.k, "weight", torch.tanh)
    with pytest.raises(ValueError, match="no plain Parameter 'weight'"):
        joint(TorchOrthogonal("cayley"), model.places())
    with pytest.raises(ValueError, match="no plain Parameter 'kernel'"):
        tie((model.q, "kernel"), to=(model.v, "weight"))


def test_a_part_tells_what_it_is() -> None:
    assert repr(JointPart(Symmetric(), 1)).startswith("JointPart(\n  part 1, dim=0")


def test_a_tied_weight_is_the_transpose_and_trains_the_one_parameter() -> None:
    encoder, decoder = nn.Linear(5, 2), nn.Linear(2, 5)
    parameter = encoder.weight
    tie((decoder, "weight"), to=(encoder, "weight"))
    model = nn.Sequential(encoder, decoder)
    assert encoder.weight is parameter
    assert len(list(model.parameters())) == 3
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.randn(3, 5)).square().sum().backward()
    optimizer.step()
    assert decoder.weight.equal(encoder.weight.T)
    decoder.weight = torch.ones(5, 2)
    assert encoder.weight.equal(torch.ones(2, 5))
    twin = pickle.loads(pickle.dumps(model))
    with torch.no_grad():
        twin[0].weight.fill_(2.0)
    assert twin[1].weight.equal(torch.full((5, 2), 2.0))
    assert decoder.weight.equal(torch.ones(5, 2))


def test_a_tie_that_does_not_fit_is_refused() -> None:
    encoder, decoder = nn.Linear(5, 2), nn.Linear(3, 5)
    with pytest.raises(ValueError, match=r"is \[5, 3\], torch.float32, and the map makes \[5, 2\]"):
        tie((decoder, "weight"), to=(encoder, "weight"))
    assert isinstance(decoder.weight, nn.Parameter)


@pytest.mark.parametrize("leave_parametrized", [True, False])
def test_removing_a_tie_leaves_the_tensor_that_it_followed(leave_parametrized: bool) -> None:
    encoder, decoder = nn.Linear(3, 3), nn.Linear(3, 3)
    before = encoder.weight.detach().clone()
    tie((decoder, "weight"), to=(encoder, "weight"))
    value = decoder.weight.detach().clone()
    remove_parametrizations(decoder, "weight", leave_parametrized)
    assert encoder.weight.equal(before)
    assert decoder.weight is not encoder.weight
    assert decoder.weight.equal(value if leave_parametrized else before)
