"""What is measured, and against whom."""

from dataclasses import dataclass, field
from enum import Enum

from foundation.core.errors import UserError
from foundation.data.config import DataConfig
from foundation.train.config import DeviceConfig, Precision


class Padding(str, Enum):
    """How the peer's rows become a rectangle: to the longest allowed, to the longest of a batch, or of a batch of like ones."""

    maximum = "maximum"
    batch = "batch"
    grouped = "grouped"


@dataclass(kw_only=True, slots=True)
class PeerConfig:
    """One way of using the peer. rows: of an optimizer step; 0: as many as ours. is_default: what its script does unasked.

    keeps_memory: freed memory stays with the process, as in our own runs (core/memory.py); no script of the peer's sees to it.
    gathers: in pretraining, its head works at the masked positions only. No setting of its class does that: some lines around it.
    """

    name: str
    precision: Precision = Precision.fp32
    compiled: bool = False
    rows: int = 0
    padding: Padding = Padding.maximum
    is_default: bool = False
    keeps_memory: bool = False
    gathers: bool = False


@dataclass(kw_only=True, slots=True)
class SizeConfig:
    """The shape of a BERT; the feed-forward width is four times the width, as in all of Devlin et al. 2019."""

    layers: int
    width: int
    heads: int
    vocab_size: int


@dataclass(kw_only=True, slots=True)
class PretrainingCase:
    """A pretraining step, MLM and NSP. rows: sequences of an optimizer step. seq_len: most tokens of one.

    apart: beside one way of using the peer at a time, each a case of its own, where all at once would not fit into memory.
    """

    name: str
    size: SizeConfig
    seq_len: int
    rows: int
    apart: bool = False


@dataclass(kw_only=True, slots=True)
class FinetuningCase:
    """An epoch over `texts` texts of a classification task, whose lengths in words are log-normal around their median.

    epoch_rows: of the task that the lengths are like; the time of its epoch is worked out from the texts'.
    """

    name: str
    size: SizeConfig
    seq_len: int
    rows: int
    texts: int
    median_words: float
    spread: float
    epoch_rows: int


@dataclass(kw_only=True, slots=True)
class PreparationCase:
    """Text files to token ids on disk, with a tokenizer that is there."""

    name: str
    words: int
    vocab_size: int


@dataclass(kw_only=True, slots=True)
class StartupCase:
    """Seconds until a command answers. until_step: stop the clock at the first step that is logged, not at the end.

    status: that the command ends with; any other is a failure, and no measurement.
    against_imports: beside what run_mlm.py imports before it can do anything.
    """

    name: str
    command: list[str]
    status: int = 0
    until_step: bool = False
    against_imports: bool = False


@dataclass(kw_only=True, slots=True)
class CheckpointCase:
    """Weights and optimizer to disk, and back."""

    name: str
    size: SizeConfig


@dataclass(kw_only=True, slots=True)
class CasesConfig:
    """A set of cases."""

    pretraining: list[PretrainingCase] = field(default_factory=list)
    pretraining_peers: list[PeerConfig] = field(default_factory=list)
    finetuning: list[FinetuningCase] = field(default_factory=list)
    finetuning_peers: list[PeerConfig] = field(default_factory=list)
    preparation: list[PreparationCase] = field(default_factory=list)
    startup: list[StartupCase] = field(default_factory=list)
    checkpoint: list[CheckpointCase] = field(default_factory=list)


@dataclass(kw_only=True, slots=True)
class BenchConfig:
    """rounds: every contender has its turn in each. round_seconds: of a turn, about; a turn is whole steps.

    only: cases whose names hold this. peers: false leaves Hugging Face out. data: the text.
    """

    name: str
    runs_dir: str = "runs"
    rounds: int = 5
    round_seconds: float = 3.0
    only: str | None = None
    peers: bool = True
    bench: CasesConfig
    data: DataConfig
    trainer: DeviceConfig

    def check(self) -> None:
        """Raise UserError with every problem at once."""
        found = [
            f"{name}={getattr(self, name)} must be positive"
            for name in ("rounds", "round_seconds")
            if getattr(self, name) <= 0
        ] + self.trainer.problems()
        found += [
            f"{peer.name}: gathers=true is of pretraining; in fine-tuning nothing is predicted at tokens: leave it out"
            for peer in self.bench.finetuning_peers
            if peer.gathers
        ]
        if "/" in self.name or not self.name:
            found.append(f"name={self.name} must be the name of a folder")
        names = self.case_names()
        if len(set(names)) < len(names):
            found.append("two cases have the same name: give each its own")
        if self.only is not None and not any(self.only in name for name in names):
            found.append(f"only={self.only} is in no case's name: there are {', '.join(names)}")
        if found:
            raise UserError("; ".join(found))

    def case_names(self) -> list[str]:
        """Of all cases, in the order they are run in."""
        cases = self.bench
        groups = (cases.startup, cases.preparation, cases.checkpoint, cases.pretraining, cases.finetuning)
        return [case.name for group in groups for case in group]
