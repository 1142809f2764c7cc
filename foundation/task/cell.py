"""One cell of a study: one arm, one task, one seed; from the beginning to predictions, scores and a verified model."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foundation.core.device import StopRequest
from foundation.core.distributed import is_main, main_first
from foundation.core.errors import UserError
from foundation.core.files import write_json
from foundation.core.logger import Logger
from foundation.core.plain import to_plain
from foundation.core.run import peak_memory_bytes
from foundation.core.wandb_log import WandbLog, start_wandb
from foundation.task.batches import TaskBatches, TokenRows
from foundation.task.config import FinetuneConfig
from foundation.task.finetuned import Answering, FineTuned, check_reload
from foundation.task.load import Examples, Labels
from foundation.task.metrics import Scores, is_collapsed, score
from foundation.task.predictions import Predictions, write_predictions
from foundation.task.start import Start
from foundation.train.loop import StepReport, TrainState, train
from foundation.train.optim import Updater

SCORES_FILE, PREDICTIONS_FILE = "scores.json", "predictions.parquet"
# A table of wandb's is for looking at, not for storing: predictions.parquet has all of them.
_TABLE_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Split:
    """Examples, and their rows of tokens."""

    examples: Examples
    tokens: TokenRows


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What the seeds of an arm share.

    settings: plain. selection: rows that pick the epoch, for keep=best. baseline: primary metric of a constant answer.
    """

    cfg: FinetuneConfig
    settings: dict[str, Any]
    start: Start
    how: Answering
    train: Split
    selection: Split | None
    dev: Split
    baseline: float
    device: torch.device

    def targets(self) -> Labels:
        """(R,) what the head is to give: class numbers, or standardised values."""
        labels = self.train.examples.labels
        return labels if self.how.labels else (labels.astype(np.float64) - self.how.mean) / self.how.std

    def score(self, tuned: FineTuned, split: Split) -> Scores:
        """How good the model is on a split."""
        return score(self.cfg.task, self.how.labels, split.examples.labels, tuned.answer(split.tokens).predicted)


class _Watch:
    """After every step: numbers go to the log, and with keep=best the weights of the best epoch so far are kept."""

    def __init__(self, arm: Arm, tuned: FineTuned, logger: Logger, steps_per_epoch: int, stop: StopRequest) -> None:
        self.arm, self.tuned, self.logger, self.stop = arm, tuned, logger, stop
        self.steps_per_epoch = steps_per_epoch
        self.tokens, self.seconds = 0, 0.0
        self.best: dict[str, Tensor] | None = None
        self.best_value, self.best_epoch = -torch.inf, arm.cfg.epochs

    def __call__(self, state: TrainState, report: StepReport) -> bool:
        self.tokens += report.n_tokens
        self.seconds += report.seconds
        step = state.step
        if self.logger.is_due(step) or report.skipped:
            loss = float(report.losses.sum())
            tokens_per_s = self.tokens / self.seconds
            metrics = {"train/loss": loss, "optim/lr": report.lr, "optim/grad_norm": report.grad_norm}
            self.logger.log(step, metrics | {"speed/tokens_per_s": tokens_per_s})
            self.logger.progress(step, loss, tokens_per_s)
            self.tokens, self.seconds = 0, 0.0
        if self.arm.selection is not None and step % self.steps_per_epoch == 0:
            self._try_epoch(step)
        return not self.stop.is_set()

    def _try_epoch(self, step: int) -> None:
        assert self.arm.selection is not None
        value = self.arm.score(self.tuned, self.arm.selection).values[self.arm.cfg.task.primary.value]
        self.logger.log(step, {f"eval/selection_{self.arm.cfg.task.primary.value}": value})
        if value > self.best_value:
            self.best_value, self.best_epoch = value, step // self.steps_per_epoch
            self.best = {name: tensor.detach().clone() for name, tensor in self.tuned.objective.state_dict().items()}

    def put_back_best(self) -> None:
        """With keep=best, the weights of the best epoch; else those of the last stay."""
        if self.best is not None:
            self.tuned.objective.load_state_dict(self.best)


def run_cell(arm: Arm, seed: int, folder: Path, run_id: str) -> None:
    """Train, answer, save, check what was saved; scores.json comes last, so a folder with it is complete."""
    started = time.perf_counter()
    cfg = arm.cfg
    beginning = arm.start.begin(cfg, arm.how.n_out, seed)
    objective = beginning.objective.to(arm.device)
    tuned = FineTuned(objective, arm.start.foundation.tokenizer, arm.how, cfg.batch_rows, cfg.trainer.precision)
    batches = TaskBatches(arm.train.tokens, arm.targets(), batch_rows=cfg.batch_rows, seed=seed)
    total_steps = cfg.epochs * batches.steps_per_epoch
    updater = Updater(objective, cfg.optim, cfg.schedule, total_steps)
    if is_main():
        folder.mkdir(parents=True, exist_ok=True)
    name = f"{cfg.task.name}/{arm.start.name}/seed-{seed}"
    wandb_log = start_wandb(
        cfg.logger,
        run_path=folder,
        name=name,
        group=arm.start.group,
        job_type="finetune",
        config=arm.settings,
        run_id=f"{run_id}-seed-{seed}",
    )
    if not arm.start.is_scratch:
        wandb_log.use_artifact(f"foundation-{arm.start.group}", "foundation")
    logger = Logger(folder, cfg.logger, total_steps=total_steps, start_step=0, wandb_run=wandb_log, description=name)
    try:
        with StopRequest() as stop:
            watch = _Watch(arm, tuned, logger, batches.steps_per_epoch, stop)
            state = TrainState(objective, updater, arm.device, cfg.trainer.precision)
            train(state, batches, seed=seed, micro_batch_rows=cfg.trainer.micro_batch_rows, on_event=watch)
        if state.step < total_steps:
            raise UserError(f"stopped in {name}: seeds that are done are kept, and the same command goes on from there")
        watch.put_back_best()
        done = {"seed": seed, "steps": total_steps, "epoch_kept": watch.best_epoch, "foundation": beginning.foundation}
        with main_first():
            if is_main():
                record = _examine(arm, tuned, done, folder, wandb_log)
                record["seconds"] = time.perf_counter() - started
                logger.log(total_steps, {f"eval/{key}": value for key, value in record["values"].items()})
                wandb_log.summary({"baseline": arm.baseline, "collapsed": record["collapsed"]})
                write_json(folder / SCORES_FILE, record)
    except BaseException:
        wandb_log.finish(ended_well=False)
        raise
    finally:
        logger.close()
    wandb_log.finish()


def _examine(arm: Arm, tuned: FineTuned, done: dict[str, Any], folder: Path, wandb_log: WandbLog) -> dict[str, Any]:
    """Answer the reported split, write model and predictions, read the model back; returns what scores.json says."""
    dev, task = arm.dev.examples, arm.cfg.task
    answers = tuned.answer(arm.dev.tokens)
    scores = score(task, arm.how.labels, dev.labels, answers.predicted)
    value = scores.values[task.primary.value]
    info = {
        "name": f"{arm.start.name}/{task.name}/seed-{done['seed']}",
        "parent": done["foundation"],
        "tokenizer": tuned.tokenizer.fingerprint,
        "scores": scores.values,
    }
    model = tuned.save(folder / "final", info, _card(info, task.primary.value))
    difference = check_reload(tuned, folder / "final", dev.text, dev.text_pair)
    predictions = Predictions(
        task=task.name,
        split="dev",
        seed=done["seed"],
        foundation=done["foundation"],
        sharing=arm.cfg.sharing.method.value,
        arm=arm.start.name,
        labels=arm.how.labels,
        item_ids=dev.ids,
        gold=dev.labels.astype(np.float64),
        predicted=answers.predicted,
        logits=answers.logits,
        probabilities=answers.probabilities,
    )
    write_predictions(folder / PREDICTIONS_FILE, [predictions])
    _show(wandb_log, predictions, dev.text, folder / "final", info)
    return {
        **done,
        "value": value,
        "collapsed": is_collapsed(task.primary, value, arm.baseline),
        **to_plain(scores),
        "model": model,
        "reload_difference": difference,
        "peak_memory_bytes": peak_memory_bytes(arm.device.type),
    }


def _show(wandb_log: WandbLog, predictions: Predictions, text: list[str], final: Path, info: dict[str, Any]) -> None:
    """The copies that wandb gets besides the curves."""
    if not wandb_log.active:
        return
    columns = zip(predictions.item_ids, text, predictions.gold.tolist(), predictions.predicted.tolist(), strict=True)
    rows = [list(row) for row in columns][:_TABLE_ROWS]
    wandb_log.log_table("predictions", ["item", "text", "gold", "predicted"], rows)
    wandb_log.log_model(final, info["name"], "finetuned", info)


def _card(info: dict[str, Any], metric: str) -> str:
    """Markdown; save_foundation puts the fingerprint in."""
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in info["scores"].items())
    return f"""# {info["name"]}

Fine-tuned by Foundation from the encoder `{info["parent"]}` (hash of its weights before the first step).
Encoder now: `{{fingerprint}}`. Tokenizer: `{info["tokenizer"]}`. Judged by {metric} on the reported split:

| metric | |
|---|---|
{rows}
"""
