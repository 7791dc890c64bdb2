"""The one-line functions: torch's two others, and one for each map."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.utils import parametrizations as theirs

from paramdesc import (
    Parametrization,
    get_parametrizations,
    parametrizations,
    remove_parametrizations,
)
from paramdesc.parametrizations.composition.flattened import Flattened
from paramdesc.parametrizations.functions import (
    entry_functions,
    lipschitz_functions,
    matrix_functions,
)
from paramdesc.parametrizations.functions.entry_functions import magnitude_mask, pruned
from paramdesc.parametrizations.functions.matrix_functions import low_rank
from paramdesc.parametrizations.functions.torch_functions import (
    orthogonal,
    spectral_norm,
    weight_norm,
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(5, 4),
    "convolution": lambda: nn.Conv2d(3, 4, 2),
    "transposed": lambda: nn.ConvTranspose2d(3, 4, 2),
}


def pair(kind: str) -> tuple[Any, Any]:
    """Two layers with the same weight."""
    layer = LAYERS[kind]()
    return layer, copy.deepcopy(layer)


def perturb(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.5)


@pytest.mark.parametrize("dim", [0, 1, None, -1, -2])
@pytest.mark.parametrize("kind", LAYERS)
def test_weight_norm_has_the_tensors_and_the_weight_of_torch(kind: str, dim: int | None) -> None:
    ours, other = pair(kind)
    weight_norm(ours, dim=dim)
    theirs.weight_norm(other, dim=dim)  # type: ignore[arg-type]
    assert list(ours.state_dict()) == list(other.state_dict())
    for x, y in zip(ours.state_dict().values(), other.state_dict().values(), strict=True):
        assert x.shape == y.shape
        assert torch.allclose(x, y, rtol=0, atol=1e-6)
    for source, target in ((other, ours), (ours, other)):
        perturb(source)
        target.load_state_dict(source.state_dict())
        assert torch.allclose(target.weight, source.weight, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dim", [None, 0, 1, -1])
@pytest.mark.parametrize("kind", LAYERS)
def test_spectral_norm_has_the_tensors_and_the_weight_of_torch(kind: str, dim: int | None) -> None:
    ours, other = pair(kind)
    spectral_norm(ours, dim=dim)
    theirs.spectral_norm(other, dim=dim)
    ours_state, other_state = ours.state_dict(), other.state_dict()
    assert {k: v.shape for k, v in ours_state.items()} == {
        k: v.shape for k, v in other_state.items()
    }
    for source, target in ((other, ours), (ours, other)):
        perturb(source)
        for _ in range(20):
            source.train()
            _ = source.weight
        source.eval()
        target.eval()
        target.load_state_dict(source.state_dict())
        assert torch.allclose(target.weight, source.weight, rtol=1e-5, atol=1e-6)


def test_spectral_norm_of_a_vector_keeps_no_state_as_in_torch() -> None:
    ours, other = pair("linear")
    spectral_norm(ours, "bias")
    theirs.spectral_norm(other, "bias")
    assert list(ours.state_dict()) == list(other.state_dict())
    assert torch.allclose(ours.bias, other.bias)


def test_spectral_norm_after_another_map_is_the_second_of_the_chain() -> None:
    layer: Any = spectral_norm(orthogonal(nn.Linear(3, 3)), bound=2.0)
    assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(2.0, abs=1e-5)
    assert len(layer.parametrizations.weight) == 2


def test_errors_of_spectral_norm_are_those_of_torch() -> None:
    for function in (spectral_norm, theirs.spectral_norm):
        with pytest.raises(ValueError, match="Expected n_power_iterations to be positive"):
            function(nn.Linear(3, 3), n_power_iterations=0)
        for dim in (2, -3):
            with pytest.raises(IndexError, match=rf"range of \[-2, 1\] but got {dim}"):
                function(nn.Linear(3, 3), dim=dim)
        with pytest.raises(ValueError, match="has no parameter or buffer with name 'kernel'"):
            function(nn.Linear(3, 3), "kernel")


def test_errors_of_weight_norm_are_those_of_torch() -> None:
    for function in (weight_norm, theirs.weight_norm):
        with pytest.raises(ValueError, match="kernel"):
            function(nn.Linear(3, 3), "kernel")


@pytest.mark.parametrize("function", [orthogonal, spectral_norm, weight_norm])
def test_signatures_begin_with_those_of_torch(function: Any) -> None:
    expected = inspect.signature(getattr(theirs, function.__name__)).parameters
    found = inspect.signature(function).parameters
    assert list(found)[: len(expected)] == list(expected)
    for name, parameter in expected.items():
        assert found[name].default == parameter.default
        assert found[name].kind == parameter.kind


@pytest.mark.parametrize("function", [orthogonal, spectral_norm, weight_norm])
def test_modules_pickle_and_are_of_their_class(function: Any) -> None:
    layer = function(nn.Linear(3, 3))
    assert type(layer) is nn.Linear
    for twin in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert twin.weight.equal(layer.weight)


def test_removing_leaves_the_weight_with_its_value() -> None:
    for function in (orthogonal, spectral_norm, weight_norm):
        layer: Any = function(nn.Linear(3, 3))
        layer.eval()
        before = layer.weight.detach().clone()
        remove_parametrizations(layer, "weight")
        assert layer.weight.equal(before)


EXTRA: dict[str, dict[str, Any]] = {
    "banded": {"lower": 1, "upper": 1},
    "low_rank": {"rank": 2},
    "fixed_rank": {"rank": 2},
    "masked": {"mask": torch.eye(4).bool()},
    "frozen": {"mask": [0]},
    "constrained": {"constraint": constraints.positive},
    "pruned": {"fraction": 0.5},
}
NO_REGISTRATION = {"magnitude_mask"}
OF_CONVOLUTIONS = {"orthogonal_convolution", "kernel_spectral_norm"}
COMPLEX = {"skew_hermitian", "hermitian"}


def one_liners() -> dict[str, Any]:
    return {
        name: getattr(module, name)
        for module in (matrix_functions, entry_functions, lipschitz_functions)
        for name in module.__all__
        if name not in NO_REGISTRATION | OF_CONVOLUTIONS
    }


@pytest.mark.parametrize("name", one_liners())
def test_a_function_registers_a_map_on_the_tensor_that_it_names(name: str) -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            dtype = torch.complex64 if name in COMPLEX else torch.float32
            self.kernel = nn.Parameter(torch.randn(4, 4, dtype=dtype))

    layer = Layer()
    assert one_liners()[name](layer, "kernel", **EXTRA.get(name, {})) is layer
    (chain,) = get_parametrizations(layer)
    parametrization: Any = chain[0]
    try:
        deviation = parametrization.deviation(layer.kernel)
    except NotImplementedError:
        return  # it reaches every tensor
    assert deviation <= parametrization.tolerance(layer.kernel)


@pytest.mark.parametrize("name", matrix_functions.__all__)
def test_functions_of_matrices_flatten(name: str) -> None:
    class Layer(nn.Module):
        weight: Tensor

        def __init__(self) -> None:
            super().__init__()
            dtype = torch.complex64 if name in COMPLEX else torch.float32
            self.weight = nn.Parameter(torch.randn(4, 2, 2, dtype=dtype))

    layer = getattr(matrix_functions, name)(Layer(), **EXTRA.get(name, {}), flatten=0)
    (chain,) = get_parametrizations(layer)
    assert isinstance(chain[0], Flattened)
    assert layer.weight.shape == (4, 2, 2)
    assert chain[0].deviation(layer.weight) <= chain[0].tolerance(layer.weight)


OTHERWISE = {
    "Blocks, Compose, Flattened, Stacked": "take maps",
    "JointPart, Transposed": "joint and tie register them",
    "BasePoint, ConstantDiagonals, ConvolutionOperator, Dissipative, Length, LinearStructure, "
    "Mirrored, MovesInner, OperatorNorm, PolarForm, Rescaling, TallMatrices": "are base classes",
    "OrthogonalConvolution": "orthogonal_convolution registers it for the layer",
    "LoRA": "lora registers it",
    "Orthogonal, TorchOrthogonal": "orthogonal registers the latter, for torch's checkpoints",
    "SpectralNorm, WeightNorm": "spectral_norm and weight_norm register them",
    "ConvolutionSpectralNorm": "is made for a module",
    "StraightThrough": "takes a function",
}


def test_there_is_a_function_for_each_map_with_one_obvious_use() -> None:
    classes = set()
    for info in pkgutil.walk_packages(parametrizations.__path__, f"{parametrizations.__name__}."):
        module = importlib.import_module(info.name)
        classes |= {
            name
            for name, member in vars(module).items()
            if isinstance(member, type) and issubclass(member, Parametrization)
        }
    modules = (matrix_functions, entry_functions, lipschitz_functions)
    text = "".join(map(inspect.getsource, modules))
    registered = {name for name in classes if f" {name}(" in text}
    left = classes - registered - set(", ".join(OTHERWISE).split(", ")) - {"Parametrization"}
    assert not left


def test_a_pruned_weight_loses_its_smallest_entries_for_good() -> None:
    layer = nn.Linear(4, 4)
    before = layer.weight.detach().abs().flatten()
    pruned(layer, fraction=0.25)
    kept = layer.weight.detach().flatten() != 0
    assert int((~kept).sum()) == 4
    assert before[kept].min() > before[~kept].max()
    perturb(layer)
    assert (layer.weight.flatten() != 0).equal(kept)


def test_a_mask_by_rows_takes_as_many_of_each() -> None:
    X = torch.tensor([[1.0, -2.0, 3.0, 4.0], [0.1, 0.2, 0.4, -0.3]])
    expected = [[False, False, True, True], [False, False, True, True]]
    assert magnitude_mask(X, 0.5, dim=0).tolist() == expected
    assert magnitude_mask(X, 0.5).tolist() == [[True] * 4, [False] * 4]
    assert magnitude_mask(torch.ones(4), 0.5).tolist() == [False, False, True, True]
    with pytest.raises(ValueError, match=r"from 0 to 1\. Got fraction=1\.5"):
        magnitude_mask(X, 1.5)


def test_flatten_takes_the_axes_that_give_the_rows() -> None:
    layer = low_rank(nn.Conv2d(4, 6, 3), rank=2, flatten=(0, 2))
    matrix = layer.weight.movedim(2, 1).flatten(0, 1).flatten(1)
    assert torch.linalg.matrix_rank(matrix) == 2
