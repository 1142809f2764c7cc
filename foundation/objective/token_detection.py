"""Token detection: which of the tokens that are seen are not the ones that stood there?

Predicting hidden tokens asks about a seventh of a text, and seldom whether a sentence is one. Telling spoilt tokens from sound
ones asks about every token in sight (replaced-token detection, Clark et al. 2020, ELECTRA) and needs no second network when the
spoiling is simple: tokens in the wrong order or from elsewhere (Yamaguchi et al. 2021; Panda et al. 2021). Here a spoilt token
always comes from its own row, so that what a text is about gives nothing away.

Letters: T tokens of all rows · R rows · W windows of a row · D width
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foundation.core.randomness import RowRng
from foundation.data.batches import Batch, Ids
from foundation.data.corpus import TokenTable
from foundation.data.tokenizer import SpecialIds
from foundation.model.config import ModelConfig
from foundation.model.shapes import filled
from foundation.objective.base import Example
from foundation.objective.config import DetectionConfig
from foundation.objective.masked_lm import IGNORED, summed_cross_entropy
from foundation.objective.terms import Reads, States, Term

# Tokens that change places are at most three apart.
WINDOW = 4

# Draws of a window: is it spoilt; how; which two of its tokens; where in the row a copy comes from. One more of a row: where
# its windows begin.
_DRAWS = 4

SOUND, SPOILT = 0, 1


class Spoiling:
    """Exchanges two tokens of a window, or overwrites one with a copy of another token of the row."""

    def __init__(self, cfg: DetectionConfig, specials: SpecialIds, *, row_stride: int) -> None:
        """row_stride: no row is longer than this (tokens)."""
        self.cfg, self.specials = cfg, specials
        self.windows = row_stride // WINDOW + 1

    def __call__(self, example: Example, batch: Batch, rng: RowRng) -> Example:
        """The masked example with tokens in sight spoilt, and which; draws are addressed by (step, row, window).

        A token that is to be predicted is left alone; one that masking has put at random there counts as spoilt.
        """
        ids = example.ids.numpy().copy()
        asked = batch.maskable & (ids != self.specials.mask)
        may_move = asked.copy()
        may_move[example.targets_at.numpy()] = False
        draws = replace(rng, purpose="spoilt tokens").uniform(batch.first_row, batch.n_rows, self.windows * _DRAWS + 1)
        first, second, source, is_swap = self._chosen(draws, batch)
        # Nor is it copied from: the answer would stand in sight, in its own row.
        kept = may_move[first] & np.where(is_swap, may_move[second], may_move[source])
        first, second, source, is_swap = first[kept], second[kept], source[kept], is_swap[kept]
        ids[first] = np.where(is_swap, batch.ids[second], batch.ids[source])
        ids[second[is_swap]] = batch.ids[first[is_swap]]
        spoilt = np.where(asked, np.where(ids != batch.ids, SPOILT, SOUND), IGNORED)
        told = example.of_tokens | {"spoilt": torch.from_numpy(spoilt)}
        return replace(example, ids=torch.from_numpy(ids), of_tokens=told)

    def _chosen(self, draws: NDArray[np.float64], batch: Batch) -> tuple[Ids, Ids, Ids, NDArray[np.bool_]]:
        """Of each spoilt window: two different positions, the source of a copy (all in T), and whether it is a swap."""
        by_window = draws[:, :-1].reshape(batch.n_rows, self.windows, _DRAWS)
        # Windows begin at another place in every row, so that no two neighbours always share one.
        begin = (draws[:, -1] * WINDOW).astype(np.int64)[:, None] + np.arange(self.windows) * WINDOW
        fits = begin + WINDOW <= batch.lengths[:, None]
        row, window = np.nonzero(fits & (by_window[:, :, 0] < self.cfg.rate))
        drawn = by_window[row, window]
        start = (batch.lengths.cumsum() - batch.lengths)[row]
        at = (drawn[:, 2] * WINDOW * (WINDOW - 1)).astype(np.int64)
        first, further = at // (WINDOW - 1), at % (WINDOW - 1) + 1
        place = start + begin[row, window]
        source = start + (drawn[:, 3] * batch.lengths[row]).astype(np.int64)
        is_swap = drawn[:, 1] < self.cfg.swap_share
        return place + first, place + (first + further) % WINDOW, source, is_swap


def is_asked(spoilt_T: Tensor) -> Tensor:
    """(T,) True where a token is in sight, and so has an answer."""
    return spoilt_T != IGNORED


class TokenDetection(Term):
    """Two logits a token, linear: what tells a spoilt token lies open in the hidden states, where a task's head looks."""

    question = "detection"
    reads = Reads.tokens
    changes_text = True

    def __init__(self, model: ModelConfig, cfg: DetectionConfig, specials: SpecialIds, *, row_stride: int) -> None:
        """row_stride: no row is longer than this (tokens)."""
        super().__init__()
        self.weight = cfg.weight
        self.spoiling = Spoiling(cfg, specials, row_stride=row_stride)
        self.classify = nn.Linear(model.width, 2)

    def forward(self, hidden_TD: Tensor) -> Tensor:
        """(T, D) -> (T, 2): [sound, spoilt]."""
        logits: Tensor = self.classify(filled(hidden_TD))[: len(hidden_TD)]
        return logits

    def ask(self, example: Example, batch: Batch, rng: RowRng, table: TokenTable | None) -> Example:
        """With tokens spoilt, and which."""
        return self.spoiling(example, batch, rng)

    def count(self, example: Example) -> Tensor:
        """Tokens in sight."""
        return is_asked(example.of_tokens["spoilt"]).sum()

    def summed_loss(self, states: States, example: Example, embedding_VD: Tensor) -> Tensor:
        """Over tokens in sight."""
        return summed_cross_entropy(self(states.all_TD), example.of_tokens["spoilt"])
