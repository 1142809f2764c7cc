"""Document words: from a row as a whole, predict words of the rest of its document.

What words share a document says what a text is about and how it speaks of it, which neighbours of a few tokens do not: "superb"
and "awful" have the same neighbours, but seldom a review in common. As in FastSent (Hill et al. 2016, 2.3) a representation
predicts the words of the text around it, and as in PV-DBOW (Le & Mikolov 2014, 2.3) these are drawn from the document.

Letters: T tokens of all rows · R rows · S draws of a row · D width · V vocabulary
"""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from foundation.core.device import moved
from foundation.core.randomness import RowRng
from foundation.data.batches import BROKEN, Batch
from foundation.data.corpus import TokenTable
from foundation.data.tokenizer import SpecialIds
from foundation.model.config import ModelConfig
from foundation.model.encoder import make_norm
from foundation.model.pooling import mean_of_rows
from foundation.objective.base import Example
from foundation.objective.config import DocumentWordsConfig
from foundation.objective.terms import Reads, States, Term

# Frequencies are counted in so many blocks of so many tokens, spread over the corpus: any corpus is done in a moment.
_BLOCKS, _BLOCK_TOKENS = 256, 65_536


class DocumentWords:
    """Draws tokens from the rest of a row's document, each with what it counts.

    weights: (V,) float32 in [0, 1]. log_share: (V,) float32, log of each token's part in what is asked.
    """

    def __init__(self, table: TokenTable, cfg: DocumentWordsConfig, specials: SpecialIds, *, vocab_size: int) -> None:
        self.per_row = cfg.per_row
        counts = _count(table.ids, vocab_size)
        share = counts / max(1, counts.sum())
        weights = np.minimum(1.0, np.sqrt(cfg.threshold / np.maximum(share, cfg.threshold)))
        weights[specials.unk] = 0.0  # says nothing
        asked = weights * (counts + 1)
        self.weights = torch.from_numpy(weights).float()
        self.log_share = torch.from_numpy(np.log(np.maximum(asked, 1e-3) / asked.sum())).float()

    def ask(self, example: Example, batch: Batch, rng: RowRng, table: TokenTable) -> Example:
        """The example with words for each row of the table, addressed by (step, row): no dealing out of rows moves them.

        A row that is all of its document, or a pair that was broken, is asked nothing: its words count 0.
        """
        assert batch.places is not None, "only rows of a corpus have a document"
        start, end = batch.places.T
        documents = np.asarray(table.documents)
        document = np.searchsorted(documents, start, side="right")
        first, rest = documents[document - 1], documents[document] - documents[document - 1] - (end - start)
        draws = replace(rng, purpose="document words").uniform(batch.first_row, batch.n_rows, self.per_row)
        at = first[:, None] + (draws * rest[:, None]).astype(np.int64)
        at += np.where(at >= start[:, None], (end - start)[:, None], 0)
        is_asked = rest > 0
        if batch.labels is not None:
            is_asked &= batch.labels != BROKEN
        words = table.ids[np.where(is_asked[:, None], at, 0)].astype(np.int64)
        ids = torch.from_numpy(words)
        asked = {"words": ids, "word_weights": self.weights[ids] * torch.from_numpy(is_asked)[:, None]}
        return replace(example, of_rows=example.of_rows | asked)


def _count(ids: NDArray[np.unsignedinteger], vocab_size: int) -> NDArray[np.float64]:
    """(V,) of the whole corpus, or of blocks spread over it where it is larger than they are."""
    step = max(_BLOCK_TOKENS, len(ids) // _BLOCKS)
    counts = np.zeros(vocab_size)
    for start in range(0, len(ids), step):
        counts += np.bincount(ids[start : start + _BLOCK_TOKENS], minlength=vocab_size)
    return counts


def has_words(example: Example) -> Tensor:
    """(R,) True where a row is asked for words."""
    if "word_weights" not in example.of_rows:
        return torch.zeros(len(example.lengths), dtype=torch.bool, device=example.device)
    return example.of_rows["word_weights"].sum(1) > 0


class DocumentWordsTerm(Term):
    """Mean of a row's hidden states, dense, norm, then the token embeddings again and a bias a token.

    words: where they are drawn; without it none are asked for. Nothing non-linear stands between: what tells documents apart has
    to lie open in the mean, where a task's head looks for it.
    """

    question = "words"
    reads = Reads.tokens

    def __init__(self, model: ModelConfig, weight: float, words: DocumentWords | None) -> None:
        super().__init__()
        self.weight, self.words = weight, words
        self.dense = nn.Linear(model.width, model.width)
        self.norm = make_norm(model)
        self.bias = nn.Parameter(torch.zeros(model.vocab_size))

    @torch.no_grad()
    def begin(self) -> None:
        """With the frequencies of what is asked, so that only what a row adds to them has to be learnt."""
        if self.words is not None:
            self.bias.copy_(self.words.log_share)

    def ask(self, example: Example, batch: Batch, rng: RowRng, table: TokenTable | None) -> Example:
        """With words for each row."""
        return example if self.words is None or table is None else self.words.ask(example, batch, rng, table)

    def count(self, example: Example) -> Tensor:
        """Rows that are asked for words."""
        return has_words(example).sum()

    def forward(self, hidden_TD: Tensor, lengths: tuple[int, ...], embedding_VD: Tensor) -> Tensor:
        """(T, D) -> logits (R, V)."""
        mean_RD = mean_of_rows(hidden_TD, moved(torch.tensor(lengths), hidden_TD.device))
        return F.linear(self.norm(self.dense(mean_RD)), embedding_VD, self.bias)

    def summed_loss(self, states: States, example: Example, embedding_VD: Tensor) -> Tensor:
        """Σ over rows of the weighted mean of −ln p(word), nats."""
        if "words" not in example.of_rows:
            return states.all_TD.new_zeros((), dtype=torch.float32)
        logits_RV = self(states.all_TD, example.lengths, embedding_VD)
        wide_RV = logits_RV if logits_RV.dtype is torch.float64 else logits_RV.float()
        loss_RS = wide_RV.logsumexp(1, keepdim=True) - wide_RV.gather(1, example.of_rows["words"])
        weights_RS = example.of_rows["word_weights"].to(wide_RV.dtype)
        total_R = weights_RS.sum(1)
        return ((loss_RS * weights_RS).sum(1) / total_R.masked_fill(total_R == 0, 1.0)).sum()
