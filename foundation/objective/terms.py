"""What may be asked beside masked tokens: a term of the loss, with its question, its head and its score in one place.

Letters: T tokens of all rows · R rows · M targets · D width · V vocabulary
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum

from torch import Tensor, nn

from foundation.core.randomness import RowRng
from foundation.data.batches import Batch
from foundation.data.corpus import TokenTable
from foundation.objective.base import Example
from foundation.objective.masked_lm import IGNORED, summed_cross_entropy


class Reads(str, Enum):
    """Whose hidden states a term looks at: each row's first token's, or every token's. The last layer is spared the others."""

    firsts = "firsts"
    tokens = "tokens"


@dataclass(frozen=True, slots=True)
class States:
    """What the encoder says: at the masked tokens, filled up with such as are to be ignored (targets_M); at each row's first
    token, where a term reads it; and of all tokens, where one reads those; else nothing."""

    targets_M: Tensor
    at_targets_MD: Tensor
    at_firsts_RD: Tensor
    all_TD: Tensor


@dataclass(frozen=True, slots=True)
class Score:
    """Sums over what was asked: loss in nats, right answers, and how many were asked for."""

    loss: float = 0.0
    hits: int = 0
    targets: int = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(self.loss + other.loss, self.hits + other.hits, self.targets + other.targets)

    @property
    def nats(self) -> float:
        """Mean loss."""
        return self.loss / max(1, self.targets)

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.hits / max(1, self.targets)

    def accuracy_interval(self) -> tuple[float, float]:
        """Ends of the accuracy's 95 % Wilson interval."""
        # Here: half of the time to the first step would go into importing it.
        from scipy.stats import binomtest

        interval = binomtest(self.hits, self.targets).proportion_ci(method="wilson")
        return float(interval.low), float(interval.high)


class Term(nn.Module, ABC):
    """A question and its head. Its loss is called `<question>_loss`, in logs and figures.

    weight: what the mean over its targets is multiplied by. has_accuracy: whether hits are told beside the loss.
    changes_text: the question is asked by changing what the encoder sees, so that nothing else can be scored on the same rows.
    """

    question: str
    weight: float
    reads: Reads
    has_accuracy = False
    changes_text = False

    def begin(self) -> None:
        """After the weights were drawn: what is to begin otherwise."""

    def ask(self, example: Example, batch: Batch, rng: RowRng, table: TokenTable | None) -> Example:
        """The masked example with the question in it, a pure function; all draws are addressed by (step, row).

        table: the tokens that the batch's rows are of, where they are known.
        """
        return example

    @abstractmethod
    def count(self, example: Example) -> Tensor:
        """How many targets there are, (), on the example's device."""

    @abstractmethod
    def summed_loss(self, states: States, example: Example, embedding_VD: Tensor) -> Tensor:
        """Summed over the targets, unweighted, nats."""

    def score(self, states: States, example: Example, embedding_VD: Tensor) -> Score:
        """Of some rows, without gradients."""
        return Score(float(self.summed_loss(states, example, embedding_VD)), 0, int(self.count(example)))


def classes_score(logits: Tensor, targets: Tensor) -> Score:
    """Of answers that are classes; IGNORED targets count nothing."""
    hits, asked = (logits.argmax(-1) == targets).sum(), (targets != IGNORED).sum()
    return Score(float(summed_cross_entropy(logits, targets)), int(hits), int(asked))
