"""What pickles of maps name: the public module, so that a class may move to another file."""

from __future__ import annotations

import importlib
import inspect
import pickle
import pickletools
import pkgutil
import typing
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from paramdesc import parametrizations, register_parametrization
from paramdesc.parametrizations import Compose, StraightThrough, Symmetric, joint
from tests.parametrizations.all_cases import CASES

PUBLIC = "paramdesc.parametrizations"
CLASSES = {
    name: getattr(parametrizations, name)
    for name in parametrizations.__all__
    if isinstance(getattr(parametrizations, name), type)
}


def names_in(data: bytes) -> Iterator[tuple[str, str]]:
    """The modules and names of all globals in a pickle of protocol 2."""
    for operation, argument, _ in pickletools.genops(data):
        if operation.name == "GLOBAL":
            assert isinstance(argument, str)
            module, name = argument.split(" ")
            yield module, name


def modules_of_maps_in(thing: object) -> set[str]:
    return {
        module
        for module, _ in names_in(pickle.dumps(thing, protocol=2))
        if module.startswith(PUBLIC)
    }


@pytest.mark.parametrize("name", CASES)
def test_a_pickled_map_names_public_paths_only(name: str) -> None:
    data = pickle.dumps(CASES[name].make(), protocol=2)
    found = {(module, name) for module, name in names_in(data) if module.startswith("paramdesc")}
    assert found
    assert {module for module, _ in found} == {PUBLIC}


def test_every_public_class_is_pickled_by_its_public_path() -> None:
    for name, cls in CLASSES.items():
        assert (cls.__module__, cls.__qualname__) == (PUBLIC, name)
        assert pickle.loads(pickle.dumps(cls)) is cls


def test_helpers_in_pickled_models_have_public_paths() -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3), "c": nn.Linear(3, 3)})
    joint(Compose(StraightThrough(torch.sign)), [(model["a"], "weight"), (model["b"], "weight")])
    parametrizations.spectral_norm(model["c"])
    parametrizations.weight_norm(model["c"], "bias", dim=None)
    assert modules_of_maps_in(model) == {PUBLIC}


def test_pickles_that_name_the_file_of_a_class_still_load() -> None:
    loaded = set()
    for info in pkgutil.walk_packages(parametrizations.__path__, f"{PUBLIC}."):
        module: Any = importlib.import_module(info.name)
        for name in CLASSES.keys() & set(getattr(module, "__all__", ())):
            assert pickle.loads(f"c{info.name}\n{name}\n.".encode()) is CLASSES[name]
            loaded.add(name)
    assert loaded == set(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_type_hints_of_public_classes_are_found(name: str) -> None:
    typing.get_type_hints(CLASSES[name])
    typing.get_type_hints(CLASSES[name].forward)


def test_the_source_of_methods_is_found() -> None:
    assert "symmetric(X)" in inspect.getsource(Symmetric.from_upper)


def test_a_class_of_the_user_keeps_its_own_module() -> None:
    class Own(Symmetric):
        pass

    assert Own.__module__ == __name__
    assert register_parametrization(nn.Linear(2, 2), "weight", Own()).weight.shape == (2, 2)
