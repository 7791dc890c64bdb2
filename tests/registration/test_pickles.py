"""What pickles name stays: they load after files of this package were moved or renamed."""

from __future__ import annotations

import importlib
import io
import json
import operator
import pickle
import pickletools
import subprocess
import sys
import typing
import zlib
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc import parametrizations as PZ
from paramdesc.registration import pickled
from tests.helpers import Double, Sum, chain_of, linear
from tests.registration.make_pickles import model as make_model

FOLDER = Path(__file__).parent / "pickles"

# the name of the file is that of the layout: all in one folder, then in rooms
VERSIONS = sorted(path.stem for path in FOLDER.glob("*.json"))


def stored(version: str) -> dict[str, Any]:
    """What `make_pickles.py` has written, with the pickles as bytes."""
    found = json.loads(FOLDER.joinpath(f"{version}.json").read_text(encoding="utf-8"))
    return {
        key: zlib.decompress(b64decode(value))
        if isinstance(value, str) and key != "torch"
        else value
        for key, value in found.items()
    }


def paths_in(data: bytes) -> set[str]:
    """The `module name` pairs of paramdesc in a pickle of protocol 2."""
    found = {str(arg) for code, arg, _ in pickletools.genops(data) if code.name == "GLOBAL"}
    return {path for path in found if path.startswith("paramdesc")}


def test_there_are_pickles_of_each_layout() -> None:
    assert VERSIONS == ["one_folder", "rooms"]


@pytest.mark.parametrize("kind", ["model", "torch.save"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_model_loads_and_computes_what_it_did(version: str, kind: str) -> None:
    data = stored(version)
    if kind == "model":
        model: Any = pickle.loads(data["model"])
    else:
        model = torch.load(io.BytesIO(data["torch.save"]), weights_only=False)
    inputs = torch.tensor(data["inputs"])
    with torch.no_grad():
        torch.testing.assert_close(model(inputs), torch.tensor(data["outputs"]))
    assert type(chain_of(model[0])) is P.ParametrizationList
    assert model[0] is model[-1]
    assert [P.is_parametrized(module) for module in model] == [True] * 7


def served(model: nn.Module) -> list[tuple[str, int, int]]:
    """How two calls of `model`, which keeps its values, were served."""
    scope = P.auto_cache(model)
    with torch.no_grad():
        model(torch.ones(2, 3)), model(torch.ones(2, 3))
    assert len(scope) > 0
    return [(row.name, row.hits, row.misses) for row in scope.report()]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_loaded_model_still_keeps_values_trains_and_is_assigned_to(version: str) -> None:
    model: Any = pickle.loads(stored(version)["model"])
    assert served(model) == served(make_model().eval())
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model[3].weight.detach().clone()
    model(torch.randn(4, 3)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model[3].weight, before)
    model[2].weight = torch.eye(3)
    torch.testing.assert_close(model[2].weight, torch.eye(3))
    P.remove_parametrizations(model[1], "weight")
    assert type(model[1].weight) is nn.Parameter
    old_names = {"weight_g": torch.ones(3, 1), "weight_v": torch.eye(3), "bias": torch.zeros(3)}
    chains: Any = model[4].parametrizations
    P.remove_parametrizations(chains.weight, "original1")
    model[4].load_state_dict(old_names)
    torch.testing.assert_close(model[4].weight, torch.eye(3))


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_not_a_model_loads_too(version: str) -> None:
    data = stored(version)
    lstm = pickle.loads(data["recurrent"])
    torch.testing.assert_close(
        lstm(torch.tensor(data["inputs"]))[0], torch.tensor(data["recurrent outputs"])
    )
    lazy = pickle.loads(data["lazy"])
    lazy(torch.ones(1, 3))
    torch.testing.assert_close(lazy.weight, lazy.weight.T)
    others = pickle.loads(data["others"])
    assert [(row.hits, row.misses) for row in others["report"]] == [(1, 1)]
    assert others["cause"] == P.Cause(P.Reason.WRITTEN, "original")
    assert others["set"].names() == ["weight"]
    assert type(others["cached"]) is P.cached
    assert others["classes"] == [P.Scope, P.ParametrizationList, P.register_parametrization]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_model_loads_where_nothing_was_imported_before(version: str) -> None:
    code = (
        "import pickle, sys, torch; model = pickle.load(sys.stdin.buffer).eval(); "
        "print(model(torch.ones(1, 3)).shape)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], input=stored(version)["model"], capture_output=True
    )
    assert run.stdout.split() == [b"torch.Size([1,", b"3])"], run.stderr.decode()


def make_local_layer() -> nn.Module:
    class Local(nn.Module):
        def forward(self, X: Tensor) -> Tensor:
            return X + 1

    return linear(Local())


def nested() -> nn.Module:
    layer = linear(Sum())
    P.register_parametrization(chain_of(layer), "original0", Double())
    return layer


def auto_cached() -> nn.Module:
    model = nn.Sequential(linear(), linear(PZ.SpectralNorm()))
    P.auto_cache(model)
    return model


MODELS: dict[str, Callable[[], Any]] = {
    "map": linear,
    "several originals": lambda: linear(Sum()),
    "function": lambda: P.register_parametrization(nn.Linear(3, 3), "bias", torch.exp),
    "invertible function": lambda: P.register_parametrization(
        nn.Linear(3, 3), "bias", operator.neg, right_inverse=operator.neg
    ),
    "local class": make_local_layer,
    "buffer": lambda: P.register_parametrization(nn.BatchNorm1d(3), "running_mean", Double()),
    "lazy": lambda: P.register_parametrization(nn.LazyLinear(3), "weight", Double()),
    "auto_cache": auto_cached,
    "warm start": lambda: linear(PZ.SpectralNorm()),
    "adopted": lambda: P.adopt(torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))),
    "nested": nested,
    "recurrent": lambda: P.register_parametrization(nn.LSTM(3, 3), "weight_hh_l0", Double()),
    "set": lambda: P.get_parametrizations(linear()),
    "report": lambda: P.auto_cache(auto_cached()).report(),
    "cause": lambda: P.Cause(P.Reason.WRITTEN, "original"),
    "classes": lambda: [P.Scope, P.adopt, P.parametrized, P.get_parametrizations],
}


@pytest.mark.filterwarnings("ignore:.*is defined inside a function:UserWarning")
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_pickles_name_the_package_and_none_of_its_files(make: Callable[[], Any]) -> None:
    paths = paths_in(pickle.dumps(make(), 2))
    assert paths
    modules = {path.split()[0] for path in paths}
    # the maps have a place of their own
    assert {m for m in modules if not m.startswith("paramdesc.parametrizations")} == {"paramdesc"}


@pytest.mark.parametrize("name", pickled.__all__)
def test_a_name_in_pickles_is_importable_and_keeps_its_type_hints(name: str) -> None:
    found = getattr(P, name)
    assert (found.__module__, found.__qualname__) == ("paramdesc", name)
    assert pickle.loads(pickle.dumps(found)) is found
    if isinstance(found, type):
        typing.get_type_hints(found)


def test_the_package_shows_what_is_public_and_nothing_else() -> None:
    assert dir(P) == sorted(["__version__", *P.__all__])
    assert all(hasattr(P, name) for name in P.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        P.nonsense  # noqa: B018


def test_importing_takes_neither_maps_nor_checks_nor_former_modules() -> None:
    code = (
        "import sys, paramdesc; print(*(name for name in sys.modules if name.startswith(("
        "'paramdesc.parametrizations', 'paramdesc.testing', 'paramdesc.registration.former', "
        "'paramdesc.scopes', 'paramdesc.namespace'))))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


FORMER = {
    "adoption": ["WeightNormNames"],
    "attribute": ["ParametrizedTensor"],
    "automatic": ["enter_forward_pass", "leave_forward_pass"],
    "caching": ["cached"],
    "chain": ["ParametrizationList"],
    "collection": ["ParametrizationSet"],
    "container": ["ParametrizationDict"],
    "decorator": ["parametrized"],
    "function_map": ["FunctionMap", "InvertibleFunctionMap"],
    "lazy": ["PendingRegistration"],
    "local_classes": ["new_instance"],
    "namespace": ["AttributeNamespace"],
    "record": ["Cause", "Reason"],
    "registration": ["register_parametrization"],
    "report": ["CacheReport", "CacheRow"],
    "scopes": ["OpenScopes", "Scope"],
    "slots": ["Slot"],
    "steps": ["count_loaded"],
}


@pytest.mark.parametrize("module", FORMER)
def test_a_former_path_leads_to_what_it_named(module: str) -> None:
    for name in FORMER[module]:
        assert pickle.loads(f"cparamdesc.{module}\n{name}\n.".encode()) is getattr(P, name)


def test_what_users_may_derive_from_has_its_former_path_too() -> None:
    for module, name in (("base", "Parametrization"), ("protocols", "ParametrizationProto")):
        assert getattr(importlib.import_module(f"paramdesc.{module}"), name) is getattr(P, name)


def test_former_scopes_are_the_scopes() -> None:
    scopes: Any = importlib.import_module("paramdesc.scopes")
    assert scopes.active_scopes() == ()
    with P.cached() as scope:
        assert scopes.active_scopes() == scopes._SCOPES.get() == (scope,)
