"""Make the pickles that later versions must load: `python -m tests.registration.make_pickles NAME`.

Run it from a checkout of the version that they are of. They name nothing of the tests, whose
files may move.
"""

from __future__ import annotations

import base64
import io
import json
import operator
import pickle
import sys
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

import paramdesc as P
from paramdesc.parametrizations import Orthogonal, SpectralNorm, Symmetric

FOLDER = Path(__file__).parent / "pickles"


def model() -> nn.Module:
    """One layer for each kind of thing that a pickle of a model may hold."""
    layers = [nn.Linear(3, 3) for _ in range(5)] + [nn.BatchNorm1d(3)]
    P.register_parametrization(layers[0], "weight", Symmetric())
    P.register_parametrization(layers[1], "weight", Orthogonal())
    P.register_parametrization(layers[2], "weight", operator.neg, right_inverse=operator.neg)
    P.register_parametrization(layers[2], "bias", operator.neg)
    P.register_parametrization(layers[3], "weight", SpectralNorm())
    P.adopt(torch.nn.utils.parametrizations.weight_norm(layers[4]))
    chains: Any = layers[4].parametrizations
    P.register_parametrization(chains.weight, "original1", operator.neg, right_inverse=operator.neg)
    P.register_parametrization(layers[5], "running_mean", operator.neg, right_inverse=operator.neg)
    result = nn.Sequential(*layers, layers[0])
    P.auto_cache(result)
    return result


def recurrent() -> nn.Module:
    layer = nn.LSTM(3, 3)
    return P.register_parametrization(
        layer, "weight_hh_l0", operator.neg, right_inverse=operator.neg
    )


def lazy() -> nn.Module:
    return P.register_parametrization(nn.LazyLinear(3), "weight", Symmetric())


def others() -> dict[str, Any]:
    """What else of paramdesc people may pickle."""
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", Symmetric())
    with P.cached(layer) as scope:
        _ = layer.weight, layer.weight
        report = scope.report()
    return {
        "report": report,
        "cause": P.Cause(P.Reason.WRITTEN, "original"),
        "set": P.get_parametrizations(layer),
        "cached": P.cached(layer, persistent=True),
        "classes": [P.Scope, P.ParametrizationList, P.register_parametrization],
    }


def packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode()


def unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


def pickles() -> dict[str, Any]:
    """All of these as text, with the outputs that the models must have."""
    torch.manual_seed(0)
    whole, lstm = model(), recurrent()
    whole(torch.randn(5, 3)).sum().backward()  # a step of the power iteration, and a mean
    whole.eval()
    inputs = torch.randn(2, 3)
    with torch.no_grad():
        outputs = whole(inputs), lstm(inputs)[0]
    file = io.BytesIO()
    torch.save(whole, file)
    return {
        "torch": torch.__version__,
        "model": packed(pickle.dumps(whole)),
        "torch.save": packed(file.getvalue()),
        "recurrent": packed(pickle.dumps(lstm)),
        "lazy": packed(pickle.dumps(lazy())),
        "others": packed(pickle.dumps(others())),
        "inputs": inputs.tolist(),
        "outputs": outputs[0].tolist(),
        "recurrent outputs": outputs[1].tolist(),
    }


if __name__ == "__main__":
    text = json.dumps(pickles(), indent=1)
    FOLDER.joinpath(f"{sys.argv[1]}.json").write_text(f"{text}\n", encoding="utf-8")
