"""Chains by name, and what a shell and a notebook show of them."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

import paramdesc as P
from paramdesc.errors import NotParametrizedError
from paramdesc.parametrizations import SpectralNorm, Symmetric


def model() -> Any:
    result = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    for layer in result:
        P.register_parametrization(layer, "weight", Symmetric())
    P.register_parametrization(result[0], "weight", SpectralNorm())
    return result


def test_a_chain_by_name_and_by_path() -> None:
    net = model()
    chain = P.chain_of(net, "0.weight")
    assert chain is P.chain_of(net[0], "weight")
    assert chain is P.get_parametrizations(net)["0.weight"]
    assert isinstance(chain[0], Symmetric)
    assert len(chain[:1]) == 1


@pytest.mark.parametrize("name", ["0.wieght", "9.weight", "0.bias", "weight", ""])
def test_another_name(name: str) -> None:
    net = model()
    with pytest.raises(NotParametrizedError, match="Parametrized tensors: '0.weight'"):
        P.chain_of(net, name)
    with pytest.raises(KeyError, match="Parametrized tensors: '0.weight'"):
        P.get_parametrizations(net)[name]


def test_did_you_mean() -> None:
    with pytest.raises(NotParametrizedError, match="Did you mean '0.weight'"):
        P.chain_of(model(), "0.wieght")


def test_reprs() -> None:
    net = model()
    found = P.get_parametrizations(net)
    first = "Symmetric(), SpectralNorm(bound=1.0, dim=0)"
    assert repr(found["0.weight"]) == f"ParametrizationList('weight' of Linear: {first})"
    assert repr(P.cached(net, persistent=True)) == "<cached: 0.weight, 1.weight, persistent>"
    assert repr(P.cached()) == "<cached: everything>"
    assert repr(P.cached(nn.Linear(2, 2))) == "<cached: nothing>"
    assert repr(P.cached(found["1.weight"])) == "<cached: Linear.weight>"
    assert f"0.weight  {first}" in str(found)


def test_html() -> None:
    net = model()
    found = P.get_parametrizations(net)
    context = P.cached(net.eval(), persistent=True)
    with context as scope:
        assert net[0].weight is net[0].weight
        shown: list[Any] = [found, found["0.weight"], context, scope, scope.report()]
        assert all("weight" in x._repr_html_() for x in shown)
        assert all("<table" in x._repr_html_() for x in shown)


def test_completion() -> None:
    net = model()
    assert P.get_parametrizations(net)._ipython_key_completions_() == ["0.weight", "1.weight"]
    assert net[0].parametrizations._ipython_key_completions_() == ["weight"]
    assert "weight" in dir(net[0].parametrizations)
    assert "chain_of" in dir(P)
