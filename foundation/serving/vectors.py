"""A vector for each text: the encoder's last hidden states, pooled; of a foundation as it is, or of what a task made of it.

Letters: N texts · T tokens of some texts · D width
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from foundation.core.device import choose_device
from foundation.data.tokenizer import Tokenizer
from foundation.model.encoder import Encoder
from foundation.objective.base import clean_example
from foundation.serving.config import EmbedConfig
from foundation.task.answer import find_model
from foundation.task.batches import TokenRows, by_tokens, tokenize
from foundation.task.config import Pooling
from foundation.task.finetuned import load_finetuned
from foundation.task.heads import pool_rows
from foundation.train.config import Precision
from foundation.train.foundation import find_foundation, load_foundation
from foundation.train.loop import autocast

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEncoder:
    """From texts to vectors. seq_len: most tokens of a text, special ones included; batch_tokens: of a forward pass."""

    encoder: Encoder
    tokenizer: Tokenizer
    seq_len: int
    pooling: Pooling
    device: torch.device
    precision: Precision
    batch_tokens: int

    @property
    def width(self) -> int:
        """D."""
        return self.encoder.cfg.width

    def tokenize(self, texts: Sequence[str]) -> TokenRows:
        """Any thread may do it, beside the model."""
        return tokenize(list(texts), None, self.tokenizer, self.seq_len)

    @torch.no_grad()
    def vectors(self, tokens: TokenRows) -> Vectors:
        """(N, D), in the texts' order; a vector does not depend on the other texts, beyond rounding."""
        found = np.empty((len(tokens), self.width), np.float32)
        for numbers in by_tokens(tokens.lengths(), self.batch_tokens):
            example = clean_example(tokens.batch(numbers, None)).to(self.device)
            with autocast(self.device, self.precision):
                hidden_TD = self.encoder(example.ids, example.segments, example.layout())
                pooled = pool_rows(hidden_TD, torch.tensor(example.lengths, device=self.device), self.pooling)
            found[numbers] = pooled.float().cpu().numpy()
        return found


def load_text_encoder(cfg: EmbedConfig) -> TextEncoder:
    """Of a foundation by name or folder, or of a fine-tuned task's folder. Raises UserError where there is none."""
    device = choose_device(cfg.trainer.device)
    is_of_task = any(Path(cfg.foundation).glob("seed-*"))
    folder = find_model(Path(cfg.foundation)) if is_of_task else find_foundation(cfg.foundation, Path(cfg.runs_dir))
    saved = load_foundation(folder)
    if "task" in saved.info:
        tuned = load_finetuned(folder, device, batch_rows=1, precision=cfg.trainer.precision)
        encoder, seq_len = tuned.objective.encoder, tuned.how.seq_len
    else:
        encoder = Encoder(saved.model)
        saved.load_encoder(encoder)
        seq_len = min(saved.model.max_seq_len, int(saved.info.get("seq_len", saved.model.max_seq_len)))
    return TextEncoder(
        encoder=encoder.to(device).eval(),
        tokenizer=saved.tokenizer,
        seq_len=min(seq_len, cfg.max_tokens or seq_len),
        pooling=cfg.pooling,
        device=device,
        precision=cfg.trainer.precision,
        batch_tokens=cfg.batch_tokens,
    )
