"""Several tasks trained together: one encoder, a head a task. Results lie where those of each task alone would lie."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from foundation.core.distributed import is_main, main_first
from foundation.core.errors import UserError
from foundation.core.files import write_json
from foundation.core.memory import PeakMemory
from foundation.core.randomness import RowRng
from foundation.data.batches import Batch
from foundation.model.sharing.config import MultitaskConfig, Sampler
from foundation.objective.base import Example, Objective
from foundation.task.batches import TaskBatches
from foundation.task.cell import Arm, Cell, begin_cell, examine, run_steps, settle, stopped, wandb_of
from foundation.task.examples import TaskData
from foundation.task.heads import TaskObjective
from foundation.task.protocol import finish_arm, is_done, open_arm
from foundation.task.results import SCORES_FILE, ArmResult
from foundation.task.study_config import FinetuneConfig
from foundation.task.watch import Watch, logs
from foundation.train.foundation import Foundation, load_foundation, save_foundation


def task_of_steps(cfg: MultitaskConfig, n_rows: Sequence[int], total_steps: int) -> NDArray[np.int64]:
    """(total_steps,): whose rows each step has; every task's steps lie evenly over the run, and it has one at least.

    A function of its arguments: the i-th of a task's n steps stands at (i + ½) / n of the run.
    """
    rows = np.array(n_rows, dtype=np.float64)
    match cfg.sampler:
        case Sampler.uniform:
            weights = np.ones_like(rows)
        case Sampler.proportional:
            weights = rows
        case Sampler.temperature:
            weights = rows ** (1 / cfg.temperature)
    ends = np.round(np.cumsum(weights) / weights.sum() * total_steps).astype(np.int64)
    counts = np.maximum(np.diff(ends, prepend=0), 1)
    tasks = np.repeat(np.arange(len(counts)), counts)
    places = np.concatenate([(np.arange(n) + 0.5) / n for n in counts])
    return tasks[np.argsort(places, kind="stable")]


class MultitaskBatches:
    """The batches of several tasks, one task a step; `at` is pure."""

    def __init__(self, batches: Sequence[TaskBatches], tasks: NDArray[np.int64]) -> None:
        self.batches, self.tasks = batches, tasks
        # How many steps before this one its task has had.
        is_task = tasks[:, None] == np.arange(len(batches))
        self._earlier = (is_task.cumsum(0) - 1)[np.arange(len(tasks)), tasks]

    def at(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """This rank's rows of a step."""
        return self.batches[self.tasks[step]].at(int(self._earlier[step]), rank, world)


class MultitaskObjective(Objective):
    """Objectives of several tasks over one encoder; a step asks one of them."""

    def __init__(self, objectives: Sequence[TaskObjective], tasks: NDArray[np.int64]) -> None:
        super().__init__()
        self.encoder = objectives[0].encoder
        self.heads = nn.ModuleList(objective.heads for objective in objectives)
        self.terms = ("task",)
        self.tasks = tasks
        # A tuple is no part of the module: encoder and heads have their names once.
        self._objectives = tuple(objectives)

    def corrupt(self, batch: Batch, rng: RowRng, progress: float) -> Example:
        """As the step's task has it."""
        task = int(self.tasks[rng.step])
        return replace(self._objectives[task].corrupt(batch, rng, progress), task=task)

    def count(self, example: Example) -> Tensor:
        """(1,): targets of the task."""
        return self._objectives[example.task].count(example)

    def forward(self, example: Example, totals: Tensor) -> Tensor:
        """(1,): this part's share of the step's mean."""
        share: Tensor = self._objectives[example.task](example, totals)
        return share


# What one training of all tasks has once; rows, batches, epochs and heads are each task's own.
_ONCE = ("optim", "schedule", "sharing", "dropout", "reinit_layers", "layer_lr_decay")


def refuse_differences(cfgs: Sequence[FinetuneConfig]) -> None:
    """Raise UserError, naming the tasks, where two that are to be trained together differ in what their training has once."""
    for first, cfg in pairwise(cfgs):
        if names := [name for name in _ONCE if getattr(cfg, name) != getattr(first, name)]:
            raise UserError(
                f"{first.task.name} and {cfg.task.name} are given different {' and '.join(names)}: sharing=multitask trains all "
                "tasks at once, so leave that out of task.settings, or choose the tasks without any: task=suite 'task.tasks=[…]'"
            )


@dataclass(frozen=True, slots=True)
class Together:
    """A task's arm among those that are trained together, and its data."""

    arm: Arm
    data: TaskData


def run_multitask(members: list[Together], folder: Path) -> list[ArmResult]:
    """Run the seeds in which a task's cell is missing, then collect every task's. folder: of the encoders."""
    names = [member.arm.cfg.task.name for member in members]
    # What a task's cell gives depends on all that it was trained with.
    company = {name: member.arm.settings["examples"] for name, member in zip(names, members, strict=True)}
    together = [replace(member.arm, settings={**member.arm.settings, "together": company}) for member in members]
    with ExitStack() as stack:
        runs = [stack.enter_context(open_arm(arm)) for arm in together]
        started = time.perf_counter()
        first = together[0].cfg
        for seed in range(first.seed, first.seed + first.seeds):
            if not all(is_done(arm, seed) for arm in together):
                _run_seed(together, seed, folder / f"seed-{seed}", runs[0].id)
        seconds = (time.perf_counter() - started) / len(members)
        return [
            finish_arm(arm, member.data, run, seconds) for arm, member, run in zip(together, members, runs, strict=True)
        ]


def _run_seed(arms: list[Arm], seed: int, folder: Path, run_id: str) -> None:
    """One training of all tasks; their scores.json come last."""
    first = arms[0]
    settle(first, seed)
    started = time.perf_counter()
    name = f"{'+'.join(arm.cfg.task.name for arm in arms)}/{first.start.name}/seed-{seed}"
    if is_main():
        folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with PeakMemory(first.device.type) as peak:
            cells = [begin_cell(arm, seed) for arm in arms]
            objective, batches = _together(arms, cells)
            wandb_log = wandb_of(first, seed, folder, run_id, name)
            total_steps = len(batches.tasks)
            logger = stack.enter_context(logs(folder, first.cfg.logger, total_steps, wandb_log, name))
            watch = Watch(objective, logger, steps_per_epoch=total_steps)
            steps = run_steps(first, objective, batches, watch, total_steps=total_steps, seed=seed)
        if steps < total_steps:
            raise stopped(name)
        with main_first():
            if is_main():
                seconds = (time.perf_counter() - started) / len(arms)
                measured = {"training_memory_bytes": peak.bytes, "seconds": seconds}
                encoder = _save_encoder(first, objective, folder / "encoder", name)
                for arm, cell in zip(arms, cells, strict=True):
                    shared = replace(cell, beginning=replace(cell.beginning, weights=encoder))
                    done = {"seed": seed, "steps": steps, "epoch_kept": cell.epochs}
                    task_folder = arm.start.folder / f"seed-{seed}"
                    task_folder.mkdir(parents=True, exist_ok=True)
                    record: dict[str, Any] = examine(arm, shared, done, task_folder, wandb_log)
                    write_json(task_folder / SCORES_FILE, record | measured)


def _together(arms: list[Arm], cells: list[Cell]) -> tuple[MultitaskObjective, MultitaskBatches]:
    """As many steps as all tasks would have alone, over the encoder of the first."""
    sharing = arms[0].cfg.sharing
    assert isinstance(sharing, MultitaskConfig)
    total_steps = sum(cell.total_steps for cell in cells)
    tasks = task_of_steps(sharing, [len(cell.batches) for cell in cells], total_steps)
    objectives = [cell.tuned.objective for cell in cells]
    for objective in objectives[1:]:
        objective.encoder = objectives[0].encoder
    return MultitaskObjective(objectives, tasks), MultitaskBatches([cell.batches for cell in cells], tasks)


def _save_encoder(arm: Arm, objective: MultitaskObjective, folder: Path, name: str) -> Foundation:
    """The encoder of all tasks, once; each task's folder then holds its head, and names this one."""
    state = {f"encoder.{key}": tensor for key, tensor in objective.encoder.state_dict().items()}
    info = {"name": name, "parent": arm.start.foundation.fingerprint, "seq_len": arm.start.seq_len}
    card = f"# {name}\n\nAn encoder that several tasks trained together: `{{fingerprint}}`.\n"
    save_foundation(folder, state, objective.encoder.cfg, arm.start.foundation.tokenizer, info, card)
    return load_foundation(folder)
