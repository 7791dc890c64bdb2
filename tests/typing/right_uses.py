"""Right uses, with the types that mypy finds. Read by mypy and run by `test_typing.py`."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from typing_extensions import assert_type, reveal_type

import paramdesc
from paramdesc import (
    Baked,
    CacheRow,
    Cause,
    InvertibleParametrizationProto,
    Parametrization,
    ParametrizationList,
    ParametrizationProto,
    ParametrizationSet,
    ParametrizeResult,
    Scope,
    Summary,
    adopt,
    auto_cache,
    bake,
    cached,
    chain_of,
    disabled,
    get_parametrizations,
    is_parametrized,
    parametrize,
    parametrized,
    plain_state_dict,
    plain_tensors,
    register_parametrization,
    remove_parametrizations,
    summary,
    transfer_parametrizations_and_params,
    type_before_parametrizations,
)
from paramdesc.linalg import largest_singular_triple
from paramdesc.parametrizations import (
    SpectralNorm,
    Symmetric,
    adapter_state_dict,
    load_adapters,
    lora,
    low_rank,
    merge_lora,
    orthogonal,
    spectral_norm,
    unmerge_lora,
    weight_norm,
)
from paramdesc.testing import Report, check_parametrization

# maps: modules, the base class, anything with a forward, functions


class Double(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return X * 2


class Product(Parametrization):
    def forward(self, X: Tensor, Y: Tensor) -> Tensor:
        return X * Y

    def right_inverse(self, Z: Tensor) -> tuple[Tensor, Tensor]:
        return Z, torch.ones_like(Z)


class Half:
    """A map that is no module."""

    def forward(self, X: Tensor) -> Tensor:
        return X / 2

    def right_inverse(self, Y: Tensor) -> Tensor:
        return Y * 2


def negative(X: Tensor) -> Tensor:
    return -X


every_map: list[ParametrizationProto] = [Double(), Product(), Half(), Symmetric(), SpectralNorm()]
invertible: list[InvertibleParametrizationProto] = [Product(), Half(), Symmetric(), SpectralNorm()]

# the registered module keeps its type

linear = nn.Linear(3, 3)
assert_type(register_parametrization(linear, "weight", Double()), nn.Linear)
assert_type(register_parametrization(linear, "weight", Half(), unsafe=True), nn.Linear)
assert_type(register_parametrization(linear, "bias", negative, right_inverse=negative), nn.Linear)
assert_type(register_parametrization(nn.Linear(3, 3), "weight", Product()), nn.Linear)
assert_type(register_parametrization(nn.Linear(3, 3), "bias", torch.exp, unsafe=True), nn.Linear)
assert_type(register_parametrization(nn.Linear(3, 3), "bias", lambda X: X + 1), nn.Linear)
assert_type(remove_parametrizations(linear, "bias", leave_parametrized=False), nn.Linear)
assert_type(transfer_parametrizations_and_params(linear, nn.Bilinear(3, 1, 3)), nn.Bilinear)
assert_type(adopt(nn.Sequential(linear)), nn.Sequential)
assert_type(linear.weight, Tensor)
assert_type(is_parametrized(linear, "weight"), bool)
assert_type(type_before_parametrizations(linear), type[nn.Module])

# the decorated class, factory, method and module keep theirs


@parametrized("weight", SpectralNorm(bound=0.9))
@parametrized("weight", Symmetric())
class SymmetricLinear(nn.Linear):
    def largest(self) -> Tensor:
        return self.weight.max()


class Narrower(SymmetricLinear):
    pass


@parametrized("weight", Symmetric())
def make_square(size: int, *, bias: bool = True) -> nn.Linear:
    return nn.Linear(size, size, bias)


class Maker:
    @parametrized("weight", Symmetric())
    def make(self, size: int) -> nn.Linear:
        return nn.Linear(size, size)


reveal_type(SymmetricLinear)
# N: Revealed type is "def (in_features: int, out_features: int, bias: bool =, device: Any =, dtype: Any =) -> right_uses.SymmetricLinear"
reveal_type(make_square)
# N: Revealed type is "def (size: int, *, bias: bool =) -> torch.nn.modules.linear.Linear"
reveal_type(Maker().make)
# N: Revealed type is "def (size: int) -> torch.nn.modules.linear.Linear"
assert_type(SymmetricLinear(3, 3), SymmetricLinear)
assert_type(SymmetricLinear(3, 3).largest(), Tensor)
assert_type(Narrower(3, 3), Narrower)
assert_type(make_square(3, bias=False), nn.Linear)
assert_type(parametrized("weight", Half())(nn.Conv1d(3, 3, 1)), nn.Conv1d)

# sets and their lists

found = get_parametrizations(SymmetricLinear(3, 3), linear)
assert_type(found, ParametrizationSet)
assert_type(found | found, ParametrizationSet)
assert_type(found & found, ParametrizationSet)
assert_type(found - found, ParametrizationSet)
assert_type(found ^ found, ParametrizationSet)
assert_type(found.filter(tensor_name="weight", map_type=Symmetric, path="*"), ParametrizationSet)
assert_type(found.filter(map_type=(Symmetric, SpectralNorm)), ParametrizationSet)
assert_type(found.names(), list[str])
assert_type(found.warm_start_names(), list[str])
assert_type(list(found), list[ParametrizationList])
assert_type(len(found), int)
assert_type(next(iter(found)) in found, bool)
for name, chain in found.items():
    assert_type(name, str)
    assert_type(chain.tensor_name, str)
    assert_type(chain.originals(), tuple[Tensor, ...])
    assert_type(list(chain.maps()), list[nn.Module])
    assert_type(chain.forward(), Tensor)

# the chain of one tensor

chain = chain_of(SymmetricLinear(3, 3), "weight")
assert_type(chain, ParametrizationList)
assert_type(chain.original, Tensor)
assert_type(chain.original.grad, Tensor | None)
assert_type(chain.originals(), tuple[Tensor, ...])
assert_type(list(chain.maps()), list[nn.Module])
assert_type(chain[0], nn.Module)
assert_type(chain[:1], nn.ModuleList)
assert_type(chain.right_inverse(torch.eye(3)), None)
assert_type(found["weight"], ParametrizationList)

# selectors: one, or several in a tuple; exclude= takes also a list or another iterable

model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
assert_type(parametrize(model, {nn.Linear: Symmetric}, exclude="1.*"), ParametrizeResult)
assert_type(parametrize(model, {("1.*", nn.Conv2d): Symmetric}, exclude="bias"), ParametrizeResult)
assert_type(summary(model, "0.*", (nn.Linear, model[0]), exclude=nn.Linear), Summary)
assert_type(summary(model, exclude=["0.*", nn.Linear, (model[1], "bias")]), Summary)
assert_type(bake(model, nn.Linear, exclude=model[1], copy=True), Baked[nn.Sequential])
assert_type(plain_state_dict(model, exclude=("0.*", nn.Linear)), OrderedDict[str, Tensor])
assert_type(plain_tensors(model, exclude={"0.*"}), Iterator[tuple[str, Tensor]])
with disabled(model, ("0.*", "1.*"), exclude="1.weight", maps=(Symmetric, SpectralNorm)):
    assert_type(len(model), int)

# scopes

with cached() as scope:
    assert_type(scope, Scope)
with cached(linear, found, list(found), *found, [linear, [found]]) as scope:
    assert_type(scope, Scope)
    assert_type(linear.weight, Tensor)
    assert_type(scope.hits, int)
    assert_type(scope.misses, int)
    assert_type(len(scope), int)
    assert_type(next(iter(found)) in scope, bool)
with cached(linear, persistent=True, deferred=True) as scope:
    assert_type(linear.weight, Tensor)
    scope.backward(retain_graph=True)
    served = scope.report()
assert_type(served["weight"], CacheRow)
assert_type(served[0].dropped, Cause | None)
assert_type([row.seconds for row in served], list[dict[str, float]])
assert_type(auto_cache(linear), Scope)
auto_cache(linear, enabled=False)


@cached(linear)
def apply_twice(inputs: Tensor, *, scale: float = 1.0) -> Tensor:
    return scale * torch.as_tensor(linear(linear(inputs)))


@cached(linear)
async def apply_later(inputs: Tensor) -> Tensor:
    return apply_twice(inputs)


class Loop:
    @paramdesc.cache()
    def run(self, steps: int) -> int:
        return steps


reveal_type(apply_twice)
# N: Revealed type is "def (inputs: torch._tensor.Tensor, *, scale: float =) -> torch._tensor.Tensor"
reveal_type(apply_later)
# N: Revealed type is "def (inputs: torch._tensor.Tensor) -> typing.Coroutine[Any, Any, torch._tensor.Tensor]"
reveal_type(Loop().run)
# N: Revealed type is "def (steps: int) -> int"
assert_type(asyncio.run(apply_later(torch.ones(3))), Tensor)

# what the base class asks for


class Rescaled(Parametrization):
    warm_start = ("factor",)
    factor: Tensor

    def guess(self, *originals: Tensor) -> tuple[Tensor, ...]:
        return (originals[0].abs().max(),)

    def forward(self, X: Tensor) -> Tensor:
        return X / self.factor


rescaled = Rescaled()
assert_type(Parametrization.warm_start, tuple[str, ...])
assert_type(rescaled.has_state(), bool)
assert_type(rescaled.guess(torch.ones(3)), tuple[Tensor, ...])
assert_type(rescaled.forward(torch.ones(3)) if rescaled.has_state() else None, Tensor | None)
functions: Sequence[Callable[[Tensor], Tensor]] = [Double().forward, Half().forward, negative]

# one-line functions keep the type of the module

assert_type(orthogonal(nn.Linear(2, 2)), nn.Linear)
assert_type(spectral_norm(nn.Conv2d(2, 2, 3), bound=2.0), nn.Conv2d)
assert_type(weight_norm(nn.Linear(2, 2), dim=None), nn.Linear)
assert_type(low_rank(nn.Conv1d(2, 2, 3), rank=1, flatten=0), nn.Conv1d)
assert_type(merge_lora(lora(nn.Linear(2, 2))), nn.Linear)

# checkpoints

assert_type(plain_state_dict(nn.Linear(2, 2), "weight"), OrderedDict[str, Tensor])
assert_type(plain_tensors(nn.Linear(2, 2)), Iterator[tuple[str, Tensor]])
adapters = adapter_state_dict(lora(nn.Linear(2, 2)))
assert_type(adapters, OrderedDict[str, Tensor])
assert_type(load_adapters(lora(nn.Linear(2, 2)), adapters), nn.Linear)
assert_type(unmerge_lora(nn.Linear(2, 2), adapters), nn.Linear)

# checks of a map, and the singular triple

report = check_parametrization(Symmetric(), torch.ones(2, 2), raises=False)
assert_type(report, Report)
assert_type([outcome.detail for outcome in report.failed], list[str])
assert_type(largest_singular_triple(torch.ones(2, 2)), tuple[Tensor, Tensor, Tensor])
