"""Programs made of parametrized models: export, AOTInductor, ONNX, torch.fx."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import paramdesc as P
from paramdesc.parametrizations import Orthogonal, SpectralNorm, Symmetric
from tests.helpers import Sum, chain_of, train_step

SIDE_EFFECTS = "ignore:While compiling, we found certain side effects:UserWarning"
INPUT = torch.tensor([[1.0, -2.0, 0.5]])


class Exp(nn.Module):
    def forward(self, X: Tensor) -> Tensor:
        return (0.25 * X).exp()  # torch 2.10 writes no division by a number to ONNX


class Model(nn.Module):
    """Applies one parametrized layer twice, in a scope of its own if asked to."""

    def __init__(self, *maps: nn.Module, is_scoped: bool = True) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        for parametrization in maps or (Exp(),):
            P.register_parametrization(self.layer, "weight", parametrization)
        self.is_scoped = is_scoped

    def forward(self, x: Tensor) -> Tensor:
        if not self.is_scoped:
            return self.layer(self.layer(x).tanh())  # type: ignore[no-any-return]
        with P.cached(self.layer):
            y: Tensor = self.layer(self.layer(x).tanh())
        return y


def count(program: Any, word: str = "exp") -> int:
    nodes = program.graph.nodes
    return sum(word in str(node.target) for node in nodes if node.op == "call_function")


def export(model: nn.Module, *, strict: bool = False, **options: Any) -> Any:
    return torch.export.export(model, (INPUT,), strict=strict, **options)


both_modes = pytest.mark.parametrize("strict", [False, True], ids=["not strict", "strict"])


@pytest.mark.filterwarnings(SIDE_EFFECTS)
@both_modes
@pytest.mark.parametrize("inside", [True, False], ids=["scope inside", "no scope inside"])
@pytest.mark.parametrize("around", ["nothing", "a scope", "a scope that holds the value"])
def test_an_exported_program_is_the_model(strict: bool, inside: bool, around: str) -> None:
    model = Model(is_scoped=inside)
    with P.cached(model if around != "nothing" else []) as scope:
        assert "holds" not in around or model.layer.weight.requires_grad
        program = export(model, strict=strict)
        torch.testing.assert_close(model.layer.weight, chain_of(model.layer)())
        assert all(type(entry.value) is Tensor for entry in scope.entries.values())
    # strict export is torch.compile's tracer, which sees the scopes of the traced code
    assert count(program) == (1 if inside or (around != "nothing" and not strict) else 2)
    assert program.state_dict.keys() == model.state_dict().keys()
    assert not program.constants
    torch.testing.assert_close(program.module()(2 * INPUT), model(2 * INPUT))


@both_modes
@pytest.mark.filterwarnings(SIDE_EFFECTS)
@pytest.mark.parametrize(
    "maps", [(Symmetric, Exp), (Sum,), (SpectralNorm,), (Exp, Symmetric, SpectralNorm)]
)
def test_chains_and_several_originals(maps: Any, strict: bool) -> None:
    model = Model(*(make() for make in maps)).eval()
    with torch.no_grad():
        for original in model.parameters():
            original.add_(0.1 * torch.randn_like(original))
    program = export(model, strict=strict)
    assert program.state_dict.keys() == model.state_dict().keys()
    torch.testing.assert_close(program.module()(2 * INPUT), model(2 * INPUT))


@both_modes
def test_a_parametrized_root_and_buffer(strict: bool) -> None:
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", Exp())
    norm = P.register_parametrization(nn.BatchNorm1d(3).eval(), "running_var", Exp())
    for model in (layer, norm):
        program = export(model, strict=strict)
        assert program.state_dict.keys() == model.state_dict().keys()
        torch.testing.assert_close(program.module()(2 * INPUT), model(2 * INPUT))


def test_the_program_has_the_originals_and_trains_on() -> None:
    torch.manual_seed(0)
    model = Model()
    trained = export(model).module()
    names = {name for name, _ in trained.named_parameters()}
    assert names == {name for name, _ in model.named_parameters()}
    losses = []
    for module in (model, trained):
        optimizer = torch.optim.SGD(module.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            loss = (module(INPUT) - 1).square().sum()
            loss.backward()
            optimizer.step()
        losses.append(loss.detach())
        # the parameters of a program are those of the model: one follows the other
    assert losses[1] < losses[0]
    torch.testing.assert_close(trained(INPUT), model(INPUT))


@pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")  # torch's own
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")  # torch's own
def test_a_program_is_decomposed_saved_and_loaded() -> None:
    model = Model()
    program = export(model).run_decompositions()
    assert count(program) == 1
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file)
    assert loaded.state_dict.keys() == model.state_dict().keys()
    before = model(INPUT)
    train_step(model.layer)
    torch.testing.assert_close(loaded.module()(INPUT), before)
    loaded_module = loaded.module()
    loaded_module.load_state_dict(model.state_dict())
    torch.testing.assert_close(loaded_module(INPUT), model(INPUT))


@both_modes
@pytest.mark.filterwarnings(SIDE_EFFECTS)
def test_dynamic_shapes(strict: bool) -> None:
    model = Model(Symmetric(), Exp())
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(model, (torch.randn(4, 3),), dynamic_shapes=shapes, strict=strict)
    for rows in (2, 4, 7):
        x = torch.randn(rows, 3)
        torch.testing.assert_close(program.module()(x), model(x))


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch's own
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")  # torch's own
def test_a_compiled_package_runs(tmp_path: Path) -> None:
    model = Model(Symmetric(), Exp()).eval()
    path = torch._inductor.aoti_compile_and_package(
        export(model), package_path=str(tmp_path / "model.pt2")
    )
    loaded: Any = torch._inductor.aoti_load_package(path)
    with torch.no_grad():
        torch.testing.assert_close(loaded(2 * INPUT), model(2 * INPUT))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "maps",
    [
        (Exp,),
        (Symmetric, Exp),
        (SpectralNorm,),
        (Orthogonal,),
        (partial(Orthogonal, "matrix_exp"),),
        (partial(Orthogonal, "householder"),),
    ],
    ids=["exp", "two maps", "spectral norm", "cayley", "matrix_exp", "householder"],
)
def test_an_onnx_program_runs(maps: Any) -> None:
    pytest.importorskip("onnxscript", reason="torch.onnx needs it")
    runtime: Any = pytest.importorskip("onnxruntime", reason="it runs the program")
    model = Model(*(make() for make in maps)).eval()
    program: Any = torch.onnx.export(model, (INPUT,), dynamo=True, verbose=False)
    file = io.BytesIO()
    program.save(file)
    session = runtime.InferenceSession(file.getvalue())
    (name,) = [argument.name for argument in session.get_inputs()]
    (y,) = session.run(None, {name: (2 * INPUT).numpy()})
    torch.testing.assert_close(torch.from_numpy(y), model(2 * INPUT).detach())


# torch.fx


class Direct(nn.Module):
    """Reads its own weight, twice."""

    def __init__(self, make_map: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3) / 3)
        P.register_parametrization(self, "weight", make_map())

    def forward(self, x: Tensor) -> Tensor:
        with P.cached(self):
            return F.linear(F.linear(x, self.weight), self.weight)


def root(make_map: Callable[[], nn.Module]) -> nn.Module:
    return P.register_parametrization(nn.Linear(3, 3), "weight", make_map())


def nested(make_map: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(root(make_map), nn.Tanh(), Direct(make_map))


@pytest.mark.parametrize("is_held", [True, False], ids=["value kept", "no scope"])
@pytest.mark.parametrize("make_map", [Exp, Symmetric, Sum, SpectralNorm])
@pytest.mark.parametrize("make", [root, Direct, nested])
def test_a_symbolic_trace_is_alive(
    make: Callable[[Any], nn.Module], make_map: Any, is_held: bool
) -> None:
    model: Any = make(make_map).eval()
    part = model[2] if isinstance(model, nn.Sequential) else model
    with P.cached(model if is_held else []):
        kept = part.weight
        graph = torch.fx.symbolic_trace(model)
        assert (part.weight is kept) is is_held
    assert dict(graph.named_parameters()).keys() == dict(model.named_parameters()).keys()
    twin = copy.deepcopy(graph)
    for program in (graph, twin):
        torch.testing.assert_close(program(INPUT), model(INPUT))
        torch.autograd.backward(program(INPUT).sum())
        assert all(p.grad is not None for p in program.parameters() if p.requires_grad)
    train_step(part)
    torch.testing.assert_close(graph(INPUT), model(INPUT))
    assert not torch.equal(twin(INPUT), model(INPUT))


def test_a_symbolic_trace_takes_a_chain_for_one_node() -> None:
    graph = torch.fx.symbolic_trace(root(Symmetric))
    calls = [node.target for node in graph.graph.nodes if node.op == "call_module"]
    assert calls == ["parametrizations.weight"]
    assert "__module__" not in vars(graph.get_submodule("parametrizations.weight"))


def test_a_map_with_a_state_compiles_without_a_word_of_torch_fx(
    caplog: pytest.LogCaptureFixture,
) -> None:
    layer = P.register_parametrization(nn.Linear(3, 3), "weight", SpectralNorm()).eval()
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(INPUT), layer(INPUT))
    assert [record for record in caplog.records if "fx" in record.name] == []
