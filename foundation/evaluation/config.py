"""What a foundation is asked as it is, without any training."""

from dataclasses import dataclass, field

from foundation.core.errors import UserError
from foundation.objective.config import MaskUnit
from foundation.train.config import DeviceConfig


@dataclass(kw_only=True, slots=True)
class EvaluationConfig:
    """What all kinds share.

    name: of the folder below <run>/evaluation/ that the results go to. files: texts or pairs. origin: where they can be had.
    """

    name: str
    files: list[str] = field(default_factory=list)
    origin: str | None = None

    def problems(self) -> list[str]:
        """What cannot work, one sentence each."""
        if self.name in ("", ".", "..") or "/" in self.name:
            return [f"evaluation.name={self.name} must be the name of a folder"]
        return []


@dataclass(kw_only=True, slots=True)
class HeldOutConfig(EvaluationConfig):
    """Masked tokens, and sentence pairs where pretraining had them, of text that was never trained on.

    files: any text; none: the held-out documents of the foundation's own corpus. rows: at most so many sequences.
    unit: what is hidden. whole_word is fairer between tokenizers: half a word does not give the other half away.
    """

    text_column: str = "text"
    rows: int = 4096
    unit: MaskUnit = MaskUnit.token

    def problems(self) -> list[str]:
        """What cannot work, one sentence each."""
        found = EvaluationConfig.problems(self)
        if self.rows < 1:
            found.append(f"evaluation.rows={self.rows} must be at least 1")
        return found


@dataclass(kw_only=True, slots=True)
class MinimalPairsConfig(EvaluationConfig):
    """Pairs of sentences, one acceptable and one not: which does the foundation find likelier?

    files: .jsonl, plain or .gz. good, bad, paradigm: their columns; a file without the column `paradigm` is one
    paradigm, named after the file. max_pairs: the first so many of each paradigm; null: all. ngram_order: of the baseline;
    0: no baselines. ngram_tokens: the baselines see at most so many tokens of the corpus. batch_tokens: of a forward pass, about.
    """

    good: str = "sentence_good"
    bad: str = "sentence_bad"
    paradigm: str = "UID"
    max_pairs: int | None = None
    ngram_order: int = 5
    ngram_tokens: int = 20_000_000
    batch_tokens: int = 8192

    def problems(self) -> list[str]:
        """What cannot work, one sentence each."""
        found = EvaluationConfig.problems(self)
        if not self.files:
            found.append("there are no pairs: name their files, as in 'evaluation.files=[my_pairs.jsonl]'")
        if self.max_pairs is not None and self.max_pairs < 1:
            found.append(f"evaluation.max_pairs={self.max_pairs} must be at least 1, or null for all")
        if self.ngram_order not in range(10):
            found.append(f"evaluation.ngram_order={self.ngram_order} must be in 0 … 9")
        found += [
            f"evaluation.{name}={getattr(self, name)} must be at least 1"
            for name in ("ngram_tokens", "batch_tokens")
            if getattr(self, name) < 1
        ]
        return found


@dataclass(kw_only=True, slots=True)
class EvaluateConfig:
    """foundation: NAME (of <runs_dir>/NAME/final) or a folder."""

    foundation: str = "small"
    runs_dir: str = "runs"
    evaluation: EvaluationConfig
    trainer: DeviceConfig

    def check(self) -> None:
        """Raise UserError with every problem at once."""
        if found := self.evaluation.problems() + self.trainer.problems():
            raise UserError("; ".join(found))
