"""Small things to test with, built in plain Python."""

import numpy as np
import torch

from foundation.data.tokenizer import SpecialIds
from foundation.model.config import FeedForward, ModelConfig, NormPlace, Positions

SPECIALS = SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)


def bert_config(**changes: object) -> ModelConfig:
    """A BERT of toy size."""
    settings: dict[str, object] = {
        "width": 32, "layers": 3, "heads": 4, "ffn_width": 64, "vocab_size": 101, "max_seq_len": 40,
        "norm_place": NormPlace.post, "positions": Positions.learned, "feed_forward": FeedForward.gelu,
        "segments": 2, "linear_bias": True, "norm_bias": True, "norm_eps": 1e-12,
    }  # fmt: skip
    return ModelConfig(**{**settings, **changes})


def modern_config(**changes: object) -> ModelConfig:
    """A ModernBERT of toy size."""
    settings: dict[str, object] = {
        "width": 32, "layers": 4, "heads": 4, "ffn_width": 48, "vocab_size": 101, "max_seq_len": 40,
        "norm_place": NormPlace.pre, "positions": Positions.rotary, "feed_forward": FeedForward.geglu,
        "segments": 0, "linear_bias": False, "norm_bias": False, "norm_eps": 1e-5,
    }  # fmt: skip
    return ModelConfig(**{**settings, **changes})


def randomise(module: torch.nn.Module, seed: int = 0) -> None:
    """Every parameter random: biases are 0 and norms 1 at init, and hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.2 + 0.05)


def table(n_documents: int = 12, vocab_size: int = 101, seed: int = 0, sentence_tokens: int = 9, sentences: int = 14):
    """A corpus of random documents of uneven length; every token has a number of its own kind, from 5 up."""
    from foundation.data.corpus import TokenTable

    generator = np.random.default_rng(seed)
    sentence_lengths, documents = [], [0]
    for _ in range(n_documents):
        lengths = generator.integers(1, 2 * sentence_tokens, generator.integers(1, 2 * sentences))
        sentence_lengths += lengths.tolist()
        documents.append(documents[-1] + int(lengths.sum()))
    bounds = np.concatenate([[0], np.cumsum(sentence_lengths)]).astype(np.int64)
    ids = generator.integers(5, vocab_size, documents[-1]).astype(np.uint16)
    return TokenTable(ids, np.array(documents, dtype=np.int64), bounds)
