"""The task's own part of the model, and the task as an objective of the one training loop.

Letters: T tokens of all rows · R rows · D width · K outputs
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundation.core.randomness import RowRng
from foundation.data.batches import Batch
from foundation.model.config import ModelConfig, NormPlace
from foundation.model.dropout import Dropout
from foundation.model.encoder import Encoder, init_weights, make_norm
from foundation.objective.base import Example, Objective, clean_example
from foundation.objective.masked_lm import summed_cross_entropy
from foundation.task.config import Pooling


class TaskHead(nn.Module):
    """Pool a row's hidden states, dropout, dense, the family's own non-linearity, dropout, linear.

    post-norm: tanh, which over the first token is BERT's classifier (Devlin et al. 2019). pre-norm: GELU and a norm, which
    is ModernBERT's (Warner et al. 2024): laid out as there, a model of a task can be exported to the stock classes.
    """

    def __init__(self, cfg: ModelConfig, n_out: int, pooling: Pooling, dropout: float) -> None:
        super().__init__()
        self.pooling = pooling
        self.is_pre_norm = cfg.norm_place is NormPlace.pre
        self.dense = nn.Linear(cfg.width, cfg.width)
        self.norm = make_norm(cfg) if self.is_pre_norm else nn.Identity()
        self.dropout = Dropout(dropout)
        self.out = nn.Linear(cfg.width, n_out)

    def forward(self, hidden_TD: Tensor, lengths: tuple[int, ...]) -> Tensor:
        """(T, D) -> (R, K)."""
        pooled_RD = self.pool(hidden_TD, torch.tensor(lengths, device=hidden_TD.device))
        inner_RD = self.dense(self.dropout(pooled_RD))
        inner_RD = self.norm(F.gelu(inner_RD)) if self.is_pre_norm else inner_RD.tanh()
        logits: Tensor = self.out(self.dropout(inner_RD))
        return logits

    def pool(self, hidden_TD: Tensor, lengths_R: Tensor) -> Tensor:
        """(T, D) -> (R, D)."""
        return pool_rows(hidden_TD, lengths_R, self.pooling)


def pool_rows(hidden_TD: Tensor, lengths_R: Tensor, pooling: Pooling) -> Tensor:
    """(T, D) -> (R, D); a mean is taken in float32 or wider: bfloat16 would lose it over a long row."""
    if pooling is Pooling.cls:
        return hidden_TD.index_select(0, lengths_R.cumsum(0) - lengths_R)
    wide = hidden_TD if hidden_TD.dtype is torch.float64 else hidden_TD.float()
    return torch.segment_reduce(wide, "mean", lengths=lengths_R, axis=0)


class TaskObjective(Objective):
    """Encoder and head. classification: cross-entropy, in nats. regression: squared error of standardised labels.

    n_out: number of labels; 1 stands for regression.
    """

    def __init__(self, model: ModelConfig, *, n_out: int, pooling: Pooling, dropout: float) -> None:
        super().__init__()
        self.encoder = Encoder(model)
        self.heads = TaskHead(model, n_out, pooling, dropout)
        self.is_regression = n_out == 1
        self.terms = ("squared_error",) if self.is_regression else ("cross_entropy",)
        init_weights(self, model)

    def corrupt(self, batch: Batch, rng: RowRng, progress: float) -> Example:
        """Nothing is hidden."""
        return clean_example(batch)

    def count(self, example: Example) -> Tensor:
        """(1,): rows."""
        return torch.tensor([len(example.lengths)], dtype=torch.float64, device=example.device)

    def forward(self, example: Example, totals: Tensor) -> Tensor:
        """(1,): this part's share of the step's mean."""
        assert example.labels is not None
        logits_RK = self.logits(example)
        if self.is_regression:
            wide = logits_RK if logits_RK.dtype is torch.float64 else logits_RK.float()
            total = F.mse_loss(wide[:, 0], example.labels.to(wide.dtype), reduction="sum")
        else:
            total = summed_cross_entropy(logits_RK, example.labels)
        return (total / totals.clamp(min=1).to(total.dtype)).reshape(1)

    def logits(self, example: Example) -> Tensor:
        """(R, K)."""
        logits: Tensor = self.heads(self.encoder(example.ids, example.segments, example.layout()), example.lengths)
        return logits
