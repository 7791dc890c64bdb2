"""A callback for Lightning: parametrized tensors are evaluated once per window of accumulation."""

from __future__ import annotations

import logging
from typing import Any

from lightning.pytorch.callbacks import Callback

from paramdesc.caching.cached import cached
from paramdesc.caching.report import CacheReport
from paramdesc.caching.scopes import Scope

__all__ = ["ParamdescCache"]

_LOGGER = logging.getLogger(__name__)


class ParamdescCache(Callback):  # type: ignore[misc]  # untyped where Lightning is not installed
    """Opens a scope for each window of gradient accumulation, and for each run of an evaluation.

    Under automatic optimization, gradients are deferred by default: each parametrized tensor is
    evaluated once per window, and has one backward pass. Gradients reach the originals after the
    last backward pass of the window, before clipping, unscaling and the step. Validation, testing
    and prediction evaluate each tensor once.

    Put it first in the list of callbacks, so that others see the gradients in their hooks. After a
    training epoch, `paramdesc/evaluations` and `paramdesc/reuses` are logged: reads that were
    evaluated and reads that were not. Nothing is added to the progress bar.

    Args:
        deferred: whether gradients are deferred. Under manual optimization they never are, and
            each batch has an ordinary scope.
        batched: whether tensors that are parametrized alike are evaluated together, as in
            `cached(batched=True)`.
        log: whether the counts are logged.

    >>> trainer = Trainer(callbacks=[ParamdescCache()])  # doctest: +SKIP
    """

    def __init__(self, *, deferred: bool = True, batched: bool = False, log: bool = True) -> None:
        super().__init__()
        self.deferred = deferred
        self.batched = batched
        self._logs = log
        self.evaluations = 0
        self.reuses = 0
        self.report: CacheReport | None = None
        """The report of the last window."""
        self._batch = 0
        self._open: dict[str, tuple[cached, Scope]] = {}

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.evaluations = self.reuses = 0

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        self._batch = batch_idx
        if "train" not in self._open:
            deferred = self.deferred and pl_module.automatic_optimization
            self._enter("train", cached(pl_module, deferred=deferred, batched=self.batched))

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        if self._ends_window(trainer):
            self._run_deferred()

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self._run_deferred()  # again only if the last batch of the window has returned no loss

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if self._ends_window(trainer) or not pl_module.automatic_optimization:
            self._leave("train")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._leave("train")
        if self._logs:
            counts = {"evaluations": self.evaluations, "reuses": self.reuses}
            pl_module.log_dict(
                {f"paramdesc/{name}": float(count) for name, count in counts.items()},
                prog_bar=False,
                batch_size=1,  # asked for where training_step takes the iterator
            )

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._leave("train")
        if self._logs and self.report is not None:
            _LOGGER.info("the last window:\n%s", self.report)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._enter("validation", cached(pl_module, batched=self.batched))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._leave("validation")

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        self._enter("test", cached(pl_module, batched=self.batched))

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        self._leave("test")

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        self._enter("predict", cached(pl_module, batched=self.batched))

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        self._leave("predict")

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        for stage in reversed(list(self._open)):
            self._leave(stage, exception)

    def _ends_window(self, trainer: Any) -> bool:
        if trainer.strategy.handles_gradient_accumulation:
            return True
        after = self._batch + 1
        return bool(after % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch)

    def _run_deferred(self) -> None:
        _, scope = self._open.get("train", (None, None))
        if scope is not None and scope.deferral is not None:
            scope.backward()

    def _enter(self, stage: str, block: cached) -> None:
        self._leave(stage)
        self._open[stage] = block, block.__enter__()

    def _leave(self, stage: str, error: BaseException | None = None) -> None:
        if stage not in self._open:
            return
        block, scope = self._open.pop(stage)
        if stage == "train":
            self.evaluations += scope.misses
            self.reuses += scope.hits
            self.report = scope.report()
        block.__exit__(type(error) if error is not None else None, error, None)
