"""Where blocks of `disabled` hold: nests, threads, tasks, scopes, checkpoints, compiled code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import paramdesc as P
from paramdesc.caching.active import active_scopes
from paramdesc.errors import DisabledError, SelectionError
from paramdesc.parametrizations import Symmetric, WeightNorm
from tests.helpers import Double, Exp, chain_of, linear, torch_linear


def model() -> Any:
    return nn.Sequential(linear(Exp()), nn.Tanh(), linear(Exp()))


def is_off(layer: Any) -> bool:
    return bool(layer.weight is chain_of(layer).original)


def test_blocks_nest() -> None:
    net = model()
    with P.disabled(net, "0.*"):
        assert is_off(net[0])
        assert not is_off(net[2])
        with P.disabled(net, "2.*"):
            assert is_off(net[0])
            assert is_off(net[2])
            with P.disabled(net, values={"*weight": torch.eye(3)}):
                assert net[0].weight.equal(torch.eye(3))
                assert net[2].weight.equal(torch.eye(3))
        assert is_off(net[0])
        assert not is_off(net[2])
    assert not is_off(net[0])


def test_one_object_is_entered_twice() -> None:
    net = model()
    block = P.disabled(net)
    with block, block:
        assert is_off(net[0])
    with block:
        assert is_off(net[0])
    assert not is_off(net[0])


def test_other_threads_do_not_see_the_block() -> None:
    net = model()
    seen: dict[str, list[bool]] = {"inside": [], "outside": []}
    barrier = threading.Barrier(2, timeout=60)

    def inside() -> None:
        with P.disabled(net):
            barrier.wait()
            seen["inside"] += [is_off(net[0]), is_off(net[2])]
            barrier.wait()

    def outside() -> None:
        barrier.wait()
        seen["outside"] += [is_off(net[0]), is_off(net[2])]
        barrier.wait()

    threads = [threading.Thread(target=run) for run in (inside, outside)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == {"inside": [True] * 2, "outside": [False] * 2}


def test_tasks_see_the_blocks_that_they_were_started_in() -> None:
    net = model()

    async def switch(on: asyncio.Event, done: asyncio.Event) -> list[bool]:
        with P.disabled(net):
            on.set()
            await done.wait()
            child = asyncio.create_task(look())
            return [is_off(net[0]), await child]

    async def look() -> bool:
        return is_off(net[0])

    async def main() -> tuple[list[bool], bool]:
        on, done = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(switch(on, done))
        await on.wait()
        seen = await look()
        done.set()
        return await task, seen

    assert asyncio.run(main()) == ([True, True], False)


SCOPES: dict[str, Callable[[Any], AbstractContextManager[Any]]] = {
    "plain": P.cached,
    "persistent": lambda net: P.cached(net, persistent=True),
    "deferred": lambda net: P.cached(net, deferred=True),
    "batched": lambda net: P.cached(net, batched=True),
}


@pytest.mark.parametrize("kind", SCOPES)
@pytest.mark.parametrize("training", [True, False])
def test_inside_and_outside_of_scopes(kind: str, training: bool) -> None:
    net = model().train(training)
    grad = torch.enable_grad() if training else torch.no_grad()
    with grad:
        expected = net[0].weight.detach().clone()
        scope = SCOPES[kind](net)
        with scope:
            assert net[0].weight.equal(expected)
            with P.disabled(net):
                assert is_off(net[0])
                assert is_off(net[2])
            evaluations = Exp.evaluations
            assert net[0].weight.equal(expected)
            assert Exp.evaluations == evaluations  # what was kept before is still kept
        with P.disabled(net), SCOPES[kind](net):
            assert is_off(net[0])
        with SCOPES[kind](net):
            assert net[0].weight.equal(expected)
    assert active_scopes() == ()


@pytest.mark.parametrize("kind", SCOPES)
def test_gradients_reach_the_originals_directly(kind: str) -> None:
    net, x = model(), torch.randn(5, 3)
    with SCOPES[kind](net), P.disabled(net):
        net(x).sum().backward()
    found = [chain_of(net[i]).original.grad.clone() for i in (0, 2)]
    plain: Any = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    for i in (0, 2):
        with torch.no_grad():
            plain[i].weight.copy_(chain_of(net[i]).original)
            plain[i].bias.copy_(net[i].bias)
    plain(x).sum().backward()
    for i, grad in zip((0, 2), found, strict=True):
        torch.testing.assert_close(grad, plain[i].weight.grad)


def test_auto_cache() -> None:
    net, x = model().eval(), torch.randn(5, 3)
    P.auto_cache(net)
    with torch.no_grad():
        expected = net(x)
        with P.disabled(net):
            plain = nn.functional.linear(x, chain_of(net[0]).original, net[0].bias).tanh()
            torch.testing.assert_close(
                net(x), nn.functional.linear(plain, chain_of(net[2]).original, net[2].bias)
            )
        evaluations = Exp.evaluations
        assert net(x).equal(expected)
        assert Exp.evaluations == evaluations


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("where", ["around", "inside"])
@pytest.mark.parametrize("kind", ["none", "plain", "deferred"])
def test_checkpointed_regions(where: str, kind: str, reentrant: bool) -> None:
    net, x = model(), torch.randn(2, 3, requires_grad=True)

    def run(x: torch.Tensor) -> Any:
        with P.disabled(net, "0.*"):
            return net(x)

    net_or_run = net if where == "around" else run

    def loss(is_checkpointed: bool) -> Any:
        if not is_checkpointed:
            return net_or_run(x).square().sum()
        y = checkpoint(net_or_run, x, use_reentrant=reentrant)
        return y.square().sum()

    def gradients(is_checkpointed: bool) -> list[torch.Tensor]:
        net.zero_grad()
        x.grad = None
        scope = SCOPES[kind](net) if kind != "none" else torch.enable_grad()
        with scope:
            if where == "around":
                with P.disabled(net, "0.*"):
                    loss(is_checkpointed).backward()
            else:
                loss(is_checkpointed).backward()
        return [p.grad.clone() for p in (x, *net.parameters())]

    for found, expected in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(found, expected)


def test_an_exception_ends_the_block() -> None:
    net = model()
    with pytest.raises(ZeroDivisionError, match="on purpose"), P.disabled(net):
        raise ZeroDivisionError("on purpose")
    assert active_scopes() == ()
    assert not is_off(net[0])


def test_as_a_decorator() -> None:
    net = model()

    @P.disabled(net)
    def look(*, fails: bool = False) -> bool:
        if fails:
            raise ZeroDivisionError
        return is_off(net[0])

    @P.disabled(net)
    async def look_later() -> bool:
        await asyncio.sleep(0)
        return is_off(net[0])

    assert look.__name__ == "look"
    assert look()
    with pytest.raises(ZeroDivisionError):
        look(fails=True)
    assert asyncio.run(look_later())
    assert not is_off(net[0])

    def steps() -> Any:
        yield 1

    with pytest.raises(DisabledError, match=r"with disabled\(\.\.\.\)"):
        P.disabled(net)(steps)


REFUSED: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    "several originals": (lambda: linear(WeightNorm()), {}, "values={'weight': tensor}"),
    "torch's engine": (torch_linear, {}, "paramdesc.adopt"),
    "a shape": (linear, {"values": {"weight": torch.eye(2)}}, "shape"),
    "not a tensor": (linear, {"values": {"weight": 1.0}}, "must be a tensor"),
    "no such map": (linear, {"maps": Symmetric}, "Double"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_open_no_block(name: str) -> None:
    make, arguments, message = REFUSED[name]
    net = make()
    with pytest.raises(DisabledError) as caught, P.disabled(net, **arguments):
        pass
    assert message in str(caught.value)
    assert active_scopes() == ()


def test_what_the_message_says_works() -> None:
    net: Any = nn.Sequential(linear(WeightNorm()), linear())
    with P.disabled(net, exclude=["0.weight"]):
        assert is_off(net[1])
    with P.disabled(net, values={"0.weight": torch.eye(3)}):
        assert net[0].weight.equal(torch.eye(3))
        assert not is_off(net[1])
    with pytest.raises(SelectionError), P.disabled(net, values={"2.weight": torch.eye(3)}):
        pass


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_programs_of_torchscript_are_refused() -> None:
    program: Any = P.jit.script(nn.Sequential(linear(Double())))
    with pytest.raises(DisabledError, match="TorchScript"), P.disabled(program):
        pass
    assert active_scopes() == ()


def test_assignment_is_refused_and_changes_nothing() -> None:
    net = model()
    before = net[0].weight.detach().clone()
    with P.disabled(net, "0.*"):
        with pytest.raises(DisabledError, match="outside the block"):
            net[0].weight = torch.ones(3, 3)
        net[2].weight = torch.ones(3, 3)
    assert net[0].weight.equal(before)
    torch.testing.assert_close(net[2].weight, torch.ones(3, 3))


def test_state_dict_requires_grad_and_optimizer_are_untouched() -> None:
    net, x = model(), torch.randn(2, 3)
    optimizer = torch.optim.Adam(net.parameters())
    net(x).sum().backward()
    optimizer.step()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    parameters = list(net.parameters())
    state = {p: optimizer.state[p]["exp_avg"].clone() for p in parameters}
    chain_of(net[2]).original.requires_grad_(False)
    with P.disabled(net):
        assert list(net.state_dict()) == list(before)
        assert all(net.state_dict()[key].equal(x) for key, x in before.items())
        assert not net[2].weight.requires_grad
        assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))
        net(x)
    assert all(optimizer.state[p]["exp_avg"].equal(x) for p, x in state.items())
    assert net[0].weight.requires_grad
    with P.disabled(net):
        net(x).sum().backward()
        optimizer.step()
    assert not net.state_dict()["0.parametrizations.weight.original"].equal(
        before["0.parametrizations.weight.original"]
    )


@pytest.mark.parametrize("kind", ["original", "values", "part"])
def test_compiled_code_follows_blocks_around_calls(kind: str) -> None:
    net, x = model(), torch.randn(2, 3)
    arguments: dict[str, Any] = {"values": {"*weight": torch.eye(3)}} if kind == "values" else {}
    selectors = ["2.*"] if kind == "part" else []
    compiled: Any = torch.compile(net, backend="eager", fullgraph=True)
    for _ in range(2):
        torch.testing.assert_close(compiled(x), net(x))
        with P.disabled(net, *selectors, **arguments):
            expected = net(x)
            torch.testing.assert_close(compiled(x), expected)
            with P.cached(net):
                torch.testing.assert_close(compiled(x), expected)
        assert not torch.allclose(compiled(x), expected)
