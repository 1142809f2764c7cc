"""Sentence-pair objectives: does B follow A (NSP, Devlin et al. 2019), are A and B in order (SOP, Lan et al. 2020).

Letters: R rows · D width
"""

from torch import Tensor, nn

from foundation.data.batches import NO_PAIR, Pairs
from foundation.model.config import ModelConfig
from foundation.objective.config import SentenceTask


def pairs_for(task: SentenceTask) -> Pairs:
    """The rows that a sentence task asks for."""
    match task:
        case SentenceTask.none:
            return Pairs.none
        case SentenceTask.nsp:
            return Pairs.next
        case SentenceTask.sop:
            return Pairs.order


class SentencePairHead(nn.Module):
    """tanh(dense) of the hidden state at [CLS], then two logits: [pair is whole, pair is broken]."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.pool = nn.Linear(cfg.width, cfg.width)
        self.classify = nn.Linear(cfg.width, 2)

    def forward(self, cls_RD: Tensor) -> Tensor:
        """(R, D) -> (R, 2)."""
        logits: Tensor = self.classify(self.pool(cls_RD).tanh())
        return logits


def is_pair(labels_R: Tensor) -> Tensor:
    """(R,) True where the row is a pair and so has an answer."""
    return labels_R != NO_PAIR
