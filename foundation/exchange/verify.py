"""The proof of an export: transformers loads the folder by itself and must answer as we do.

Letters: R rows · L tokens of the longest row
"""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foundation.core.errors import UserError
from foundation.data.tokenizer import Tokenizer
from foundation.exchange.answers import Answerer, Outputs, Texts
from foundation.task.batches import TokenRows, tokenize

# Largest difference between logits in float32, in units of the largest logit where that is above 1.
TOLERANCE = 1e-5
# A pooler that a bare model has not got is the one thing that transformers may make up.
_MAY_BE_MISSING = ("pooler.dense.weight", "pooler.dense.bias")


def require_transformers() -> ModuleType:
    """The library that reads the folder. Raises UserError, with the command that installs it, where it is not there."""
    try:
        import transformers
    except ImportError:
        raise UserError(
            "an export is checked in transformers before it is kept, and transformers is not installed: "
            "pip install 'foundation-encoder[hf]'"
        ) from None
    return transformers


class StockReader:
    """A folder as anybody reads it: AutoTokenizer and the Auto class of its architecture, no remote code."""

    def __init__(self, folder: Path, architecture: str) -> None:
        transformers = require_transformers()
        kind = architecture.removeprefix("ModernBert").removeprefix("Bert")
        auto = getattr(transformers, f"AutoModel{'' if kind == 'Model' else kind}")
        with _quietly(transformers):
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self.model, report = auto.from_pretrained(folder, local_files_only=True, output_loading_info=True)
        self.model = self.model.eval().float()
        self.is_of_choices = kind == "ForMultipleChoice"
        missing = [name for name in report["missing_keys"] if name not in _MAY_BE_MISSING]
        if type(self.model).__name__ != architecture or missing or report["unexpected_keys"]:
            raise UserError(
                f"transformers reads the export as {type(self.model).__name__} and not as {architecture}; weights missing: "
                f"{missing}, unexpected: {sorted(report['unexpected_keys'])}; try the version that pyproject.toml names"
            )

    @property
    def n_positions(self) -> int:
        """Most tokens of a row that the model can take."""
        return int(self.model.config.max_position_embeddings)

    def encode(self, texts: Texts, max_tokens: int) -> dict[str, Tensor]:
        """(R, L): rows padded to the longest; (1, R, L) of a class for choices, where they are those of one question."""
        encoded = self.tokenizer(
            texts.text, texts.text_pair, padding=True, truncation=True, max_length=max_tokens, return_tensors="pt"
        )
        return {name: ids[None] if self.is_of_choices else ids for name, ids in encoded.items()}

    @torch.no_grad()
    def outputs(self, encoded: dict[str, Tensor]) -> dict[str, Tensor]:
        """Every output that is a tensor, as the class gives it."""
        return {name: value for name, value in self.model(**encoded).items() if isinstance(value, Tensor)}

    def by_row(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Outputs of an encoding, rows first: the (1, R) scores of choices are (R, 1)."""
        return {name: value.T for name, value in outputs.items()} if self.is_of_choices else outputs

    def answer(self, encoded: dict[str, Tensor]) -> dict[str, Tensor]:
        """The outputs, rows first."""
        return self.by_row(self.outputs(encoded))


class _quietly:
    """transformers without its progress bars and warnings."""

    def __init__(self, transformers: ModuleType) -> None:
        self.log = transformers.logging

    def __enter__(self) -> None:
        self.before = self.log.get_verbosity()
        self.log.set_verbosity_error()
        self.log.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        self.log.set_verbosity(self.before)
        self.log.enable_progress_bar()


def check_answers(reader: StockReader, tokenizer: Tokenizer, ours: Answerer, texts: Texts, max_tokens: int) -> float:
    """Ask both, short and long apart and together, and return the largest difference.

    Raises UserError where token ids differ, or outputs by more than TOLERANCE.
    """
    rows = tokenize(texts.text, texts.text_pair, tokenizer, max_tokens)
    expected = ours(rows)
    worst = 0.0
    for part in (slice(0, 1), slice(1, 2), slice(0, 2)):
        encoded = reader.encode(texts[part], max_tokens)
        _check_ids(rows, part, encoded)
        wanted = {name: rows_of[part] for name, rows_of in expected.items()}
        worst = max(worst, difference(wanted, reader.answer(encoded), encoded["attention_mask"]))
    if not worst <= TOLERANCE:
        raise UserError(
            f"transformers answers otherwise than the model here: logits differ by {worst:.2g}, more than {TOLERANCE:g}; "
            "nothing was written"
        )
    return worst


def _check_ids(rows: TokenRows, part: slice, encoded: dict[str, Tensor]) -> None:
    numbers = np.arange(len(rows))[part]
    ours = torch.from_numpy(rows.batch(numbers, None).ids)
    theirs = encoded["input_ids"][encoded["attention_mask"].bool()]
    if not torch.equal(ours, theirs):
        raise UserError(
            "transformers cuts the same text into other tokens than the tokenizer here: it does not read this "
            "tokenizer.json as it is; nothing was written"
        )


def difference(ours: Outputs, theirs: dict[str, Tensor], mask: Tensor) -> float:
    """Largest |ours − theirs| over all outputs, padding left out, divided by the largest |ours| where that is above 1."""
    visible_RL = mask.flatten(0, -2).bool()
    worst = 0.0
    for name, rows in ours.items():
        for number, row in enumerate(rows):
            other = theirs[name][number]
            # One entry a row; or one a token, and then some may be padding.
            other = other if other.shape == row.shape else other[visible_RL[number]]
            worst = max(worst, float((row - other).abs().max() / row.abs().max().clamp(min=1)))
    return worst
