"""What is seen of a cell while it trains: numbers to the log, the best epoch's weights, and when to stop."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foundation.core.config import LoggerConfig
from foundation.core.logger import Logger
from foundation.core.wandb_log import WandbLog
from foundation.objective.base import Objective
from foundation.train.loop import StepReport, TrainState


@contextmanager
def logs(folder: Path, cfg: LoggerConfig, total_steps: int, wandb_log: WandbLog, description: str) -> Iterator[Logger]:
    """The log of a run that ends here: closed, and told how it ended."""
    logger = Logger(folder, cfg, total_steps=total_steps, start_step=0, wandb_run=wandb_log, description=description)
    try:
        yield logger
    except BaseException:
        wandb_log.finish(ended_well=False)
        raise
    finally:
        logger.close()
    wandb_log.finish()


class Watch:
    """After every step: numbers go to the log; after every epoch, where there is a trial, the weights of the best are kept.

    trial: how good the model is on rows set aside for it; None: the last epoch's weights are kept. patience: epochs without a
    better one after which training is over; 0: never.
    """

    def __init__(
        self,
        objective: Objective,
        logger: Logger,
        *,
        steps_per_epoch: int,
        trial: Any = None,
        patience: int = 0,
    ) -> None:
        self.objective, self.logger, self.trial = objective, logger, trial
        self.steps_per_epoch, self.patience = steps_per_epoch, patience
        self.tokens, self.seconds = 0, 0.0
        self.epoch, self.best_epoch, self.best_value = 0, 0, -torch.inf
        self.best: dict[str, Tensor] | None = None

    @property
    def has_given_up(self) -> bool:
        """Whether the epochs since the best one are as many as patience allows."""
        return 0 < self.patience <= self.epoch - self.best_epoch

    def __call__(self, state: TrainState, report: StepReport) -> bool:
        """Whether to go on."""
        self.tokens += report.n_tokens
        self.seconds += report.seconds
        step = state.step
        if self.logger.is_due(step) or report.update.skipped:
            loss = float(report.losses.sum())
            tokens_per_s = self.tokens / self.seconds
            metrics = {"train/loss": loss, "optim/lr": report.update.lr, "optim/grad_norm": report.update.grad_norm}
            self.logger.log(step, metrics | {"speed/tokens_per_s": tokens_per_s})
            self.logger.progress(step, loss, tokens_per_s)
            self.tokens, self.seconds = 0, 0.0
        if step % self.steps_per_epoch == 0:
            self._end_epoch(step)
        return not self.has_given_up

    def _end_epoch(self, step: int) -> None:
        self.epoch = step // self.steps_per_epoch
        if self.trial is None:
            self.best_epoch = self.epoch
            return
        name, value = self.trial()
        self.logger.log(step, {f"eval/selection_{name}": value})
        if value > self.best_value:
            self.best_value, self.best_epoch = value, self.epoch
            self.best = {name: tensor.detach().clone() for name, tensor in self.objective.state_dict().items()}

    def put_back_best(self) -> None:
        """The weights of the best epoch, where there was a trial; else those of the last stay."""
        if self.best is not None:
            self.objective.load_state_dict(self.best)
