"""A shortcut past the call of a chain or a map is taken only where it gives the same."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

import paramdesc as P
import paramdesc.parametrizations as M
from paramdesc.chain.evaluation import evaluate
from paramdesc.registration.parametrization_list import ParametrizationList
from tests.helpers import Double, chain_of, linear


def tripled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(function)
    def call(*args: Any) -> Tensor:
        return 3 * function(*args)

    return call


def set_forward(module: Any) -> None:
    module.forward = tripled(module.forward)


def set_call_impl(module: Any) -> None:
    module._call_impl = tripled(module._call_impl)


def set_compiled(module: Any) -> None:
    module._compiled_call_impl = tripled(module._call_impl)


def add_hook(module: Any) -> None:
    module.register_forward_hook(lambda module, args, output: 3 * output)


def add_last_hook(module: Any) -> None:
    module.register_forward_hook(lambda module, args, output: 3 * output, always_call=True)


def derive(**members: Any) -> Callable[[Any], None]:
    def change(module: Any) -> None:
        module.__class__ = type("Derived", (type(module),), members)

    return change


CHANGES: dict[str, Callable[[Any], None]] = {
    "forward of the instance": set_forward,
    "_call_impl of the instance": set_call_impl,
    "compiled": set_compiled,
    "forward hook": add_hook,
    "forward hook that is always called": add_last_hook,
    "forward of a subclass": derive(
        forward=lambda self, *args: 3 * super(type(self), self).forward(*args)
    ),
    "__call__ of a subclass": derive(
        __call__=lambda self, *args: 3 * super(type(self), self).__call__(*args)
    ),
    "_call_impl of a subclass": derive(
        _call_impl=lambda self, *args: 3 * super(type(self), self)._call_impl(*args)
    ),
}


def read(layer: nn.Module) -> Tensor:
    value: Tensor = layer.weight  # type: ignore[assignment]
    return value


def read_in_scope(layer: nn.Module) -> Tensor:
    with P.cached(layer):
        return read(layer)


def read_compiled(layer: nn.Module) -> Tensor:
    torch.compiler.reset()
    result: Tensor = torch.compile(lambda: read(layer) + 0, backend="eager")()
    return result


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("part", ["chain", "map"])
@pytest.mark.parametrize("read", [read, read_in_scope, read_compiled])
def test_what_a_call_would_do_is_done(
    read: Callable[[nn.Module], Tensor], part: str, change: Callable[[Any], None]
) -> None:
    if change is set_compiled and read is read_compiled:
        pytest.skip("torch.compile traces the forward of modules that are compiled themselves")
    layer = linear()
    chain = chain_of(layer)
    change(chain if part == "chain" else chain[0])
    torch.testing.assert_close(read(layer), 6 * chain.original)


def test_a_call_on_the_instance_is_ignored_as_python_does() -> None:
    layer = linear()
    chain_of(layer).__call__ = chain_of(layer)[0].__call__ = None
    torch.testing.assert_close(layer.weight, 2 * chain_of(layer).original)


@pytest.mark.parametrize(
    "register", ["register_full_backward_hook", "register_full_backward_pre_hook"]
)
def test_backward_hooks_are_called(register: str) -> None:
    layer, seen = linear(), []
    getattr(chain_of(layer)[0], register)(lambda *args: seen.append(args))
    torch.autograd.backward(layer.weight.sum())
    assert len(seen) == 1


def test_a_hook_that_is_always_called_sees_a_failure() -> None:
    layer, seen = linear(), []
    chain_of(layer)[0].forward = lambda X: X.no_such_attribute
    chain_of(layer)[0].register_forward_hook(lambda *args: seen.append(args), always_call=True)
    with pytest.raises(AttributeError, match="no_such_attribute"):
        _ = layer.weight
    assert len(seen) == 1


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_a_scripted_map_is_called() -> None:
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", torch.jit.script(Double()))
    torch.testing.assert_close(layer.weight, 2 * chain_of(layer).original)


def test_a_map_that_was_compiled_is_called_compiled() -> None:
    compiled: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    layer = linear()
    chain_of(layer)[0].compile(backend=backend)
    assert compiled == []
    torch.testing.assert_close(layer.weight, 2 * chain_of(layer).original)
    assert len(compiled) == 1


def test_the_shortcut_is_taken_where_nothing_was_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sharded(ParametrizationList):
        """A class that adds nothing to the call, as fully_shard makes."""

    layer = linear()
    chain_of(layer).__class__ = Sharded
    monkeypatch.setattr(
        ParametrizationList, "__call__", lambda self: pytest.fail("called"), raising=False
    )
    assert Sharded.is_applied_plainly
    assert issubclass(FSDPModule, object)
    torch.testing.assert_close(evaluate(chain_of(layer)), 2 * chain_of(layer).original)


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm", "orthogonal", "symmetric"])
@pytest.mark.parametrize("to_disk", [False, True])
def test_offloaded_models_give_the_same_outputs(name: str, to_disk: bool, tmp_path: Any) -> None:
    model = nn.Sequential(getattr(M, name)(nn.Linear(4, 4)), nn.Linear(4, 4)).eval()
    x = torch.randn(2, 4)
    with torch.no_grad():
        before = model(x)
        if to_disk:
            disk_offload(
                model, tmp_path, execution_device=torch.device("cpu"), offload_buffers=True
            )
        else:
            cpu_offload(model, execution_device=torch.device("cpu"), offload_buffers=True)
        for _ in range(2):
            torch.testing.assert_close(model(x), before)
    assert all(x.is_meta for x in model.parameters()), "it is offloaded"
