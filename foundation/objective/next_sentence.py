"""Sentence-pair objectives: does B follow A (NSP, Devlin et al. 2019), are A and B in order (SOP, Lan et al. 2020).

Letters: R rows · D width
"""

from torch import Tensor, nn

from foundation.data.batches import NO_PAIR, Pairs
from foundation.model.config import ModelConfig
from foundation.objective.base import Example
from foundation.objective.config import SentenceTask
from foundation.objective.masked_lm import IGNORED, summed_cross_entropy
from foundation.objective.terms import Reads, Score, States, Term, classes_score


def pairs_for(task: SentenceTask) -> Pairs:
    """The rows that a sentence task asks for."""
    match task:
        case SentenceTask.none:
            return Pairs.none
        case SentenceTask.nsp:
            return Pairs.next
        case SentenceTask.sop:
            return Pairs.order


class SentencePairs(Term):
    """tanh(dense) of the hidden state at [CLS], then two logits: [pair is whole, pair is broken].

    Pairs are broken when rows are drawn, since a B comes from another row: `pairs_for`.
    """

    reads = Reads.firsts
    has_accuracy = True

    def __init__(self, model: ModelConfig, task: SentenceTask = SentenceTask.nsp, weight: float = 1.0) -> None:
        super().__init__()
        self.question, self.weight = task.value, weight
        self.pool = nn.Linear(model.width, model.width)
        self.classify = nn.Linear(model.width, 2)

    def forward(self, cls_RD: Tensor) -> Tensor:
        """(R, D) -> (R, 2)."""
        logits: Tensor = self.classify(self.pool(cls_RD).tanh())
        return logits

    def count(self, example: Example) -> Tensor:
        """Rows that are pairs."""
        assert example.labels is not None
        return is_pair(example.labels).sum()

    def summed_loss(self, states: States, example: Example, embedding_VD: Tensor) -> Tensor:
        """Over pairs."""
        return summed_cross_entropy(*self._answers(states, example))

    def score(self, states: States, example: Example, embedding_VD: Tensor) -> Score:
        """With hits."""
        return classes_score(*self._answers(states, example))

    def _answers(self, states: States, example: Example) -> tuple[Tensor, Tensor]:
        """Logits (R, 2) and labels (R,); a row that is no pair is to be ignored."""
        assert example.labels is not None
        return self(states.at_firsts_RD), example.labels.masked_fill(~is_pair(example.labels), IGNORED)


def is_pair(labels_R: Tensor) -> Tensor:
    """(R,) True where the row is a pair and so has an answer."""
    return labels_R != NO_PAIR
