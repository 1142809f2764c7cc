"""One cell of a study: one arm, one task, one seed; from the beginning to predictions, scores and a verified model."""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from foundation.core.device import StopRequest
from foundation.core.distributed import is_main, main_first
from foundation.core.errors import UserError
from foundation.core.files import write_json
from foundation.core.logger import Logger
from foundation.core.memory import PeakMemory, peak_memory_bytes
from foundation.core.plain import to_plain
from foundation.core.wandb_log import WandbLog, start_wandb
from foundation.model import native
from foundation.model.sharing.config import SharingMethod
from foundation.objective.base import Objective
from foundation.task.batches import Targets, TaskBatches, TokenRows
from foundation.task.costs import TENSORS_FILE, manifest_of, measure, verify_frozen, write_manifest
from foundation.task.examples import Examples
from foundation.task.finetuned import Answering, FineTuned, check_reload
from foundation.task.kinds.base import Kind
from foundation.task.kinds.build import build_kind
from foundation.task.metrics import Scores, is_collapsed
from foundation.task.predictions import ALL_ROWS, Predictions, write_predictions
from foundation.task.results import PREDICTIONS_FILE, SCORES_FILE
from foundation.task.start import Beginning, Start, rate_scale
from foundation.task.study_config import FinetuneConfig
from foundation.task.watch import Watch, logs
from foundation.train.config import Precision
from foundation.train.loop import Batches, StepReport, TrainState, compiles, train
from foundation.train.optim import Updater

# A table of wandb's is for looking at, not for storing: predictions.parquet has all of them.
_TABLE_ROWS = 10_000
_settled = False


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

    @property
    def kind(self) -> Kind[Any, Any, Any]:
        """What the task asks."""
        return build_kind(self.cfg.task)

    @property
    def passes(self) -> native.Passes:
        """How training computes what lies between matrix products."""
        return native.passes(self.device, bf16=self.cfg.trainer.precision is Precision.bf16)

    def targets(self) -> Targets:
        """What the head is to give."""
        return self.kind.targets(self.train.examples, self.train.tokens, self.how)

    def score(self, tuned: FineTuned, split: Split) -> Scores:
        """How good the model is on a split."""
        found = self.kind.decide(split.examples, tuned.answer(split.tokens), self.how)
        return self.kind.score(found, self.how.labels)


@dataclass(frozen=True, slots=True)
class Cell:
    """A model, what it is trained on, and how long."""

    seed: int
    beginning: Beginning
    tuned: FineTuned
    batches: TaskBatches
    epochs: int

    @property
    def total_steps(self) -> int:
        return self.epochs * self.batches.steps_per_epoch


def run_cell(arm: Arm, seed: int, folder: Path, run_id: str) -> None:
    """Train, answer, save, check what was saved; scores.json comes last, so a folder with it is complete."""
    settle(arm, seed)
    started = time.perf_counter()
    name = f"{arm.cfg.task.name}/{arm.start.name}/seed-{seed}"
    if is_main():
        folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with PeakMemory(arm.device.type) as peak:
            cell = begin_cell(arm, seed)
            wandb_log = wandb_of(arm, seed, folder, run_id, name)
            logger = stack.enter_context(logs(folder, arm.cfg.logger, cell.total_steps, wandb_log, name))
            done = _train(arm, cell, logger, name)
        with main_first():
            if is_main():
                verify_frozen(cell.tuned.objective, cell.beginning.weights)
                record = {**examine(arm, cell, done, folder, wandb_log), "training_memory_bytes": peak.bytes}
                record["seconds"] = time.perf_counter() - started
                logger.log(done["steps"], {f"eval/{key}": value for key, value in record["values"].items()})
                wandb_log.summary({"baseline": arm.baseline, "collapsed": record["collapsed"], **record["costs"]})
                write_json(folder / SCORES_FILE, record)


def settle(arm: Arm, seed: int) -> None:
    """A step that nobody keeps, in a process that has made none: what libraries set up for good in their first one would count
    as that cell's memory and time (measured: 128 MB where the step itself takes 52)."""
    global _settled
    if _settled:
        return
    _settled = True
    cell = begin_cell(arm, seed)
    objective, micro_batch_rows = cell.tuned.objective, arm.cfg.trainer.micro_batch_rows
    state = _fresh_state(arm, objective, total_steps=1)
    train(state, cell.batches, seed=seed, micro_batch_rows=micro_batch_rows, on_event=lambda *_: False)


def begin_cell(arm: Arm, seed: int) -> Cell:
    cfg = arm.cfg
    beginning = arm.start.begin(cfg, arm.how.n_out, seed)
    objective = beginning.objective.to(arm.device)
    tuned = FineTuned(objective, arm.start.foundation.tokenizer, arm.how, cfg.batch_rows, cfg.trainer.precision)
    batches = TaskBatches(arm.train.tokens, arm.targets(), batch_rows=cfg.batch_rows, seed=seed)
    epochs = max(cfg.epochs, -(-cfg.min_steps // batches.steps_per_epoch))
    return Cell(seed, beginning, tuned, batches, epochs)


def wandb_of(arm: Arm, seed: int, folder: Path, run_id: str, name: str) -> WandbLog:
    wandb_log = start_wandb(
        arm.cfg.logger,
        run_path=folder,
        name=name,
        group=arm.start.group,
        job_type="finetune",
        config=arm.settings,
        run_id=f"{run_id}-seed-{seed}",
    )
    if not arm.start.is_scratch:
        wandb_log.use_artifact(f"foundation-{arm.start.group}", "foundation")
    return wandb_log


def _train(arm: Arm, cell: Cell, logger: Logger, name: str) -> dict[str, Any]:
    """All steps, or as many as patience allows; returns what is to be said of them."""
    trial = None if arm.selection is None else partial(_try_out, arm, cell.tuned, arm.selection)
    watch = Watch(
        cell.tuned.objective,
        logger,
        steps_per_epoch=cell.batches.steps_per_epoch,
        trial=trial,
        patience=arm.cfg.patience,
    )
    steps = run_steps(arm, cell.tuned.objective, cell.batches, watch, total_steps=cell.total_steps, seed=cell.seed)
    if steps < cell.total_steps and not watch.has_given_up:
        raise stopped(name)
    watch.put_back_best()
    return {"seed": cell.seed, "steps": steps, "epoch_kept": watch.best_epoch}


def run_steps(arm: Arm, objective: Objective, batches: Batches, watch: Watch, *, total_steps: int, seed: int) -> int:
    """Step until the end, or until the watch or the user stops it; returns the steps that were made."""
    state = _fresh_state(arm, objective, total_steps)
    with StopRequest() as stop:

        def go_on(state: TrainState, report: StepReport) -> bool:
            return watch(state, report) and not stop.is_set()

        train(state, batches, seed=seed, micro_batch_rows=arm.cfg.trainer.micro_batch_rows, on_event=go_on)
    return state.step


def _fresh_state(arm: Arm, objective: Objective, total_steps: int) -> TrainState:
    cfg, trainer = arm.cfg, arm.cfg.trainer
    scale = partial(rate_scale, cfg, objective.encoder.cfg.layers)
    updater = Updater(objective, cfg.optim, cfg.schedule, total_steps, scale)
    return TrainState(objective, updater, arm.device, trainer.precision, compiles(trainer, arm.device, unasked=False))


def stopped(name: str) -> UserError:
    """What is said when the user stops a run before its end."""
    return UserError(f"stopped in {name}: seeds that are done are kept, and the same command goes on from there")


def _try_out(arm: Arm, tuned: FineTuned, split: Split) -> tuple[str, float]:
    metric = arm.cfg.task.primary.value
    return metric, arm.score(tuned, split).values[metric]


def examine(arm: Arm, cell: Cell, done: dict[str, Any], folder: Path, wandb_log: WandbLog) -> dict[str, Any]:
    """Answer the reported split, write model and predictions, read the model back; returns what scores.json says."""
    dev, task, tuned = arm.dev.examples, arm.cfg.task, cell.tuned
    found = arm.kind.decide(dev, tuned.answer(arm.dev.tokens), arm.how)
    scores = arm.kind.score(found, arm.how.labels)
    value = scores.values[task.primary.value]
    predictions = Predictions.of(
        found,
        task=task.name,
        split="dev",
        seed=cell.seed,
        foundation=cell.beginning.foundation,
        sharing=arm.cfg.sharing.method.value,
        arm=arm.start.name,
        data_shard=arm.cfg.shard or ALL_ROWS,
    )
    write_predictions(folder / PREDICTIONS_FILE, [predictions])
    manifest = manifest_of(tuned.objective.state_dict())
    write_manifest(folder / TENSORS_FILE, manifest)
    kept = _keep_model(arm, cell, folder / "final", scores.values) if arm.cfg.keep_models else {}
    costs = measure(tuned.objective, manifest, cell.beginning.weights, folder / "final" if kept else None)
    _show(wandb_log, predictions, dev)
    if kept:
        wandb_log.log_model(folder / "final", kept["info"]["name"], "finetuned", kept["info"])
    return {
        **done,
        "foundation": cell.beginning.foundation,
        "value": value,
        "collapsed": is_collapsed(task.primary, value, arm.baseline),
        **to_plain(scores),
        "model": kept.get("model"),
        "reload_difference": kept.get("reload_difference"),
        "costs": to_plain(costs),
        "passes": to_plain(arm.passes),
        "peak_memory_bytes": peak_memory_bytes(arm.device.type),
    }


def _keep_model(arm: Arm, cell: Cell, final: Path, values: dict[str, float]) -> dict[str, Any]:
    """Write the model: whole, or what the task has of its own; and read it back."""
    tuned, task, sharing = cell.tuned, arm.cfg.task, arm.cfg.sharing
    info = {
        "name": f"{arm.start.name}/{task.name}/seed-{cell.seed}",
        "parent": cell.beginning.foundation,
        "foundation": arm.start.foundation.fingerprint,
        "tokenizer": tuned.tokenizer.fingerprint,
        "sharing": to_plain(sharing),
        "scores": values,
    }
    shares = None if sharing.method is SharingMethod.full else cell.beginning.weights
    model = tuned.save(final, info, _card(info, task.primary.value), shares=shares)
    difference = check_reload(tuned, final, arm.dev.examples)
    return {"info": info, "model": model, "reload_difference": difference}


def _show(wandb_log: WandbLog, predictions: Predictions, dev: Examples) -> None:
    """The copies that wandb gets besides the curves."""
    if not wandb_log.active:
        return
    texts = dict(zip(dev.ids, dev.text, strict=True))
    groups = predictions.groups or predictions.item_ids
    text = [texts.get(item) or texts.get(group, "") for item, group in zip(predictions.item_ids, groups, strict=True)]
    columns = zip(predictions.item_ids, text, predictions.gold.tolist(), predictions.predicted.tolist(), strict=True)
    rows = [list(row) for row in columns][:_TABLE_ROWS]
    wandb_log.log_table("predictions", ["item", "text", "gold", "predicted"], rows)


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
