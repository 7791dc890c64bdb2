"""The device that the tests in this folder run on.

It is a CUDA device, if there is one. `PARAMDESC_GPU_TESTS_ON=cpu` runs the tests that make sense
there on tensors on a CPU.
"""

from __future__ import annotations

import os

import pytest
import torch

__all__ = ["DEVICE", "cuda_only"]

HAS_CUDA = torch.cuda.is_available()
DEVICE = "cuda" if HAS_CUDA else os.environ.get("PARAMDESC_GPU_TESTS_ON", "")
"""The type of the device; empty if there is none."""

cuda_only = pytest.mark.skipif(not HAS_CUDA, reason="needs streams or graphs: no CUDA device")
