"""Wrong uses, each beside its right neighbor, with what mypy says. Never run."""

import torch
from torch import Tensor, nn

from paramdesc import (
    InvertibleParametrizationProto,
    Parametrization,
    ParametrizationProto,
    adopt,
    auto_cache,
    bake,
    cached,
    disabled,
    get_parametrizations,
    is_parametrized,
    parametrize,
    parametrized,
    register_parametrization,
    remove_parametrizations,
    summary,
    transfer_parametrizations_and_params,
)
from paramdesc.parametrizations import SpectralNorm, Symmetric

linear = nn.Linear(3, 3)

# maps


class WithoutForward:
    def right_inverse(self, X: Tensor) -> Tensor:
        return X


class WithForward(WithoutForward):
    def forward(self, X: Tensor) -> Tensor:
        return X


class ForwardToFloat:
    def forward(self, X: Tensor) -> float:
        return X.sum().item()


class OneWay:
    def forward(self, X: Tensor) -> Tensor:
        return X


def length(X: Tensor) -> int:
    return len(X)


def double(X: Tensor) -> Tensor:
    return X * 2


register_parametrization(linear, "weight", WithForward())
register_parametrization(linear, "weight", WithoutForward())
# E: Argument 3 to "register_parametrization" has incompatible type "WithoutForward"; expected "ParametrizationProto | Callable[..., Tensor]"  [arg-type]
register_parametrization(linear, "weight", ForwardToFloat())
# E: Argument 3 to "register_parametrization" has incompatible type "ForwardToFloat"; expected "ParametrizationProto | Callable[..., Tensor]"  [arg-type]
# N: Following member(s) of "ForwardToFloat" have conflicts:
# N:     Expected:
# N:         def (*Any, **Any) -> Tensor
# N:     Got:
# N:         def forward(self, X: Tensor) -> float
register_parametrization(linear, "weight", Symmetric())
register_parametrization(linear, "weight", Symmetric)
# E: Argument 3 to "register_parametrization" has incompatible type "type[Symmetric]"; expected "ParametrizationProto | Callable[..., Tensor]"  [arg-type]
register_parametrization(linear, "weight", "symmetric")
# E: Argument 3 to "register_parametrization" has incompatible type "str"; expected "ParametrizationProto | Callable[..., Tensor]"  [arg-type]
register_parametrization(linear, "weight", torch.ones(3, 3))
# E: Argument 3 to "register_parametrization" has incompatible type "Tensor"; expected "ParametrizationProto | Callable[..., Tensor]"  [arg-type]
register_parametrization(linear, "weight", None)
# E: Argument 3 to "register_parametrization" has incompatible type "None"; expected "ParametrizationProto | Callable[..., Tensor]"  [arg-type]
register_parametrization(linear, "weight", double)
register_parametrization(linear, "weight", length)
# E: Argument 3 to "register_parametrization" has incompatible type "Callable[[Tensor], int]"; expected "ParametrizationProto | Callable[..., Tensor]"  [arg-type]
register_parametrization(linear, "weight", double(linear.weight))
# E: Argument 3 to "register_parametrization" has incompatible type "Tensor"; expected "ParametrizationProto | Callable[..., Tensor]"  [arg-type]

protocol: ParametrizationProto = WithForward()
protocol = WithoutForward()
# E: Incompatible types in assignment (expression has type "WithoutForward", variable has type "ParametrizationProto")  [assignment]
inverse: InvertibleParametrizationProto = WithForward()
inverse = OneWay()
# E: Incompatible types in assignment (expression has type "OneWay", variable has type "InvertibleParametrizationProto")  [assignment]
# N: "OneWay" is missing following "InvertibleParametrizationProto" protocol member:
# N:     right_inverse
Symmetric(strict=True)
Symmetric(True)
# E: Too many positional arguments for "Symmetric"  [call-arg]
# N: "Symmetric" defined in "paramdesc.chain.parametrization"
SpectralNorm("1.0")
# E: Argument 1 to "SpectralNorm" has incompatible type "str"; expected "float"  [arg-type]


class Warm(Parametrization):
    warm_start = ("state",)


class Warmer(Parametrization):
    warm_start = "state"
    # E: Incompatible types in assignment (expression has type "str", base class "Parametrization" defined the type as "tuple[str, ...]")  [assignment]


# registration

register_parametrization(linear, 0, Symmetric())
# E: Argument 2 to "register_parametrization" has incompatible type "int"; expected "str"  [arg-type]
register_parametrization(linear, None, Symmetric())
# E: Argument 2 to "register_parametrization" has incompatible type "None"; expected "str"  [arg-type]
register_parametrization("linear", "weight", Symmetric())
# E: Value of type variable "M" of "register_parametrization" cannot be "str"  [type-var]
register_parametrization(nn.Linear, "weight", Symmetric())
# E: Value of type variable "M" of "register_parametrization" cannot be "type[Linear]"  [type-var]
register_parametrization(linear, "weight")
# E: Missing positional argument "parametrization" in call to "register_parametrization"  [call-arg]
register_parametrization(linear, "weight", Symmetric(), unsafe=True)
register_parametrization(linear, "weight", Symmetric(), True)
# E: Too many positional arguments for "register_parametrization"  [call-arg]
# N: "register_parametrization" defined in "paramdesc.registration.register"
register_parametrization(linear, "weight", double, right_inverse=double)
register_parametrization(linear, "weight", double, right_inverse=2)
# E: Argument "right_inverse" to "register_parametrization" has incompatible type "int"; expected "Callable[[Tensor], Any] | None"  [arg-type]
conv: nn.Conv1d = register_parametrization(linear, "weight", Symmetric())
# E: Incompatible types in assignment (expression has type "Linear", variable has type "Conv1d")  [assignment]
plain: nn.Conv1d = remove_parametrizations(linear, "weight")
# E: Incompatible types in assignment (expression has type "Linear", variable has type "Conv1d")  [assignment]
remove_parametrizations(linear)
# E: Missing positional argument "tensor_name" in call to "remove_parametrizations"  [call-arg]
remove_parametrizations(linear, "weight", "leave_parametrized")
# E: Argument 3 to "remove_parametrizations" has incompatible type "str"; expected "bool"  [arg-type]
transfer_parametrizations_and_params(linear, "linear")
# E: Value of type variable "M" of "transfer_parametrizations_and_params" cannot be "str"  [type-var]
is_parametrized("linear")
# E: Argument 1 to "is_parametrized" has incompatible type "str"; expected Module  [arg-type]
is_parametrized(linear, 0)
# E: Argument 2 to "is_parametrized" has incompatible type "int"; expected "str | None"  [arg-type]
adopt(0)
# E: Value of type variable "M" of "adopt" cannot be "int"  [type-var]

# decorators


@parametrized("weight", Symmetric())
class Right(nn.Linear):
    pass


@parametrized("weight", Symmetric())
class NoModule:
    # E: Value of type variable "M" of "__call__" of "Decorator" cannot be "NoModule"  [type-var]
    pass


@parametrized("weight", WithoutForward())
# E: Argument 2 to "parametrized" has incompatible type "WithoutForward"; expected "ParametrizationProto | Callable[..., Tensor]"  [arg-type]
class NoMap(nn.Linear):
    pass


@parametrized("weight")
# E: Missing positional argument "parametrization" in call to "parametrized"  [call-arg]
class MapForgotten(nn.Linear):
    pass


@parametrized
# E: Argument 1 to "parametrized" has incompatible type "type[ArgumentsForgotten]"; expected "str"  [arg-type]
class ArgumentsForgotten(nn.Linear):
    # E: Too few arguments for "parametrized"  [call-arg]
    pass


@parametrized("weight", Symmetric())
def make(size: int) -> nn.Linear:
    return nn.Linear(size, size)


@parametrized("weight", Symmetric())
# E: Value of type variable "M" of "__call__" of "Decorator" cannot be "int"  [type-var]
def count(size: int) -> int:
    return size


@parametrized("weight", Symmetric())
# E: Value of type variable "M" of "__call__" of "Decorator" cannot be "None"  [type-var]
def nothing(size: int) -> None:
    pass


parametrized(0, Symmetric())
# E: Argument 1 to "parametrized" has incompatible type "int"; expected "str"  [arg-type]
parametrized("weight", Symmetric(), unsafe="yes")
# E: Argument "unsafe" to "parametrized" has incompatible type "str"; expected "bool"  [arg-type]
parametrized("weight", Symmetric())(linear)
parametrized("weight", Symmetric())(3)
# E: No overload variant of "__call__" of "Decorator" matches argument type "int"  [call-overload]
# N: Possible overload variants:
# N:     def [M: Module] __call__(self, type[M], /) -> type[M]
# N:     def [M: Module] __call__(self, M, /) -> M
# N:     def [_P, M: Module] __call__(self, Callable[_P, M], /) -> Callable[_P, M]
Right(3, 3)
Right("3", 3)
# E: Argument 1 to "Right" has incompatible type "str"; expected "int"  [arg-type]
Right(3, 3).weight.no_such_thing
# E: "Tensor" has no attribute "no_such_thing"  [attr-defined]
make(3)
make("3")
# E: Argument 1 to "make" has incompatible type "str"; expected "int"  [arg-type]
make(3).in_features = "3"
# E: Incompatible types in assignment (expression has type "str", variable has type "int")  [assignment]

# scopes

cached(linear, [linear], get_parametrizations(linear))
cached(3)
# E: Argument 1 to "cached" has incompatible type "int"; expected "Target"  [arg-type]
cached(linear, 3)
# E: Argument 2 to "cached" has incompatible type "int"; expected "Target"  [arg-type]
cached([3])
# E: List item 0 has incompatible type "int"; expected Module | Iterable[Target]  [list-item]
cached(None)
# E: Argument 1 to "cached" has incompatible type "None"; expected "Target"  [arg-type]


@cached()
def step(inputs: Tensor) -> Tensor:
    return inputs


@cached
# E: Argument 1 to "cached" has incompatible type "Callable[[Tensor], Tensor]"; expected "Target"  [arg-type]
def parentheses_forgotten(inputs: Tensor) -> Tensor:
    return inputs


step("inputs")
# E: Argument 1 to "step" has incompatible type "str"; expected "Tensor"  [arg-type]
with cached(linear) as scope:
    scope.hits = 1
    # E: Property "hits" defined in "Scope" is read-only  [misc]
    scope.hit
    # E: "Scope" has no attribute "hit"; maybe "hits"?  [attr-defined]
    linear in scope
cached(linear, persistent="yes")
# E: Argument "persistent" to "cached" has incompatible type "str"; expected "bool"  [arg-type]
auto_cache("model")
# E: Argument 1 to "auto_cache" has incompatible type "str"; expected Module  [arg-type]

# selectors

summary(linear, "weight", exclude="bias")
summary(linear, 3)
# E: Argument 2 to "summary" has incompatible type "int"; expected "Selector"  [arg-type]
summary(linear, ["weight"])
# E: Argument 2 to "summary" has incompatible type "list[str]"; expected "Selector"  [arg-type]
summary(linear, exclude=3)
# E: Argument "exclude" to "summary" has incompatible type "int"; expected "Selector | Iterable[Selector]"  [arg-type]
bake(linear, exclude=[3])
# E: List item 0 has incompatible type "int"; expected "str | type[Module] | Module | tuple[Selector, ...]"  [list-item]
disabled(linear, exclude=None)
# E: Argument "exclude" to "disabled" has incompatible type "None"; expected "Selector | Iterable[Selector]"  [arg-type]
disabled(linear, maps=Symmetric())
# E: Argument "maps" to "disabled" has incompatible type "Symmetric"; expected "type[Module] | tuple[type[Module], ...]"  [arg-type]
disabled(linear, maps="Symmetric")
# E: Argument "maps" to "disabled" has incompatible type "str"; expected "type[Module] | tuple[type[Module], ...]"  [arg-type]
parametrize(linear, Symmetric)
# E: Argument 2 to "parametrize" has incompatible type "type[Symmetric]"; expected "Mapping[Any, type[Module] | Module | Callable[..., Any]]"  [arg-type]
summary([linear])
# E: Argument 1 to "summary" has incompatible type "list[Linear]"; expected Module  [arg-type]

# sets

found = get_parametrizations(linear)
get_parametrizations([linear])
# E: Argument 1 to "get_parametrizations" has incompatible type "list[Linear]"; expected Module  [arg-type]
get_parametrizations("linear")
# E: Argument 1 to "get_parametrizations" has incompatible type "str"; expected Module  [arg-type]
found.filter(tensor_name="weight")
found.filter("weight")
# E: Too many positional arguments for "filter" of "ParametrizationSet"  [call-arg]
# N: "filter" defined in "paramdesc.registration.collection"
found.filter(map_type="Symmetric")
# E: Argument "map_type" to "filter" of "ParametrizationSet" has incompatible type "str"; expected "type[Module] | tuple[type[Module], ...] | None"  [arg-type]
found.filter(path=0)
# E: Argument "path" to "filter" of "ParametrizationSet" has incompatible type "int"; expected "str | None"  [arg-type]
found.add(linear)
# E: "ParametrizationSet" has no attribute "add"  [attr-defined]
found[0]
# E: Invalid index type "int" for "ParametrizationSet"; expected type "str"  [index]
found | 3
# E: Unsupported operand types for | ("ParametrizationSet" and "int")  [operator]
linear in found
# E: Non-overlapping container check (element type: "Linear", container item type: "ParametrizationList")  [comparison-overlap]
