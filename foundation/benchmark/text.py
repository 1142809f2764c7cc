"""The same real text for everyone: pretraining rows with their masks, and texts of given lengths."""

from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from foundation.benchmark.config import FinetuningCase, PretrainingCase, SizeConfig
from foundation.core.randomness import RowRng, rng
from foundation.data.batches import Pairs, PretrainingBatches
from foundation.data.config import BatchesConfig, DataConfig, TokenizerConfig
from foundation.data.corpus import Corpus
from foundation.data.prepare import prepare
from foundation.data.sources import documents
from foundation.data.tokenizer import Tokenizer
from foundation.model.config import FeedForward, ModelConfig, NormPlace, Positions
from foundation.model.flops import flops_per_token
from foundation.objective.base import Example
from foundation.objective.config import MaskingConfig
from foundation.objective.masked_lm import Masking
from foundation.task.batches import TokenRows, tokenize

_SEED = 0
# Steps differ in their rows' lengths; the contenders go round these.
_N_STEPS = 8
MIN_POSITIONS = 512


def open_corpus(data: DataConfig, vocab_size: int, runs_dir: str) -> Corpus:
    """The embedded text, or what was asked for, under a WordPiece vocabulary of its own; made once."""
    return prepare(data, TokenizerConfig(vocab_size=vocab_size), Path(runs_dir) / "corpora")


def pretraining_examples(case: PretrainingCase, corpus: Corpus) -> list[Example]:
    """Steps as a run has them, with sentence pairs and 15 % hidden; rows are filled to the brim, so that the peer pads little."""
    tokenizer = corpus.tokenizer
    cfg = BatchesConfig(rows_per_step=case.rows, seq_len=case.seq_len, short_share=0.0, whole_sentences=False)
    batches = PretrainingBatches(corpus.train, tokenizer.specials, cfg, pairs=Pairs.next, seed=_SEED)
    masking = Masking(MaskingConfig(), tokenizer.specials, tokenizer.continues_word, row_stride=case.seq_len)
    return [masking(batches.at(step), RowRng(_SEED, "mask", step), 0.0) for step in range(_N_STEPS)]


def classified_texts(case: FinetuningCase, data: DataConfig) -> list[str]:
    """Running text of the corpus, cut into pieces of log-normal length."""
    n_words = np.exp(rng(_SEED, "lengths").normal(np.log(case.median_words), case.spread, case.texts))
    words = chain.from_iterable(document.text.split() for document in documents(data))
    return [" ".join(islice(words, max(1, int(n)))) for n in n_words]


def classified_rows(
    case: FinetuningCase, data: DataConfig, tokenizer: Tokenizer
) -> tuple[TokenRows, NDArray[np.int64]]:
    """The texts in tokens, and labels of two classes that mean nothing: speed is measured."""
    rows = tokenize(classified_texts(case, data), None, tokenizer, case.seq_len)
    return rows, np.arange(len(rows)) % 2


def bert_shape(size: SizeConfig, seq_len: int) -> ModelConfig:
    """BERT, to the letter: what the peer's BertConfig says too."""
    return ModelConfig(
        width=size.width, layers=size.layers, heads=size.heads, ffn_width=4 * size.width, vocab_size=size.vocab_size,
        max_seq_len=max(seq_len, MIN_POSITIONS), norm_place=NormPlace.post, positions=Positions.learned,
        feed_forward=FeedForward.gelu, segments=2, linear_bias=True, norm_bias=True, norm_eps=1e-12,
        dropout=0.1, attention_dropout=0.1,
    )  # fmt: skip


def modern_shape(size: SizeConfig, seq_len: int) -> ModelConfig:
    """The modern family at the same layers and width, about the same number of weights."""
    return ModelConfig(
        width=size.width, layers=size.layers, heads=size.heads, ffn_width=-(-8 * size.width // 3 // 64) * 64,
        vocab_size=size.vocab_size, max_seq_len=max(seq_len, MIN_POSITIONS), norm_place=NormPlace.pre,
        positions=Positions.rotary, feed_forward=FeedForward.geglu, segments=2, linear_bias=False, norm_bias=False,
        norm_eps=1e-5,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Filling:
    """How full the peer's rectangle is, and what a real token costs."""

    real_share: float
    targets_share: float
    read_share: float
    attended_tokens: float


def filling(examples: list[Example], seq_len: int) -> Filling:
    """Shares of the cells of (rows, seq_len) that are tokens, of the tokens that are asked, and of those that are asked or first
    in their row; and a token's mean row length."""
    lengths = np.concatenate([example.lengths for example in examples]).astype(np.float64)
    n_targets = sum(len(example.targets) for example in examples)
    n_tokens = lengths.sum()
    read = (n_targets + len(lengths)) / n_tokens
    return Filling(lengths.mean() / seq_len, n_targets / n_tokens, read, (lengths**2).sum() / n_tokens)


def flops_of(size: SizeConfig, filled: Filling, seq_len: int) -> float:
    """Operations for one real token of a step, as model/flops.py counts them."""
    length = round(filled.attended_tokens)
    return flops_per_token(bert_shape(size, seq_len), length, filled.targets_share, filled.read_share)


def cross_to(examples: list[Example], device: str) -> list[Example]:
    """On the contender's device, before any clock runs."""
    return [example.to(torch.device(device)) for example in examples]
