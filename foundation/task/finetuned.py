"""A task's model and all that it needs to answer: from texts to labels, from files and back.

Letters: K outputs
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.core.plain import from_plain, to_plain
from foundation.data.batches import assemble
from foundation.data.tokenizer import Tokenizer
from foundation.model.config import ModelConfig
from foundation.model.sharing.apply import share, sharing_from_plain
from foundation.objective.base import clean_example
from foundation.task.batches import TokenRows, by_length
from foundation.task.config import Pooling, TaskConfig
from foundation.task.examples import Examples
from foundation.task.heads import TaskObjective
from foundation.task.kinds.base import Answering as Answering
from foundation.task.kinds.base import Answers
from foundation.task.kinds.build import build_kind
from foundation.train.checkpoint import load_into
from foundation.train.config import Precision
from foundation.train.foundation import Foundation, load_foundation, save_foundation, save_part
from foundation.train.loop import autocast

# Between what was trained and what was saved, after the same arithmetic.
_RELOAD_TOLERANCE = 1e-5
_RELOAD_ROWS = 256


class FineTuned:
    """A model of a task, on one device."""

    def __init__(
        self, objective: TaskObjective, tokenizer: Tokenizer, how: Answering, batch_rows: int, precision: Precision
    ) -> None:
        self.objective, self.tokenizer, self.how = objective, tokenizer, how
        self.kind = build_kind(how.task)
        self.batch_rows, self.precision = batch_rows, precision

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.objective.encoder.token_embedding.weight.device

    def tokenize(self, examples: Examples) -> TokenRows:
        """Rows as this model takes them."""
        tokens: TokenRows = self.kind.encode(examples, self.tokenizer, self.how.seq_len)
        return tokens

    @torch.no_grad()
    def outputs(self, tokens: TokenRows) -> NDArray[np.float32]:
        """What the head gives, (…, K), in the rows' own order; rows of similar length are computed together."""
        self.objective.eval()
        sizes = self.kind.output_sizes(tokens)
        starts = sizes.cumsum() - sizes
        found = np.empty((int(sizes.sum()), self.objective.heads.out.out_features), np.float32)
        for numbers in by_length(tokens.row_lengths(), self.batch_rows):
            rows = [tokens.rows[number] for number in numbers]
            example = clean_example(assemble(rows, tokens.specials, None)).to(self.device)
            with autocast(self.device, self.precision):
                part = self.objective.logits(example).float().cpu().numpy()
            found[_ranges(starts[numbers], sizes[numbers])] = part
        return found

    def answer(self, tokens: TokenRows) -> Answers:
        """What the kind of task makes of the outputs."""
        answers: Answers = self.kind.answer(self.outputs(tokens), tokens, self.how)
        return answers

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
    head = build_kind(how.task).head()
    objective = TaskObjective(model, n_out=how.n_out, pooling=how.pooling, dropout=model.dropout, head=head)
    sharing = sharing_from_plain(saved.info.get("sharing", {"method": "full"}), str(folder))
    objective.encoder = share(objective.encoder, sharing)
    load_into(objective, saved.tensors, str(folder))
    return FineTuned(objective.to(device), saved.tokenizer, how, batch_rows, precision)


def _ranges(starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers from each start on, as many as its size, one after another."""
    before = sizes.cumsum() - sizes
    ranges: NDArray[np.int64] = np.repeat(starts - before, sizes) + np.arange(int(sizes.sum()))
    return ranges


def check_reload(tuned: FineTuned, folder: Path, examples: Examples) -> float:
    """Read the files into fresh objects and ask both the same rows; returns the largest difference between outputs.

    Raises RuntimeError where what was saved is not what was trained. In full precision: rounding must hide nothing.
    """
    few = examples.take(np.arange(min(len(examples), _RELOAD_ROWS)))
    ours = FineTuned(tuned.objective, tuned.tokenizer, tuned.how, tuned.batch_rows, Precision.fp32)
    theirs = load_finetuned(folder, tuned.device, batch_rows=tuned.batch_rows, precision=Precision.fp32)
    found = [model.outputs(model.tokenize(few)) for model in (ours, theirs)]
    difference = float(np.abs(found[0] - found[1]).max())
    if not difference < _RELOAD_TOLERANCE:
        raise RuntimeError(
            f"{folder} does not answer as the model that was saved there: outputs differ by {difference}"
        )
    return difference
