"""A task's model and all that it needs to answer: from texts to labels, from files and back.

Letters: R rows · K outputs
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.core.plain import from_plain, to_plain
from foundation.data.tokenizer import Tokenizer
from foundation.model.config import ModelConfig
from foundation.model.sharing.apply import share, sharing_from_plain
from foundation.objective.base import clean_example
from foundation.task.batches import TokenRows, by_length, tokenize
from foundation.task.config import Pooling, TaskConfig
from foundation.task.heads import TaskObjective
from foundation.task.metrics import softmax
from foundation.train.checkpoint import load_into
from foundation.train.config import Precision
from foundation.train.foundation import Foundation, load_foundation, save_foundation, save_part
from foundation.train.loop import autocast

# Between what was trained and what was saved, after the same arithmetic.
_RELOAD_TOLERANCE = 1e-5
_RELOAD_ROWS = 256


@dataclass(frozen=True, slots=True)
class Answers:
    """predicted: (R,) class numbers or values. logits: (R, K), of regression values. probabilities: (R, K) or (R, 0)."""

    predicted: NDArray[np.float64]
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Answering:
    """How outputs become answers. labels: K names, or none for regression: its outputs are in `std`s around `mean`."""

    task: TaskConfig
    labels: list[str]
    pooling: Pooling
    seq_len: int
    mean: float = 0.0
    std: float = 1.0

    @property
    def n_out(self) -> int:
        """K."""
        return len(self.labels) or 1


class FineTuned:
    """A model of a task, on one device."""

    def __init__(
        self, objective: TaskObjective, tokenizer: Tokenizer, how: Answering, batch_rows: int, precision: Precision
    ) -> None:
        self.objective, self.tokenizer, self.how = objective, tokenizer, how
        self.batch_rows, self.precision = batch_rows, precision

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.objective.encoder.token_embedding.weight.device

    def tokenize(self, text: list[str], text_pair: list[str] | None) -> TokenRows:
        """Rows as this model takes them."""
        return tokenize(text, text_pair, self.tokenizer, self.how.seq_len)

    @torch.no_grad()
    def outputs(self, tokens: TokenRows) -> NDArray[np.float32]:
        """(R, K) of the head, in the rows' own order; rows of similar length are computed together."""
        self.objective.eval()
        found = np.empty((len(tokens), self.how.n_out), np.float32)
        for numbers in by_length(tokens.lengths(), self.batch_rows):
            example = clean_example(tokens.batch(numbers, None)).to(self.device)
            with autocast(self.device, self.precision):
                found[numbers] = self.objective.logits(example).float().cpu().numpy()
        return found

    def answer(self, tokens: TokenRows) -> Answers:
        """Labels and probabilities, or values in the labels' own unit."""
        outputs = self.outputs(tokens)
        if self.how.labels:
            return Answers(outputs.argmax(1).astype(np.float64), outputs, softmax(outputs))
        values = outputs[:, :1].astype(np.float64) * self.how.std + self.how.mean
        return Answers(values[:, 0], values.astype(np.float32), np.empty((len(values), 0)))

    def save(self, folder: Path, info: dict[str, Any], card: str, *, shares: Foundation | None) -> str:
        """Write weights, settings and tokenizer as a foundation is written, so that another task can start here.

        shares: write only what is not this foundation's; None: everything. Returns the fingerprint of the encoder.
        """
        content = {
            **info,
            "task": to_plain(self.how.task),
            "labels": self.how.labels,
            "pooling": self.how.pooling.value,
            "seq_len": self.how.seq_len,
            "label_mean": self.how.mean,
            "label_std": self.how.std,
        }
        state, model = self.objective.state_dict(), self.objective.encoder.cfg
        if shares is not None:
            return save_part(folder, state, shares, model, content, card)
        return save_foundation(folder, state, model, self.tokenizer, content, card)


def load_finetuned(folder: Path, device: torch.device, *, batch_rows: int, precision: Precision) -> FineTuned:
    """Read what FineTuned.save wrote. Raises UserError when it is absent, damaged, or not a fine-tuned model."""
    saved = load_foundation(folder)
    if "task" not in saved.info:
        raise UserError(
            f"{folder} is a foundation without a task: fine-tune it first with  "
            f"python -m foundation.finetune task=sst2 foundation={folder}"
        )
    how = Answering(
        task=from_plain(TaskConfig, saved.info["task"], str(folder / "config.json")),
        labels=saved.info["labels"],
        pooling=Pooling(saved.info["pooling"]),
        seq_len=saved.info["seq_len"],
        mean=saved.info["label_mean"],
        std=saved.info["label_std"],
    )
    model: ModelConfig = saved.model
    objective = TaskObjective(model, n_out=how.n_out, pooling=how.pooling, dropout=model.dropout)
    sharing = sharing_from_plain(saved.info.get("sharing", {"method": "full"}), str(folder))
    objective.encoder = share(objective.encoder, sharing)
    load_into(objective, saved.tensors, str(folder))
    return FineTuned(objective.to(device), saved.tokenizer, how, batch_rows, precision)


def check_reload(tuned: FineTuned, folder: Path, text: list[str], text_pair: list[str] | None) -> float:
    """Read the files into fresh objects and ask both the same texts; returns the largest difference between outputs.

    Raises RuntimeError where what was saved is not what was trained. In full precision: rounding must hide nothing.
    """
    pair = None if text_pair is None else text_pair[:_RELOAD_ROWS]
    ours = FineTuned(tuned.objective, tuned.tokenizer, tuned.how, tuned.batch_rows, Precision.fp32)
    theirs = load_finetuned(folder, tuned.device, batch_rows=tuned.batch_rows, precision=Precision.fp32)
    found = [model.outputs(model.tokenize(text[:_RELOAD_ROWS], pair)) for model in (ours, theirs)]
    difference = float(np.abs(found[0] - found[1]).max())
    if not difference < _RELOAD_TOLERANCE:
        raise RuntimeError(
            f"{folder} does not answer as the model that was saved there: outputs differ by {difference}"
        )
    return difference
