"""What is hidden, what is asked, and how the answers are weighed."""

from dataclasses import dataclass, field
from enum import Enum

from foundation.core.errors import UserError


class SentenceTask(str, Enum):
    """none; nsp: does B follow A (Devlin et al. 2019); sop: are A and B in order (Lan et al. 2020)."""

    none = "none"
    nsp = "nsp"
    sop = "sop"


class MaskUnit(str, Enum):
    """token; whole_word: all pieces of a word or none (Google's 2019 release); span: runs of tokens (Joshi et al. 2020)."""

    token = "token"
    whole_word = "whole_word"
    span = "span"


@dataclass(kw_only=True, slots=True)
class MaskingConfig:
    """rate moves in a straight line from `rate` at the first step to `final_rate` at the last. mean_span is in tokens."""

    rate: float = 0.15
    final_rate: float = 0.15
    unit: MaskUnit = MaskUnit.token
    mean_span: float = 3.0
    mask_share: float = 0.8
    random_share: float = 0.1

    def problems(self) -> list[str]:
        """What cannot work, one sentence each."""
        found = [
            f"objective.masking.{name}={getattr(self, name)} must be in (0, 1)"
            for name in ("rate", "final_rate")
            if not 0 < getattr(self, name) < 1
        ]
        if min(self.mask_share, self.random_share) < 0 or self.mask_share + self.random_share > 1:
            found.append("objective.masking.mask_share and random_share must be at least 0 and sum to at most 1")
        if self.mean_span < 1:
            found.append(f"objective.masking.mean_span={self.mean_span} must be at least 1 token")
        return found


@dataclass(kw_only=True, slots=True)
class DocumentWordsConfig:
    """Words of the rest of the document, predicted from a row as a whole; the loss is multiplied by weight, 0: not asked.

    per_row: tokens drawn for each row. threshold: a token that is a larger share of the corpus counts √(threshold / share)
    (Mikolov et al. 2013, 2.3, who leave it out so often), so that the answer is what the text is about and not "the".
    """

    weight: float = 0.0
    per_row: int = 128
    threshold: float = 1.0e-3

    def problems(self) -> list[str]:
        """What cannot work, one sentence each."""
        found = []
        if self.weight < 0:
            found.append(f"objective.document_words.weight={self.weight} must be at least 0, which asks for none")
        if self.per_row < 1:
            found.append(f"objective.document_words.per_row={self.per_row} must be at least 1 token")
        if not 0 < self.threshold <= 1:
            found.append(f"objective.document_words.threshold={self.threshold} must be in (0, 1]")
        return found


@dataclass(kw_only=True, slots=True)
class DetectionConfig:
    """Which tokens in sight are spoilt, asked of each; the loss is multiplied by weight, 0: nothing is spoilt, nothing asked.

    rate: share of the windows of four tokens in which one or two are spoilt. swap_share: of these, windows in which two
    tokens change places; in the others one is overwritten with a copy of another token of the row.
    """

    weight: float = 0.0
    rate: float = 0.3
    swap_share: float = 0.5

    def problems(self) -> list[str]:
        """What cannot work, one sentence each."""
        found = []
        if self.weight < 0:
            found.append(f"objective.detection.weight={self.weight} must be at least 0, which asks for nothing")
        if not 0 < self.rate <= 1:
            found.append(f"objective.detection.rate={self.rate} must be in (0, 1]")
        if not 0 <= self.swap_share <= 1:
            found.append(f"objective.detection.swap_share={self.swap_share} must be in [0, 1]")
        return found


@dataclass(kw_only=True, slots=True)
class ObjectiveConfig:
    """Masked language modelling; with or without a sentence task, whose loss is multiplied by sentence_weight; words of the
    document; and the detection of spoilt tokens. z_loss_weight: of the mean of (ln Z)², Z what the softmax over the vocabulary
    divides by, which keeps logits from drifting (Chowdhery et al. 2022, PaLM, 5: 1e-4)."""

    masking: MaskingConfig
    sentence_task: SentenceTask = SentenceTask.none
    sentence_weight: float = 1.0
    document_words: DocumentWordsConfig = field(default_factory=DocumentWordsConfig)
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    z_loss_weight: float = 0.0

    def predictions_per_token(self, seq_len: int) -> float:
        """How often the vocabulary is asked, for each token that is read: of the masked, on average over the run, and of rows."""
        masked = (self.masking.rate + self.masking.final_rate) / 2
        return masked + (1 / seq_len if self.document_words.weight else 0.0)

    def check(self) -> None:
        """Raise UserError with every problem at once."""
        found = self.masking.problems() + self.document_words.problems() + self.detection.problems()
        for name in ("sentence_weight", "z_loss_weight"):
            if not getattr(self, name) >= 0:
                found.append(f"objective.{name}={getattr(self, name)} must be at least 0, which leaves it out")
        if found:
            raise UserError("; ".join(found))
