"""`ParamdescCache` in a Lightning `Trainer`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

import paramdesc as P
from paramdesc.parametrizations import orthogonal, spectral_norm

pytest.importorskip("lightning", reason="needs lightning: the extra `integrations`")

import lightning as L
from lightning.pytorch.callbacks import Callback, WeightAveraging

from paramdesc.caching.active import active_scopes
from paramdesc.integrations.lightning import ParamdescCache

X = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
make_average: Any = get_ema_multi_avg_fn
COUNT = 2  # parametrized tensors


class Net(L.LightningModule):  # type: ignore[misc]
    def __init__(self, fused: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net: Any = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
        orthogonal(self.net[0])
        spectral_norm(self.net[2])
        self.fused = fused

    def training_step(self, batch: Any, index: int) -> Any:
        loss = self.loss(batch)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("error", self.loss(batch))

    def loss(self, batch: Any) -> Any:
        return (self.net(batch[0]) - batch[0]).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), 1e-2, fused=self.fused)


class Manual(Net):
    automatic_optimization = False

    def training_step(self, batch: Any, index: int) -> None:
        optimizer: Any = self.optimizers()
        for _ in range(2):
            optimizer.zero_grad()
            self.manual_backward(self.loss(batch))
            optimizer.step()


def loader() -> Any:
    return DataLoader(TensorDataset(X), batch_size=4)


def fit(model: Any, *callbacks: Any, **options: Any) -> Any:
    settings = {
        "max_epochs": 2,
        "accumulate_grad_batches": 4,  # of 10 batches: the last window of an epoch has two
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 1,
    }
    trainer = L.Trainer(callbacks=list(callbacks), **{**settings, **options})
    try:
        trainer.fit(model, loader(), loader())
    finally:
        assert not active_scopes()
    return trainer


def assert_same(model: nn.Module, other: nn.Module) -> None:
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], tensor, msg=name)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient_clip_val": 0.1},
        {"precision": "bf16-mixed"},
        {"accumulate_grad_batches": 1},
        {"val_check_interval": 0.3},  # in the middle of windows
    ],
    ids=str,
)
@pytest.mark.parametrize("deferred", [True, False])
def test_training_is_the_same(options: dict[str, Any], deferred: bool) -> None:
    plain, cached = Net(), Net()
    fit(plain, **options)
    fit(cached, ParamdescCache(deferred=deferred), **options)
    assert_same(plain, cached)


def test_each_tensor_is_evaluated_once_in_a_window() -> None:
    callback = ParamdescCache()
    trainer = fit(Net(), callback)
    assert callback.evaluations == 3 * COUNT  # windows of 4, 4 and 2 batches
    assert callback.reuses == (10 - 3) * COUNT
    assert trainer.logged_metrics["paramdesc/evaluations"] == 3 * COUNT
    assert not any(name.startswith("paramdesc") for name in trainer.progress_bar_metrics)


class TakingIterator(Net):
    def training_step(self, dataloader_iter: Any) -> Any:  # type: ignore[override]
        batch, _, _ = next(dataloader_iter)
        return self.loss(batch)


@pytest.mark.parametrize(("deferred", "batches"), [(False, 4), (True, 1)])
def test_a_step_that_takes_the_iterator_is_trained_the_same(deferred: bool, batches: int) -> None:
    plain, cached = TakingIterator(), TakingIterator()
    fit(plain, accumulate_grad_batches=batches)
    fit(cached, ParamdescCache(deferred=deferred), accumulate_grad_batches=batches)
    assert_same(plain, cached)


def test_without_deferral_each_batch_evaluates() -> None:
    callback = ParamdescCache(deferred=False, log=False)
    trainer = fit(Net(), callback)
    assert callback.evaluations == 10 * COUNT
    assert not any(name.startswith("paramdesc") for name in trainer.logged_metrics)


def test_the_report_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="paramdesc"):
        fit(Net(), ParamdescCache(batched=True))
    assert "net.0.weight" in caplog.text


def test_manual_optimization_is_the_same() -> None:
    plain, cached, callback = Manual(), Manual(), ParamdescCache()
    fit(plain, accumulate_grad_batches=1)
    fit(cached, callback, accumulate_grad_batches=1)
    assert_same(plain, cached)
    assert callback.evaluations == 10 * 2 * COUNT


def test_an_optimizer_with_several_closure_calls_is_the_same() -> None:
    class WithLBFGS(Net):
        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.parameters(), 1e-2, max_iter=3)

    plain, cached = WithLBFGS(), WithLBFGS()
    fit(plain, max_epochs=1)
    fit(cached, ParamdescCache(), max_epochs=1)
    assert_same(plain, cached)


def test_a_batch_without_a_loss_at_the_end_of_a_window_is_no_problem() -> None:
    class Skipping(Net):
        def training_step(self, batch: Any, index: int) -> Any:
            return None if index == 3 else super().training_step(batch, index)

    plain, cached = Skipping(), Skipping()
    fit(plain)
    fit(cached, ParamdescCache())
    assert_same(plain, cached)


def test_after_an_exception_no_scope_is_open() -> None:
    class Failing(Net):
        def training_step(self, batch: Any, index: int) -> Any:
            if index == 2:
                raise ZeroDivisionError
            return super().training_step(batch, index)

    model = Failing()
    with pytest.raises(ZeroDivisionError):
        fit(model, ParamdescCache())
    assert model.net[0].parametrizations.weight.original.grad is None


def test_other_callbacks_see_the_gradients() -> None:
    seen: list[bool] = []

    class Watch(Callback):  # type: ignore[misc]
        def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
            seen.append(module.net[0].parametrizations.weight.original.grad is not None)

    fit(Net(), ParamdescCache(), Watch())
    assert seen
    assert all(seen)


def test_prediction_and_testing_evaluate_once() -> None:
    class Testing(Net):
        def test_step(self, batch: Any, index: int) -> None:
            self.log("error", self.loss(batch))

        def predict_step(self, batch: Any, index: int) -> Any:
            return self.net(batch[0])

    model = Testing()
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        callbacks=[ParamdescCache()],
    )
    calls = []
    for chain in P.get_parametrizations(model):
        chain[0].register_forward_hook(lambda *_: calls.append(1))
    trainer.test(model, loader(), verbose=False)
    assert len(calls) == COUNT
    found = torch.cat(trainer.predict(model, loader()))
    assert len(calls) == 2 * COUNT
    torch.testing.assert_close(found, model.eval().net(X))


def test_a_resumed_run_is_the_whole_run(tmp_path: Path) -> None:
    whole, resumed = Net(), Net()
    trainer = fit(whole, ParamdescCache(), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    trainer = fit(Net(), ParamdescCache(), max_epochs=2)
    whole = trainer.lightning_module
    L.Trainer(
        max_epochs=2,
        accumulate_grad_batches=4,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ParamdescCache()],
    ).fit(resumed, loader(), loader(), ckpt_path=tmp_path / "one.ckpt", weights_only=False)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


@pytest.mark.parametrize("with_cache", [True, False])
def test_averaged_weights_satisfy_their_constraint(with_cache: bool) -> None:
    average = WeightAveraging(use_buffers=True, multi_avg_fn=make_average(0.8))
    model = Net()
    orthogonal_map = model.net[0].parametrizations.weight
    orthogonal_map.replace(0, P.parametrizations.Symmetric())
    fit(model, *[ParamdescCache()] * with_cache, average)
    weight = model.net[0].weight
    torch.testing.assert_close(weight, weight.T)
