"""The libraries are imported here, because their warnings are not ours."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from importlib import import_module

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
LIBRARIES = ("transformers", "peft", "lightning.pytorch", "accelerate", "diffusers.training_utils")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for library in LIBRARIES:
        with suppress(ImportError):
            import_module(library)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "integrations" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("default"))
