"""Masked language modelling (Devlin et al. 2019, 3.1, task 1): hide tokens, predict them from what is left.

Letters: T tokens of all rows · R rows · M targets · D width · V vocabulary
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from foundation.core.randomness import RowRng
from foundation.data.batches import Batch
from foundation.data.tokenizer import SpecialIds
from foundation.model import native
from foundation.model.config import ModelConfig
from foundation.model.encoder import make_norm
from foundation.model.fusion import fused, is_for_fusion
from foundation.objective.base import Example, clean_example
from foundation.objective.config import MaskingConfig, MaskUnit

# Draws of a token: is its unit chosen; what becomes of it; which random token; does a span begin here.
_DRAWS = 4

# Products on a GPU are slow where rows of logits do not begin at multiples of 16 bytes. Words that are not there get no chance.
_VOCABULARY_MULTIPLE = 64

# A target that is not one, in torch's convention.
IGNORED = -100


class Masking:
    """Which tokens are hidden and what stands in their place.

    Every unit (token, word or span) draws one threshold and is hidden while the rate exceeds it, so the masks of a falling
    rate are nested. All draws are addressed by (step, row, position).
    """

    def __init__(
        self, cfg: MaskingConfig, specials: SpecialIds, continues_word: NDArray[np.bool_], *, row_stride: int
    ) -> None:
        """continues_word: (V,), True for ids that continue a word. row_stride: no row is longer than this (tokens)."""
        self.cfg, self.specials, self.continues_word, self.row_stride = cfg, specials, continues_word, row_stride
        special = {specials.pad, specials.unk, specials.cls, specials.sep, specials.mask}
        # A random token is an ordinary one; it may equal the original, which the paper does not exclude.
        self.ordinary = np.array([i for i in range(len(continues_word)) if i not in special])

    def rate(self, progress: float) -> float:
        """Share of the maskable tokens to hide."""
        return self.cfg.rate + (self.cfg.final_rate - self.cfg.rate) * progress

    def __call__(self, batch: Batch, rng: RowRng, progress: float) -> Example:
        """Of the hidden, mask_share become [MASK], random_share a random token, the rest stay as they are."""
        draws = self._draws(batch, rng)
        unit_start = self._unit_starts(batch, draws[:, 3])
        first_of_unit = np.maximum.accumulate(np.where(unit_start, np.arange(batch.n_tokens), 0))
        hidden = batch.maskable & (draws[first_of_unit, 0] < self.rate(progress))
        at = np.flatnonzero(hidden)
        # SpanBERT treats a span alike; Google's whole words draw the treatment for each piece.
        fate = draws[first_of_unit[at] if self.cfg.unit is MaskUnit.span else at, 1]
        ids = batch.ids.copy()
        is_masked = fate < self.cfg.mask_share
        is_random = ~is_masked & (fate < self.cfg.mask_share + self.cfg.random_share)
        ids[at[is_masked]] = self.specials.mask
        ids[at[is_random]] = self.ordinary[(draws[at[is_random], 2] * len(self.ordinary)).astype(np.int64)]
        example = clean_example(batch)
        example.targets_at, example.targets = torch.from_numpy(at), torch.from_numpy(batch.ids[at])
        example.ids = torch.from_numpy(ids)
        return example

    def _draws(self, batch: Batch, rng: RowRng) -> NDArray[np.float64]:
        """(T, _DRAWS): each row's numbers, as many as its tokens need."""
        by_row = rng.uniform(batch.first_row, batch.n_rows, self.row_stride * _DRAWS)
        used = np.arange(self.row_stride) < batch.lengths[:, None]
        return by_row.reshape(batch.n_rows, self.row_stride, _DRAWS)[used]

    def _unit_starts(self, batch: Batch, draws: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(T,) True where a unit begins. A span begins by chance, so its length is geometric with mean mean_span."""
        if self.cfg.unit is MaskUnit.token:
            return np.ones(batch.n_tokens, dtype=np.bool_)
        is_word = self.cfg.unit is MaskUnit.whole_word
        begins = ~self.continues_word[batch.ids] if is_word else draws < 1 / self.cfg.mean_span
        after_special = np.concatenate([[True], ~batch.maskable[:-1]])
        return begins | ~batch.maskable | after_special


class MaskedLMHead(nn.Module):
    """Dense, GELU, norm, then the token embeddings again (Press & Wolf 2017) and a bias a token: logits at the targets only."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(cfg.width, cfg.width, bias=cfg.linear_bias)
        self.norm = make_norm(cfg)
        self.bias = nn.Parameter(torch.zeros(cfg.vocab_size))

    def forward(self, hidden_MD: Tensor, embedding_VD: Tensor) -> Tensor:
        """(M, D) -> logits (M, V)."""
        return F.linear(self._transformed(hidden_MD), embedding_VD, self.bias)

    @fused
    def summed_losses(
        self, hidden_MD: Tensor, embedding_VD: Tensor, targets_M: Tensor, *, squares: bool = False
    ) -> tuple[Tensor, ...]:
        """(Σ −ln p(target),), nats: the loss of forward()'s logits, without keeping them in float32.

        squares: Σ (ln Z)² as well, where p = exp(logit) / Z.
        """
        inner_MD = self._transformed(hidden_MD)
        if torch.is_grad_enabled() and inner_MD.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            logits_MV = F.linear(inner_MD, embedding_VD)
            if native.applies_to(logits_MV):
                loss, log_sums_M = native.summed_cross_entropy(logits_MV, self.bias, targets_M)
                return (loss, _summed_squares(log_sums_M, targets_M)) if squares else (loss,)
        bias_V: Tensor = self.bias
        if is_for_fusion(inner_MD) and (filler := -len(bias_V) % _VOCABULARY_MULTIPLE):
            embedding_VD = F.pad(embedding_VD, (0, 0, 0, filler))
            bias_V = F.pad(bias_V, (0, filler), value=-torch.inf)
        logits_MV = F.linear(inner_MD, embedding_VD, bias_V)
        loss = summed_cross_entropy(logits_MV, targets_M)
        return (loss, _summed_squares(_wide(logits_MV).logsumexp(-1), targets_M)) if squares else (loss,)

    def _transformed(self, hidden_MD: Tensor) -> Tensor:
        return self.norm(native.gelu(self.dense(hidden_MD)))


def summed_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Σ −ln softmax(logits)[target] in nats, in float32 or wider; IGNORED targets count nothing.

    With two classes of which the second is true, this is −ln p, and where it is false −ln(1 − p):

    >>> import math
    >>> p = 0.8
    >>> logits = torch.tensor([[0.0, math.log(p / (1 - p))]], dtype=torch.float64)
    >>> math.isclose(summed_cross_entropy(logits, torch.tensor([1])).item(), -math.log(p))
    True
    >>> math.isclose(summed_cross_entropy(logits, torch.tensor([0])).item(), -math.log(1 - p))
    True
    """
    return F.cross_entropy(_wide(logits), targets, reduction="sum", ignore_index=IGNORED)


def _summed_squares(log_sums_M: Tensor, targets_M: Tensor) -> Tensor:
    """IGNORED targets count nothing."""
    return (log_sums_M.square() * (targets_M != IGNORED)).sum()


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype is torch.float64 else logits.float()
