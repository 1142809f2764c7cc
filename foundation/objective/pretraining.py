"""The pretraining objective: masked tokens, and what else is asked for, over one pass of the encoder."""

from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from foundation.core.randomness import RowRng
from foundation.data.batches import Batch
from foundation.data.corpus import TokenTable
from foundation.data.tokenizer import SpecialIds
from foundation.model.config import ModelConfig
from foundation.model.encoder import Encoder, init_weights
from foundation.objective.base import Example, Objective
from foundation.objective.config import MaskingConfig, ObjectiveConfig, SentenceTask
from foundation.objective.document_words import DocumentWords, DocumentWordsTerm
from foundation.objective.masked_lm import IGNORED, MaskedLMHead, Masking
from foundation.objective.next_sentence import SentencePairs
from foundation.objective.terms import Reads, Score, States, Term, classes_score
from foundation.objective.token_detection import TokenDetection

# The vocabulary product's row count is filled up to a multiple of this, for the reason told in model/attention.py.
_TARGET_MULTIPLE = 128

# By what is asked, `mlm` for the masked tokens.
Scores: TypeAlias = dict[str, Score]


def make_terms(
    cfg: ObjectiveConfig, model: ModelConfig, specials: SpecialIds, *, seq_len: int, table: TokenTable | None
) -> dict[str, Term]:
    """What is asked beside masked tokens, by the name of its weights: here a new term is added."""
    terms: dict[str, Term] = {}
    if cfg.sentence_task is not SentenceTask.none:
        terms["pair"] = SentencePairs(model, cfg.sentence_task, cfg.sentence_weight)
    if cfg.document_words.weight:
        asked = cfg.document_words
        words = None if table is None else DocumentWords(table, asked, specials, vocab_size=model.vocab_size)
        terms["words"] = DocumentWordsTerm(model, asked.weight, words)
    if cfg.detection.weight:
        terms["detection"] = TokenDetection(model, cfg.detection, specials, row_stride=seq_len)
    return terms


class PretrainingObjective(Objective):
    """Loss in nats: mean over masked tokens + Σ over what else is asked of its weight · mean over its targets
    + z_loss_weight · mean of (ln Z)² over masked tokens."""

    heads: nn.ModuleDict

    def __init__(
        self,
        cfg: ObjectiveConfig,
        model: ModelConfig,
        specials: SpecialIds,
        continues_word: NDArray[np.bool_],
        *,
        seq_len: int,
        table: TokenTable | None = None,
    ) -> None:
        """table: the tokens of the training rows; without it nothing is asked about documents, whatever cfg says."""
        super().__init__()
        cfg.check()
        self.cfg = cfg
        self.encoder = Encoder(model)
        asked = make_terms(cfg, model, specials, seq_len=seq_len, table=table)
        self.heads = nn.ModuleDict({"mlm": MaskedLMHead(model), **asked})
        self.asked = tuple(asked.values())
        named = ("mlm", *(term.question for term in self.asked), *(("z",) if cfg.z_loss_weight else ()))
        self.terms = tuple(f"{name}_loss" for name in named)
        self._specials, self._continues_word, self._seq_len = specials, continues_word, seq_len
        self._table = table
        self.masking = self.masking_like(cfg.masking)
        init_weights(self, model)
        for term in self.asked:
            term.begin()

    @property
    def has_pairs(self) -> bool:
        """Whether there is a sentence task."""
        return "pair" in self.heads

    def read_share(self, seq_len: int) -> float:
        """Share of the tokens whose states are read: the masked and the rows' first, or all, where a term reads them all."""
        read = self._read()
        if Reads.tokens in read:
            return 1.0
        masked = (self.cfg.masking.rate + self.cfg.masking.final_rate) / 2
        return min(1.0, masked + (1 / seq_len if Reads.firsts in read else 0.0))

    def _read(self) -> set[Reads]:
        return {term.reads for term in self.asked}

    def masking_like(self, cfg: MaskingConfig) -> Masking:
        """Masking under other settings over the same vocabulary; evaluation has its own, whatever training does."""
        return Masking(cfg, self._specials, self._continues_word, row_stride=self._seq_len)

    def corrupt(self, batch: Batch, rng: RowRng, progress: float) -> Example:
        """Hide tokens, then put every other question."""
        example = self.masking(batch, rng, progress)
        for term in self.asked:
            example = term.ask(example, batch, rng, self._table)
        return example

    def count(self, example: Example) -> Tensor:
        """(terms,): masked tokens, then the targets of what else is asked, then masked tokens once more for z."""
        # Filled in there: torch.tensor(…, device=…) would have the host wait for a GPU.
        masked = torch.full((), len(example.targets), device=example.device)
        counts = [masked, *(term.count(example) for term in self.asked)]
        if self.cfg.z_loss_weight:
            counts.append(masked)
        return torch.stack(counts).double()

    def forward(self, example: Example, totals: Tensor) -> Tensor:
        """Shares of the step's means, (terms,), all but the first one weighted."""
        states, embedding_VD = self._encode(example), self.encoder.token_embedding.weight
        head = self.heads["mlm"]
        assert isinstance(head, MaskedLMHead)
        asked = states.at_targets_MD, embedding_VD, states.targets_M
        mlm, *squares = head.summed_losses(*asked, squares=bool(self.cfg.z_loss_weight))
        sums = [mlm, *(term.weight * term.summed_loss(states, example, embedding_VD) for term in self.asked)]
        sums += [self.cfg.z_loss_weight * square for square in squares]
        shares = torch.stack(sums)
        return shares / totals.clamp(min=1).to(shares.dtype)

    def _encode(self, example: Example) -> States:
        """One pass. Where nobody asks about whole rows, the last layer is spared what nobody reads."""
        filler = -len(example.targets) % _TARGET_MULTIPLE
        at, targets = F.pad(example.targets_at, (0, filler)), F.pad(example.targets, (0, filler), value=IGNORED)
        read = self._read()
        firsts = example.first_tokens if Reads.firsts in read else at[:0]
        inputs = example.ids, example.segments, example.layout()
        if Reads.tokens in read:
            hidden_TD = self.encoder(*inputs)
            return States(targets, hidden_TD.index_select(0, at), hidden_TD.index_select(0, firsts), hidden_TD)
        hidden_MD = self.encoder(*inputs, torch.cat([at, firsts]))
        return States(targets, hidden_MD[: len(at)], hidden_MD[len(at) :], hidden_MD[:0])

    @torch.no_grad()
    def score(self, example: Example) -> Scores:
        """Of some rows of sound text: masked tokens, and all terms that do not change it. The caller has chosen eval() and
        precision."""
        states, embedding_VD = self._encode(example), self.encoder.token_embedding.weight
        masked = classes_score(self.heads["mlm"](states.at_targets_MD, embedding_VD), states.targets_M)
        sound = [term for term in self.asked if not term.changes_text]
        return {"mlm": masked} | {term.question: term.score(states, example, embedding_VD) for term in sound}

    @torch.no_grad()
    def score_changed(self, example: Example, term: Term) -> Scores:
        """Of rows whose text a term has changed, which are no fair ones to score anything else on."""
        states = self._encode(example)
        return {term.question: term.score(states, example, self.encoder.token_embedding.weight)}


def added(one: Scores, other: Scores) -> Scores:
    """Sums over both."""
    return {name: one.get(name, Score()) + other.get(name, Score()) for name in one | other}
