"""The pretraining objective: masked tokens, and what else is asked for, over one pass of the encoder."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from foundation.core.randomness import RowRng
from foundation.data.batches import Batch
from foundation.data.tokenizer import SpecialIds
from foundation.model.config import ModelConfig
from foundation.model.encoder import Encoder, init_weights
from foundation.objective.base import Example, Objective
from foundation.objective.config import MaskingConfig, ObjectiveConfig, SentenceTask
from foundation.objective.document_words import DocumentWords, DocumentWordsHead, has_words
from foundation.objective.masked_lm import IGNORED, MaskedLMHead, Masking, summed_cross_entropy
from foundation.objective.next_sentence import SentencePairHead, is_pair
from foundation.objective.token_detection import Spoiling, TokenDetectionHead, is_asked

# The vocabulary product's row count is filled up to a multiple of this, for the reason told in model/attention.py.
_TARGET_MULTIPLE = 128


@dataclass(frozen=True, slots=True)
class Scores:
    """Sums over some rows: losses in nats, hits and targets: of masked tokens, sentence pairs, rows asked for words, and tokens
    of which is asked whether they are spoilt."""

    mlm_loss: float = 0.0
    mlm_hits: int = 0
    mlm_targets: int = 0
    pair_loss: float = 0.0
    pair_hits: int = 0
    pair_targets: int = 0
    words_loss: float = 0.0
    words_targets: int = 0
    detection_loss: float = 0.0
    detection_targets: int = 0

    def __add__(self, other: "Scores") -> "Scores":
        return Scores(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class _States:
    """What the encoder says at the targets, which are filled up with such as are to be ignored; at each row's first token; and
    of all tokens. Of the last two nothing, where nobody asks."""

    targets_M: Tensor
    at_targets_MD: Tensor
    at_firsts_RD: Tensor
    all_TD: Tensor


class PretrainingObjective(Objective):
    """Loss in nats: mean over masked tokens + sentence_weight · mean over pairs + document_words.weight · mean over rows
    + detection.weight · mean over tokens in sight + z_loss_weight · mean of (ln Z)² over masked tokens."""

    heads: nn.ModuleDict

    def __init__(
        self,
        cfg: ObjectiveConfig,
        model: ModelConfig,
        specials: SpecialIds,
        continues_word: NDArray[np.bool_],
        *,
        seq_len: int,
        words: DocumentWords | None = None,
    ) -> None:
        """words: where document words are drawn; without it none are asked for, whatever cfg says."""
        super().__init__()
        cfg.check()
        self.cfg = cfg
        self.encoder = Encoder(model)
        heads: dict[str, nn.Module] = {"mlm": MaskedLMHead(model)}
        if cfg.sentence_task is not SentenceTask.none:
            heads["pair"] = SentencePairHead(model)
        if cfg.document_words.weight:
            heads["words"] = DocumentWordsHead(model)
        if cfg.detection.weight:
            heads["detection"] = TokenDetectionHead(model)
        self.heads = nn.ModuleDict(heads)
        self.words = words
        terms = {"mlm": "mlm_loss", "pair": f"{cfg.sentence_task.value}_loss", "words": "words_loss"}
        terms["detection"] = "detection_loss"
        self.terms = tuple(terms[name] for name in heads) + (("z_loss",) if cfg.z_loss_weight else ())
        self._specials, self._continues_word, self._seq_len = specials, continues_word, seq_len
        self.masking = self.masking_like(cfg.masking)
        self.spoiling = Spoiling(cfg.detection, specials, row_stride=seq_len) if cfg.detection.weight else None
        init_weights(self, model)
        if words is not None and isinstance(head := heads.get("words"), DocumentWordsHead):
            head.start_from(words.log_share)

    @property
    def has_pairs(self) -> bool:
        """Whether there is a sentence task."""
        return "pair" in self.heads

    def masking_like(self, cfg: MaskingConfig) -> Masking:
        """Masking under other settings over the same vocabulary; evaluation has its own, whatever training does."""
        return Masking(cfg, self._specials, self._continues_word, row_stride=self._seq_len)

    def corrupt(self, batch: Batch, rng: RowRng, progress: float) -> Example:
        """Hide tokens, draw words; pairs were broken when the rows were drawn, since a B comes from another row."""
        example = self.masking(batch, rng, progress)
        if self.spoiling is not None:
            example = self.spoiling(example, batch, rng)
        return example if self.words is None else self.words.ask(example, batch, rng)

    def count(self, example: Example) -> Tensor:
        """(terms,): masked tokens, rows that are pairs, rows that are asked for words, tokens in sight, masked tokens."""
        # Filled in there: torch.tensor(…, device=…) would have the host wait for a GPU.
        counts = [torch.full((), len(example.targets), device=example.device)]
        if self.has_pairs:
            assert example.labels is not None
            counts.append(is_pair(example.labels).sum())
        if "words" in self.heads:
            counts.append(has_words(example).sum())
        if "detection" in self.heads:
            assert example.spoilt is not None
            counts.append(is_asked(example.spoilt).sum())
        if self.cfg.z_loss_weight:
            counts.append(counts[0])
        return torch.stack(counts).double()

    def forward(self, example: Example, totals: Tensor) -> Tensor:
        """Shares of the step's means, (terms,), all but the first one weighted."""
        states = self._encode(example)
        head = self.heads["mlm"]
        assert isinstance(head, MaskedLMHead)
        asked = states.at_targets_MD, self.encoder.token_embedding.weight, states.targets_M
        mlm, *squares = head.summed_losses(*asked, squares=bool(self.cfg.z_loss_weight))
        sums = [mlm]
        if self.has_pairs:
            sums.append(self.cfg.sentence_weight * summed_cross_entropy(*self._pairs(states, example)))
        if "words" in self.heads:
            sums.append(self.cfg.document_words.weight * self._words_loss(states.all_TD, example))
        if "detection" in self.heads:
            sums.append(self.cfg.detection.weight * summed_cross_entropy(*self._detection(states.all_TD, example)))
        sums += [self.cfg.z_loss_weight * square for square in squares]
        shares = torch.stack(sums)
        return shares / totals.clamp(min=1).to(shares.dtype)

    def _encode(self, example: Example) -> _States:
        """One pass. Where nobody asks about whole rows, the last layer is spared what nobody reads."""
        filler = -len(example.targets) % _TARGET_MULTIPLE
        at, targets = F.pad(example.targets_at, (0, filler)), F.pad(example.targets, (0, filler), value=IGNORED)
        firsts = example.first_tokens if self.has_pairs else at[:0]
        inputs = example.ids, example.segments, example.layout()
        if {"words", "detection"} & set(self.heads):
            hidden_TD = self.encoder(*inputs)
            return _States(targets, hidden_TD.index_select(0, at), hidden_TD.index_select(0, firsts), hidden_TD)
        hidden_MD = self.encoder(*inputs, torch.cat([at, firsts]))
        return _States(targets, hidden_MD[: len(at)], hidden_MD[len(at) :], hidden_MD[:0])

    def _mlm(self, states: _States) -> tuple[Tensor, Tensor]:
        """Logits (M, V) and targets (M,)."""
        return self.heads["mlm"](states.at_targets_MD, self.encoder.token_embedding.weight), states.targets_M

    def _pairs(self, states: _States, example: Example) -> tuple[Tensor, Tensor]:
        """Logits (R, 2) and labels (R,); a row that is no pair is to be ignored."""
        assert example.labels is not None
        logits = self.heads["pair"](states.at_firsts_RD)
        return logits, example.labels.masked_fill(~is_pair(example.labels), IGNORED)

    def _words_loss(self, hidden_TD: Tensor, example: Example) -> Tensor:
        """Summed over rows, unweighted."""
        if example.words is None:
            return hidden_TD.new_zeros((), dtype=torch.float32)
        head = self.heads["words"]
        assert isinstance(head, DocumentWordsHead)
        return head.summed_loss(hidden_TD, example, self.encoder.token_embedding.weight)

    def _detection(self, hidden_TD: Tensor, example: Example) -> tuple[Tensor, Tensor]:
        """Logits (T, 2) and answers (T,)."""
        assert example.spoilt is not None
        return self.heads["detection"](hidden_TD), example.spoilt

    @torch.no_grad()
    def score(self, example: Example) -> Scores:
        """Loss sums and hits of some rows; the caller has chosen eval() and precision."""
        states = self._encode(example)
        mlm = _sums(*self._mlm(states))
        pairs = _sums(*self._pairs(states, example)) if self.has_pairs else (0.0, 0, 0)
        if "words" not in self.heads:
            return Scores(*mlm, *pairs)
        return Scores(*mlm, *pairs, float(self._words_loss(states.all_TD, example)), int(has_words(example).sum()))

    @torch.no_grad()
    def score_detection(self, example: Example) -> Scores:
        """Of rows with spoilt tokens, which are no fair ones to score anything else on."""
        hidden_TD = self.encoder(example.ids, example.segments, example.layout())
        loss, _, asked = _sums(*self._detection(hidden_TD, example))
        return Scores(detection_loss=loss, detection_targets=asked)


def _sums(logits: Tensor, targets: Tensor) -> tuple[float, int, int]:
    """Loss in nats, hits, and targets that are not to be ignored."""
    hits, asked = (logits.argmax(-1) == targets).sum(), (targets != IGNORED).sum()
    return float(summed_cross_entropy(logits, targets)), int(hits), int(asked)
