"""Everything about a pretraining run, and what the rooms' settings have to do with one another."""

from dataclasses import dataclass, fields
from pathlib import Path

from foundation.core.config import LoggerConfig
from foundation.core.errors import UserError
from foundation.data.config import BatchesConfig, DataConfig, TokenizerConfig
from foundation.model.config import ModelConfig
from foundation.objective.config import ObjectiveConfig, SentenceTask
from foundation.train.config import OptimConfig, ScheduleConfig, TrainerConfig
from foundation.train.duration import Duration

# Settings that a resumed run may change: they say where and how fast, not what.
SPEED_ONLY = frozenset(
    {"logger", "resume", "runs_dir"} | {f"trainer.{f.name}" for f in fields(TrainerConfig) if f.name != "precision"}
)


@dataclass(kw_only=True, slots=True)
class PretrainConfig:
    """Everything about a pretraining run. resume: false; true; auto (go on with the run if there is one, else start it); again
    (clear it away first: for names that begin with debug).

    init: a foundation, by NAME or FOLDER, whose weights, shape and tokenizer it begins with; None: fresh weights.
    ema_decay: of a moving average of the weights, a step (train/averaging.py); it is what is examined and kept. 0: none.
    """

    name: str
    seed: int = 0
    runs_dir: str = "runs"
    resume: str = "false"
    init: str | None = None
    steps: int | None = None
    tokens: float | None = None
    epochs: float | None = None
    budget: str | None = None
    ema_decay: float = 0.0
    data: DataConfig
    tokenizer: TokenizerConfig
    model: ModelConfig
    objective: ObjectiveConfig
    batches: BatchesConfig
    optim: OptimConfig
    schedule: ScheduleConfig
    trainer: TrainerConfig
    logger: LoggerConfig

    @property
    def duration(self) -> Duration:
        """How long."""
        return Duration(steps=self.steps, tokens=self.tokens, epochs=self.epochs, budget=self.budget)

    def check(self) -> None:
        """Raise UserError with all problems that can be seen before any work is done."""
        problems = []
        for part in (self.duration, self.model, self.objective, self.batches):
            try:
                part.check()
            except UserError as error:
                problems.append(str(error))
        for room in (self.optim, self.schedule, self.trainer, self.logger):
            problems += room.problems()
        if self.batches.seq_len > self.model.max_seq_len:
            problems.append(
                f"batches.seq_len={self.batches.seq_len} is beyond the model's positions (model.max_seq_len="
                f"{self.model.max_seq_len}): lower the one or raise the other"
            )
        if self.model.vocab_size != self.tokenizer.vocab_size:
            problems.append(
                f"model.vocab_size={self.model.vocab_size} is not tokenizer.vocab_size={self.tokenizer.vocab_size}"
            )
        if self.objective.sentence_task is not SentenceTask.none and self.batches.fewest_rows < 4:
            problems.append(
                f"a sentence task needs at least 4 rows in every step, not {self.batches.fewest_rows}: raise "
                "batches.rows_per_step, or batches.ramp_from where there is one"
            )
        if not 0 <= self.ema_decay < 1:
            problems.append(f"ema_decay={self.ema_decay} must be in [0, 1); 0 leaves the weights as they are")
        if self.tokenizer.min_frequency < 1:
            problems.append(f"tokenizer.min_frequency={self.tokenizer.min_frequency} must be at least 1")
        if not self.name or ".." in Path(self.name).parts or Path(self.name).is_absolute():
            problems.append(f"name={self.name} must name a folder inside runs_dir={self.runs_dir}")
        if self.resume.lower() not in ("true", "false", "auto", "again"):
            problems.append(f"resume={self.resume} must be true, false, auto or again")
        if self.resume.lower() == "again" and not self.name.startswith("debug"):
            problems.append(
                f"resume=again clears the run before it away, and name={self.name} is none of debugging (debug…)"
            )
        if problems:
            raise UserError("; ".join(problems))
