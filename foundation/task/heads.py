"""A task's own part of the model with its loss, and the task as an objective of the one training loop.

Letters: T tokens of all rows · R rows · N items · M targets · D width · K outputs · L tokens of the longest row
"""

from abc import ABC, abstractmethod
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from foundation.core.randomness import RowRng
from foundation.data.batches import Batch
from foundation.model.config import ModelConfig
from foundation.model.dropout import Dropout
from foundation.model.encoder import Encoder, init_weights, make_norm
from foundation.model.pooling import mean_of_rows
from foundation.model.shapes import filled
from foundation.objective.base import Example, Objective, clean_example
from foundation.objective.masked_lm import IGNORED, summed_cross_entropy
from foundation.task.config import Pooling


class Head(nn.Module, ABC):
    """Outputs from hidden states, and how wrong they are.

    term: what the loss is. rows_per_item: rows that are scored together and never part.
    """

    term: str
    out: nn.Linear
    rows_per_item = 1

    @abstractmethod
    def __init__(self, cfg: ModelConfig, n_out: int, pooling: Pooling, dropout: float) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, hidden_TD: Tensor, lengths: tuple[int, ...]) -> Tensor:
        """(T, D) -> outputs of rows, (R, K), or of tokens, (T, K)."""

    def ask(self, example: Example) -> Example:
        """The example with its labels as the loss wants them."""
        return example

    def count(self, example: Example) -> int:
        """Targets of the loss."""
        return len(example.lengths) // self.rows_per_item

    @abstractmethod
    def error(self, outputs: Tensor, example: Example) -> Tensor:
        """(): summed over targets, in float32 or wider."""


class TaskHead(Head):
    """Pool a row's hidden states, dropout, dense, the family's own non-linearity, dropout, linear.

    post-norm: tanh, which over the first token is BERT's classifier (Devlin et al. 2019). pre-norm: GELU and a norm, which
    is ModernBERT's (Warner et al. 2024): laid out as there, a model of a task can be exported to the stock classes.
    """

    def __init__(self, cfg: ModelConfig, n_out: int, pooling: Pooling, dropout: float) -> None:
        super().__init__(cfg, n_out, pooling, dropout)
        self.pooling = pooling
        self.is_pre_norm = cfg.is_pre_norm
        self.dense = nn.Linear(cfg.width, cfg.width)
        self.norm = make_norm(cfg) if self.is_pre_norm else nn.Identity()
        self.dropout = Dropout(dropout)
        self.out = nn.Linear(cfg.width, n_out)

    def forward(self, hidden_TD: Tensor, lengths: tuple[int, ...]) -> Tensor:
        """(T, D) -> (R, K)."""
        return self.of_pooled(self.pool(hidden_TD, torch.tensor(lengths, device=hidden_TD.device)))

    def of_pooled(self, pooled_RD: Tensor) -> Tensor:
        """(R, D) -> (R, K)."""
        inner_RD = self.dense(self.dropout(pooled_RD))
        inner_RD = self.norm(F.gelu(inner_RD)) if self.is_pre_norm else inner_RD.tanh()
        logits: Tensor = self.out(self.dropout(inner_RD))
        return logits

    def pool(self, hidden_TD: Tensor, lengths_R: Tensor) -> Tensor:
        """(T, D) -> (R, D)."""
        return pool_rows(hidden_TD, lengths_R, self.pooling)


def pool_rows(hidden_TD: Tensor, lengths_R: Tensor, pooling: Pooling) -> Tensor:
    """(T, D) -> (R, D)."""
    if pooling is Pooling.cls:
        return hidden_TD.index_select(0, lengths_R.cumsum(0) - lengths_R)
    return mean_of_rows(hidden_TD, lengths_R)


class LabelHead(TaskHead):
    """One of K labels: cross-entropy, in nats."""

    term = "cross_entropy"

    def error(self, outputs: Tensor, example: Example) -> Tensor:
        """Labels: (R,) class numbers."""
        return summed_cross_entropy(outputs, _labels(example))


class ValueHead(TaskHead):
    """A number: squared error of standardised labels."""

    term = "squared_error"

    def error(self, outputs: Tensor, example: Example) -> Tensor:
        """Labels: (R,) values."""
        wide = _wide(outputs)
        return F.mse_loss(wide[:, 0], _labels(example).to(wide.dtype), reduction="sum")


class LabelSetHead(TaskHead):
    """Any of K labels, each on its own: binary cross-entropy, in nats, a mean over the labels of a row."""

    term = "binary_cross_entropy"

    def error(self, outputs: Tensor, example: Example) -> Tensor:
        """Labels: (R, K) zeros and ones."""
        wide = _wide(outputs)
        return (
            F.binary_cross_entropy_with_logits(wide, _labels(example).to(wide.dtype), reduction="sum") / wide.shape[1]
        )


class ChoiceHead(TaskHead):
    """One of n_out rows: a score each, cross-entropy over the rows of an item (Zellers et al. 2018, SWAG, section 5)."""

    term = "cross_entropy"

    def __init__(self, cfg: ModelConfig, n_out: int, pooling: Pooling, dropout: float) -> None:
        super().__init__(cfg, 1, pooling, dropout)
        self.rows_per_item = n_out

    def error(self, outputs: Tensor, example: Example) -> Tensor:
        """Labels: (N,) numbers of the right row among its item's."""
        return summed_cross_entropy(outputs.reshape(-1, self.rows_per_item), _labels(example))


class TokenHead(Head):
    """Dropout and linear at every token; with pre-norm dense, GELU and a norm before them.

    The first is BERT's, in its released code for answers and in its paper for tags (Devlin et al. 2019); the second
    ModernBERT's, in the classes of transformers (Warner et al. 2024): as with TaskHead, a model can be exported to either.
    """

    def __init__(self, cfg: ModelConfig, n_out: int, pooling: Pooling, dropout: float) -> None:
        super().__init__(cfg, n_out, pooling, dropout)  # nothing is pooled
        self.is_pre_norm = cfg.is_pre_norm
        if self.is_pre_norm:
            self.dense = nn.Linear(cfg.width, cfg.width)
            self.norm = make_norm(cfg)
        self.dropout = Dropout(dropout)
        self.out = nn.Linear(cfg.width, n_out)

    def forward(self, hidden_TD: Tensor, lengths: tuple[int, ...]) -> Tensor:
        """(T, D) -> (T, K)."""
        inner_TD = filled(hidden_TD)
        if self.is_pre_norm:
            inner_TD = self.norm(F.gelu(self.dense(inner_TD)))
        logits: Tensor = self.out(self.dropout(inner_TD))[: len(hidden_TD)]
        return logits


class TagHead(TokenHead):
    """One of K tags at the first piece of every word: cross-entropy, in nats (Devlin et al. 2019, 5.3)."""

    term = "cross_entropy"

    def ask(self, example: Example) -> Example:
        """Labels (T,), IGNORED where no word begins -> targets at words' first pieces."""
        labels = _labels(example)
        at = torch.nonzero(labels != IGNORED)[:, 0]
        return replace(example, targets_at=at, targets=labels[at], labels=None)

    def count(self, example: Example) -> int:
        """Words."""
        return len(example.targets)

    def error(self, outputs: Tensor, example: Example) -> Tensor:
        """Targets: (M,) tag numbers."""
        return summed_cross_entropy(outputs.index_select(0, example.targets_at), example.targets)


class SpanHead(TokenHead):
    """Where an answer starts and where it ends, or twice [CLS] where there is none (Devlin et al. 2019, 4.2 and 4.3).

    Two softmaxes over a row's [CLS] and its second segment; the mean of their cross-entropies, in nats.
    """

    term = "span_cross_entropy"

    def error(self, outputs: Tensor, example: Example) -> Tensor:
        """Labels: (R, 2) positions in the row, the last one included."""
        fits_T = answerable(example.segments, torch.tensor(example.lengths, device=example.device))
        possible_T2 = _wide(outputs).masked_fill(~fits_T[:, None], -torch.inf)
        rows_RL2 = pad_sequence(list(possible_T2.split(example.lengths)), batch_first=True, padding_value=-torch.inf)
        return summed_cross_entropy(rows_RL2.transpose(1, 2).flatten(0, 1), _labels(example).flatten()) / 2


def answerable(segments_T: Tensor, lengths_R: Tensor) -> Tensor:
    """(T,) True at [CLS] and inside the second segment, without its [SEP]."""
    ends_R = lengths_R.cumsum(0)
    fits_T = segments_T == 1
    fits_T = fits_T.index_fill(0, ends_R - 1, False)
    return fits_T.index_fill(0, ends_R - lengths_R, True)


def _labels(example: Example) -> Tensor:
    assert example.labels is not None
    return example.labels


def _wide(outputs: Tensor) -> Tensor:
    return outputs if outputs.dtype is torch.float64 else outputs.float()


class TaskObjective(Objective):
    """Encoder and head.

    n_out: what an answer is chosen among: labels, tags, choices; 1 for a number, 2 for the ends of an answer in the text.
    """

    heads: Head

    def __init__(
        self, model: ModelConfig, *, n_out: int, pooling: Pooling, dropout: float, head: type[Head] = LabelHead
    ) -> None:
        super().__init__()
        self.encoder = Encoder(model)
        self.heads = head(model, n_out, pooling, dropout)
        self.terms = (self.heads.term,)
        init_weights(self, model)

    def corrupt(self, batch: Batch, rng: RowRng, progress: float) -> Example:
        """Nothing is hidden."""
        return self.heads.ask(replace(clean_example(batch), rows_per_item=self.heads.rows_per_item))

    def count(self, example: Example) -> Tensor:
        """(1,): targets."""
        return torch.tensor([self.heads.count(example)], dtype=torch.float64, device=example.device)

    def forward(self, example: Example, totals: Tensor) -> Tensor:
        """(1,): this part's share of the step's mean."""
        total = self.heads.error(self.logits(example), example)
        return (total / totals.clamp(min=1).to(total.dtype)).reshape(1)

    def logits(self, example: Example) -> Tensor:
        """(R, K), or (T, K) from a head that answers at every token."""
        inputs = example.ids, example.segments, example.layout()
        if isinstance(self.heads, TaskHead) and self.heads.pooling is Pooling.cls:
            return self.heads.of_pooled(self.encoder(*inputs, example.first_tokens))
        logits: Tensor = self.heads(self.encoder(*inputs), example.lengths)
        return logits
