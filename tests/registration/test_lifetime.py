"""Everything is freed when its last user goes, without the garbage collector."""

from __future__ import annotations

import copy
import pickle
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paramdesc import (
    cached,
    get_parametrizations,
    parametrized,
    register_parametrization,
    remove_parametrizations,
    transfer_parametrizations_and_params,
)
from paramdesc.parametrizations import SpectralNorm, Symmetric
from tests.helpers import Double, Shift, Sum, chain_of, linear, train_step
from tests.registration.models import nested

pytestmark = pytest.mark.usefixtures("no_collector")

INPUTS = torch.linspace(-1, 1, 6).view(2, 3)


@parametrized("weight", Double())
class Decorated(nn.Linear):
    pass


def failed() -> nn.Linear:
    layer = linear()
    with pytest.raises(ValueError, match="shape"):
        register_parametrization(layer, "weight", lambda X: X[0])
    return layer


def materialized() -> nn.Module:
    layer = register_parametrization(nn.LazyLinear(3), "weight", Double())
    layer(INPUTS)
    return layer


MODELS: dict[str, Callable[[], Any]] = {
    "one original": linear,
    "chain and nested": nested,
    "symmetric": lambda: linear(Symmetric()),
    "spectral norm": lambda: linear(SpectralNorm()),
    "decorated": lambda: Decorated(3, 3),
    "deep-copied": lambda: copy.deepcopy(linear()),
    "unpickled": lambda: pickle.loads(pickle.dumps(linear())),
    "removed": lambda: remove_parametrizations(linear(), "weight"),
    "transferred": lambda: transfer_parametrizations_and_params(linear(), nn.Linear(3, 3)),
    "model": lambda: nn.Sequential(linear(), nn.ReLU(), nested()),
    "failed registration": failed,
    "materialized": materialized,
}


def use_nothing(module: Any) -> None:
    pass


def use_forward(module: Any) -> None:
    module(INPUTS)


def use_backward(module: Any) -> None:
    module(INPUTS).sum().backward()


def use_in_scope(module: Any) -> None:
    with cached():
        module(INPUTS)
        module(INPUTS).sum().backward()
        module(INPUTS)


def use_with_error(module: Any) -> None:
    @cached()
    def fail() -> None:
        module(INPUTS)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def use_with_shape_error(module: Any) -> None:
    with pytest.raises(RuntimeError), cached():
        module(torch.ones(2, 7))


def use_copies(module: Any) -> None:
    copy.copy(module)
    copy.deepcopy(module)
    get_parametrizations(module)
    repr(module)


USES = [
    use_nothing,
    use_forward,
    use_backward,
    use_in_scope,
    use_with_error,
    use_with_shape_error,
    use_copies,
]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", MODELS)
def test_deleted_module_is_freed_at_once(name: str, use: Callable[[Any], None]) -> None:
    module = MODELS[name]()
    use(module)
    watched = [weakref.ref(found) for found in module.modules()]
    watched += [weakref.ref(tensor) for tensor in module.parameters()]
    del module
    assert not any(ref() is not None for ref in watched)


@pytest.mark.parametrize("with_gradient", [False, True])
@pytest.mark.parametrize("make_map", [Double, Shift, Sum, Symmetric, SpectralNorm])
def test_value_is_freed_with_its_scope(make_map: type[nn.Module], with_gradient: bool) -> None:
    layer = linear(make_map())
    with torch.set_grad_enabled(with_gradient), cached() as scope:
        value = weakref.ref(layer.weight)
        assert value() is not None
        assert len(scope) == 1
    assert value() is None


def test_value_is_freed_when_an_exception_leaves_the_scope() -> None:
    layer = linear()
    values: list[weakref.ref[Tensor]] = []

    @cached()
    def fail() -> None:
        values.append(weakref.ref(layer.weight))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert values[0]() is None


def test_value_is_freed_after_backward_and_with_hooks_of_the_user() -> None:
    layer = linear()
    seen: list[Tensor] = []
    with cached():
        weight = layer.weight
        weight.register_hook(seen.append)  # type: ignore[no-untyped-call]
        value = weakref.ref(weight)
        torch.autograd.backward((INPUTS @ weight.T).sum())
        del weight
    assert len(seen) == 1
    assert value() is None


def test_value_of_an_inner_scope_is_freed_with_the_outer_one_that_owns_it() -> None:
    layer = linear()
    with cached():
        with cached():
            value = weakref.ref(layer.weight)
        assert value() is layer.weight
    assert value() is None


def test_outdated_value_is_freed_in_the_scope() -> None:
    layer = linear()
    with cached():
        value = weakref.ref(layer.weight)
        train_step(layer)
        assert layer.weight is not None
        assert value() is None


def test_map_that_raises_leaves_nothing_behind() -> None:
    class Refuses(nn.Module):
        def forward(self, X: Tensor) -> Tensor:
            raise ZeroDivisionError

    layer = register_parametrization(nn.Linear(3, 3), "weight", Refuses(), unsafe=True)
    with cached() as scope:
        with pytest.raises(ZeroDivisionError):
            layer(INPUTS)
        assert len(scope) == 0
    watched = weakref.ref(layer), weakref.ref(chain_of(layer))
    del layer
    assert [ref() for ref in watched] == [None, None]


def test_scope_holds_no_module_after_its_end() -> None:
    layer = linear()
    scope = cached(layer)
    with scope:
        layer(INPUTS)
    watched = weakref.ref(layer)
    del layer, scope
    assert watched() is None


def test_removed_chain_is_freed() -> None:
    layer = linear(Shift())
    layer(INPUTS).sum().backward()
    chain = weakref.ref(chain_of(layer))
    remove_parametrizations(layer, "weight")
    assert chain() is None


def blocks_left_by(cycle: Callable[[], object], count: int) -> int:
    """How many more blocks of memory Python holds after `count` cycles, after a warm-up."""
    for _ in range(3_000):
        cycle()
    before = sys.getallocatedblocks()
    for _ in range(count):
        cycle()
    return sys.getallocatedblocks() - before


def test_ten_thousand_cycles_leave_memory_and_class_as_they_were() -> None:
    layer = nn.Linear(3, 3)
    names, classes = vars(layer).keys() - set(), len(nn.Linear.__subclasses__())

    def cycle() -> None:
        register_parametrization(layer, "weight", Double())
        remove_parametrizations(layer, "weight")

    assert blocks_left_by(cycle, 10_000) < 100
    assert type(layer) is nn.Linear
    assert len(nn.Linear.__subclasses__()) == classes
    assert vars(layer).keys() == names
    assert type(layer._buffers) is dict


def test_ten_thousand_scopes_leave_memory_as_it_was() -> None:
    layer = linear()

    def cycle() -> None:
        with cached():
            layer(INPUTS).sum().backward()

    assert blocks_left_by(cycle, 10_000) < 100
