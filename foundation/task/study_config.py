"""How tasks are fine-tuned: from which foundation, in which arms and seeds, what may change, how long and how carefully."""

import re
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from foundation.core.config import LoggerConfig
from foundation.core.errors import UserError
from foundation.model.sharing.config import SharingConfig, SharingMethod, TopLayersConfig
from foundation.task.config import Pooling, TaskConfig
from foundation.train.config import AdamWConfig, OptimConfig, ScheduleConfig, TrainerConfig


class Keep(str, Enum):
    """last: the weights after the last epoch. best: of the epoch that does best on rows of train set aside for it."""

    last = "last"
    best = "best"


# What tasks of a suite may each have of their own: how long and how carefully, not what is compared.
_OF_A_TASK = (
    *("epochs", "min_steps", "batch_rows", "dropout", "pooling", "keep", "selection_share", "patience"),
    *("scratch_lr", "reinit_layers", "layer_lr_decay", "max_train", "subset", "optim", "schedule", "sharing"),
)

SCRATCH, SMALL = "scratch", "small"
# Of n_train: all training rows.
FULL = "full"


@dataclass(kw_only=True, slots=True)
class SuiteConfig(TaskConfig):
    """Several tasks, by the names of their files in conf/task/, each fine-tuned as it would be alone.

    parents: task -> task of the suite whose fine-tuned encoder it starts from (Phang et al. 2018, STILTs).
    settings: task -> setting -> value, where what the suite has does not suit a task; of both arms.
    """

    tasks: list[str]
    parents: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def problems(self) -> list[str]:
        """What cannot work, one sentence each."""
        found = []
        if len(self.tasks) < 1 or len(set(self.tasks)) < len(self.tasks):
            found.append("task.tasks must name tasks, each once: task=suite 'task.tasks=[sst2,mrpc]'")
        plain = TaskConfig(name=self.name)
        own = [f.name for f in fields(TaskConfig) if getattr(self, f.name) != getattr(plain, f.name)]
        if own:
            found.append(f"a suite has no data of its own: leave out task.{own[0]}, or choose a single task")
        for task, parent in self.parents.items():
            if task not in self.tasks or parent not in self.tasks:
                found.append(f"task.parents has {task}: {parent}, and both must be among task.tasks")
        for task, own in self.settings.items():
            if task not in self.tasks:
                found.append(f"task.settings has {task}, which must be among task.tasks")
            if not isinstance(own, dict):
                found.append(f"task.settings gives {task} {own}: write settings, as in {{{task}: {{epochs: 5}}}}")
                continue
            found += [
                f"task.settings gives {task} {key}, which is none of those that a task may have: {', '.join(_OF_A_TASK)}"
                for key in own
                if key.split(".")[0] not in _OF_A_TASK
            ]
            if _chooses_sharing(own):
                found.append(
                    f"task.settings gives {task} another way of sharing: that is one for all tasks (sharing=, or several side by "
                    "side, methods=); a task may have settings of it, as sharing.lr_scale"
                )
        if not found and len(self.in_order()) < len(self.tasks):
            found.append("task.parents goes in a circle: a task cannot come after itself")
        return found

    def in_order(self) -> list[str]:
        """The tasks, parents first; those that stand in a circle are left out."""
        done: list[str] = []
        for _ in self.tasks:
            done += [
                task
                for task in self.tasks
                if task not in done and (task not in self.parents or self.parents[task] in done)
            ]
        return done


def _chooses_sharing(own: dict[str, Any]) -> bool:
    """Whether a task's own settings name a method, not only what a method can be told."""
    way = own.get("sharing", {})
    return not isinstance(way, dict) or "method" in way or "sharing.method" in own


@dataclass(kw_only=True, slots=True)
class FinetuneConfig:
    """One task or a suite, several seeds, one or two arms.

    foundation, compare: NAME (of <runs_dir>/NAME/final), a folder, or `scratch`: random weights, every one of them trained
    whatever `sharing` is. like: gives scratch its shape and tokenizer; null: the foundation beside it does.
    parent: start from the encoder of another task's fine-tune, by the task's name or a folder.
    seeds: how many, counted from `seed`.
    name: the arm's folder, when not the sharing method; in a comparison of `methods`, what stands before it.
    methods: sharing methods to compare, by the names of their files; n_train: sizes of a few-shot curve, of n_subsets draws.
    pooling: mean by default, since a small foundation trained without a sentence task has learnt nothing in its [CLS].
    dropout: in the encoder and in the head, whatever pretraining had.
    max_train: so many training rows; subset: which draw of them. Draws are nested (100 rows are among 200) and stratified.
    shard: i/k trains on the i-th of k disjoint parts of the training rows, before max_train.
    min_steps: on few rows, epochs are added up to so many steps (Mosbach et al. 2021, 6: small data sets need more of them).
    selection_share: with keep=best, the part of train that picks the epoch; never the reported split.
    patience: with keep=best, stop after so many epochs without a better one; 0: never.
    reinit_layers: so many of the last layers start from random weights (Zhang et al. 2021, 4).
    layer_lr_decay: the rate of a layer is that of the layer above times this (Howard & Ruder 2018; Zhang et al. 2021, 6).
    scratch_lr: rate of random weights in place of optim.lr, so that both arms can be given the one that suits them.
    keep_models: false keeps scores and predictions only.
    jobs: so many seeds, of whichever arm and task, at a time, in processes of trainer.threads threads each (0: the cores
    divided among them), which take the GPUs in turn. Seeds trained together by sharing=multitask run one after the other.
    """

    foundation: str = SMALL
    compare: str | None = None
    like: str | None = None
    parent: str | None = None
    name: str | None = None
    seeds: int = 3
    seed: int = 0
    runs_dir: str = "runs"
    methods: list[str] = field(default_factory=list)
    n_train: list[str] = field(default_factory=list)
    n_subsets: int = 5
    epochs: int = 3
    min_steps: int = 100
    batch_rows: int = 32
    dropout: float = 0.1
    pooling: Pooling = Pooling.mean
    keep: Keep = Keep.last
    selection_share: float = 0.1
    patience: int = 0
    reinit_layers: int = 0
    layer_lr_decay: float = 1.0
    scratch_lr: float | None = None
    max_train: int | None = None
    subset: int = 0
    shard: str | None = None
    keep_models: bool = True
    jobs: int = 1
    task: TaskConfig
    sharing: SharingConfig
    optim: OptimConfig
    schedule: ScheduleConfig
    trainer: TrainerConfig
    logger: LoggerConfig

    @property
    def is_suite(self) -> bool:
        """Whether `task` names several."""
        return isinstance(self.task, SuiteConfig)

    @property
    def shape_of_scratch(self) -> str:
        """The foundation whose shape and tokenizer random weights take; where there is none beside them, the small one."""
        beside = [spec for spec in (self.like, self.foundation, self.compare) if spec not in (None, SCRATCH)]
        return beside[0] if beside else SMALL

    @property
    def shard_of(self) -> tuple[int, int]:
        """(i, k) of shard, counted from 0; all rows are part 0 of 1."""
        part, parts = (self.shard or "1/1").split("/")
        return int(part) - 1, int(parts)

    def check(self) -> None:
        """Raise UserError with all problems that can be seen before any work is done."""
        rooms = (self.task, self.sharing, self.optim, self.schedule, self.trainer, self.logger)
        found = [problem for room in rooms for problem in room.problems()]
        found += [
            f"{name}={getattr(self, name)} must be at least {least}"
            for names, least in ((("seeds", "epochs", "batch_rows", "n_subsets", "jobs"), 1), (_NOT_NEGATIVE, 0))
            for name in names
            if getattr(self, name) < least
        ]
        if self.scratch_lr is not None and self.scratch_lr <= 0:
            found.append(f"scratch_lr={self.scratch_lr} must be above 0, or null for that of the foundation")
        if not 0 <= self.dropout < 1:
            found.append(f"dropout={self.dropout} must be in [0, 1)")
        if not 0 < self.selection_share < 1:
            found.append(f"selection_share={self.selection_share} must be between 0 and 1")
        if not 0 < self.layer_lr_decay <= 1:
            found.append(f"layer_lr_decay={self.layer_lr_decay} must be in (0, 1]")
        if self.compare is not None and self.compare == self.foundation:
            found.append(f"compare={self.compare} is the foundation itself: name another, or compare=scratch")
        found += self._problems_of_rows() + self._problems_together()
        if found:
            raise UserError("; ".join(found))

    def _problems_of_rows(self) -> list[str]:
        found = []
        if self.max_train is not None and self.max_train < 2:
            found.append(f"max_train={self.max_train} must be at least 2, or null for all rows")
        match = re.fullmatch(r"(\d+)/(\d+)", self.shard or "1/1")
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            found.append(f"shard={self.shard} must be i/k with i from 1 to k, as in shard=1/4")
        for size in self.n_train:
            if size != FULL and not (size.isdecimal() and int(size) >= 2):
                found.append(f"n_train has {size}: sizes are at least 2, or {FULL}")
        if self.n_train and self.max_train is not None:
            found.append("n_train and max_train both say how many rows: leave out one")
        return found

    def _problems_together(self) -> list[str]:
        """Settings that do not go with one another."""
        found = []
        method = self.sharing.method
        top = self.sharing.layers if isinstance(self.sharing, TopLayersConfig) else 0
        if self.reinit_layers > top and method not in (SharingMethod.full, SharingMethod.multitask):
            found.append(
                f"reinit_layers={self.reinit_layers} makes layers random that sharing={method.value} never trains"
            )
        if self.patience and self.keep is not Keep.best:
            found.append(f"patience={self.patience} needs keep=best, whose rows say when an epoch is no better")
        if method is SharingMethod.multitask and self.keep is Keep.best:
            found.append("keep=best picks an epoch for one task: with sharing=multitask use keep=last")
        if method is SharingMethod.multitask and self.parent is not None:
            found.append(f"parent={self.parent} is for a task alone: sharing=multitask trains all tasks at once")
        if method is SharingMethod.multitask and self.foundation == SCRATCH:
            found.append(
                "foundation=scratch shares nothing: sharing=multitask needs a foundation, with compare=scratch"
            )
        if self.foundation == SCRATCH and self.parent is not None:
            found.append(f"foundation=scratch starts from nothing: leave out parent={self.parent}")
        if self.scratch_lr is not None and not isinstance(self.optim, AdamWConfig):
            found.append("scratch_lr stands for optim.lr, which only optim=adamw_finetune and adamw have")
        if self.is_suite and self.n_train:
            found.append("a few-shot curve (n_train) is drawn for one task at a time: choose a single one")
        if self.methods and self.n_train:
            found.append("methods and n_train are two different studies: leave out one")
        return found


_NOT_NEGATIVE = ("seed", "min_steps", "patience", "reinit_layers", "subset")
