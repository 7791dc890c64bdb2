"""What works on a baked model, and did not on a parametrized one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import paramdesc as P
from paramdesc.parametrizations import Orthogonal, Positive, SpectralNorm
from tests.models.zoo import old_weight_norm

fuse_modules: Any = torch.ao.quantization.fuse_modules
synchronized: Any = nn.SyncBatchNorm.convert_sync_batchnorm
X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """Two projections, with the names that adapters look for."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(8, 8)
        self.value = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.value(self.query(x).relu())  # type: ignore[no-any-return]


def parametrized_block() -> Block:
    torch.manual_seed(0)
    model = Block()
    P.register_parametrization(model.query, "weight", Orthogonal())
    old_weight_norm(model.value)
    return model.eval()


def test_a_batch_norm_is_fused_into_a_convolution() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    P.register_parametrization(model[0], "weight", SpectralNorm())
    P.register_parametrization(model[1], "weight", Positive())
    x = torch.randn(2, 3, 8, 8)
    model(x)
    model.eval()
    expected = model(x)
    with pytest.raises(Exception, match="weight|Parameter|parametrized"):
        fuse_modules(model, ["0", "1"])
    fused: Any = fuse_modules(P.bake(model, copy=True).model, ["0", "1", "2"])
    assert isinstance(fused[1], nn.Identity)
    torch.testing.assert_close(fused(x), expected)


def test_batch_norms_are_synchronised() -> None:
    model: Any = nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4))
    P.register_parametrization(model[1], "weight", Positive())
    value = model[1].weight.detach().clone()
    with pytest.raises(TypeError):
        synchronized(model)
    baked: Any = P.bake(model, copy=True)
    converted: Any = synchronized(baked.model)
    assert isinstance(converted[1], nn.SyncBatchNorm)
    assert torch.equal(converted[1].weight, value)


def test_adapters_of_peft_are_merged() -> None:
    peft: Any = pytest.importorskip("peft", reason="it is too large for the tests' environment")
    config = peft.LoraConfig(target_modules=["query", "value"], init_lora_weights=False)
    model = peft.get_peft_model(P.bake(parametrized_block()).model, config).eval()
    expected = model(X)
    merged = model.merge_and_unload()
    assert type(merged.query) is nn.Linear
    assert not torch.allclose(merged(X), parametrized_block()(X), atol=1e-3)
    torch.testing.assert_close(merged(X), expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_model_is_quantized() -> None:
    quantization: Any = pytest.importorskip("torchao.quantization", reason="it quantises")
    model: Any = P.bake(parametrized_block()).model
    expected = model(X)
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    assert type(model.query.weight) is not nn.Parameter
    torch.testing.assert_close(model(X), expected, atol=0.05, rtol=0.05)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_model_is_exported_to_onnx() -> None:
    pytest.importorskip("onnxscript", reason="torch.onnx needs it")
    runtime: Any = pytest.importorskip("onnxruntime", reason="it runs the program")
    model = parametrized_block()
    P.register_parametrization(model.value, "bias", torch.neg)
    expected = model(X)
    baked = P.bake(model, copy=True).model
    program: Any = torch.onnx.export(baked, (X,), dynamo=True, verbose=False)
    session = runtime.InferenceSession(program.model_proto.SerializeToString())
    (given,) = session.get_inputs()
    (found,) = session.run(None, {given.name: X.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected.detach())
    names = {node.op_type for node in program.model_proto.graph.node}
    assert names <= {"Gemm", "MatMul", "Add", "Relu", "Transpose"}
