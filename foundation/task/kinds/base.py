"""What a kind of task is: how rows become tokens and targets, what the head gives, and how that is answered and judged.

Nothing here or in the kinds' files needs torch until a head is asked for.

Letters: N items · R rows of tokens · K outputs
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.data.tokenizer import Tokenizer
from foundation.task.batches import Targets, TokenRows
from foundation.task.config import Metric, Pooling, TaskConfig
from foundation.task.examples import Examples
from foundation.task.interval import Weighted
from foundation.task.metrics import Scores, softmax
from foundation.task.predictions import Decisions
from foundation.task.row import Row

if TYPE_CHECKING:
    from foundation.task.heads import Head


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


@dataclass(frozen=True, slots=True)
class Answers:
    """predicted: (N,) class numbers or values. logits: (N, K), of regression values. probabilities: (N, K) or (N, 0)."""

    predicted: NDArray[np.float64]
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float64]

    @classmethod
    def of_highest(cls, logits_NK: NDArray[np.float32]) -> "Answers":
        """Of each item the class with the highest logit; among equals the first."""
        return Answers(logits_NK.argmax(1).astype(np.float64), logits_NK, softmax(logits_NK))

    def beside(
        self, gold: NDArray[Any], item_ids: list[str], labels: list[str], groups: list[str] | None = None
    ) -> Decisions:
        """The answers and what is right."""
        return Decisions(
            labels=labels,
            item_ids=item_ids,
            gold=gold.astype(np.float64),
            predicted=self.predicted,
            logits=self.logits,
            probabilities=self.probabilities,
            groups=groups or [],
        )


E = TypeVar("E", bound=Examples)
T = TypeVar("T", bound=TokenRows)
A = TypeVar("A", bound=Answers)


class Kind(ABC, Generic[E, T, A]):
    """One kind of task, as a task's settings describe it. E, T, A: its examples, its rows of tokens, its answers.

    An item of the predictions is a decision: one answer that is right or wrong. too_long: what is done with a text that the
    model cannot hold.
    """

    too_long = "texts cut to"

    def __init__(self, cfg: TaskConfig) -> None:
        self.cfg = cfg

    def held_out_by(self) -> list[str]:
        """The columns that decide on which side of a split a row is: rows that share them stay together."""
        return [column for column in (self.cfg.text, self.cfg.text_pair) if column is not None]

    @abstractmethod
    def label_names(self, rows: Sequence[Row]) -> list[str]:
        """What an answer is chosen among, from the settings or the training rows; none for regression."""

    def label_counts(self, train: E, n_labels: int) -> NDArray[np.int64]:
        """(K,): how often each label stands in the training rows; none where labels are no names."""
        return np.empty(0, np.int64)

    @abstractmethod
    def asks(self) -> dict[str, str]:
        """What a row that is to be answered consists of: its parts, and which columns of the task's files hold them."""

    @abstractmethod
    def inputs(self, ids: list[str], rows: Sequence[Row]) -> E:
        """What is asked, without its answer. Raises UserError, with the place, for a row that cannot be asked."""

    @abstractmethod
    def labelled(self, inputs: E, rows: Sequence[Row], labels: list[str]) -> E:
        """The same with the answers. Raises UserError, with the place, for an answer that cannot be."""

    @abstractmethod
    def encode(self, examples: E, tokenizer: Tokenizer, seq_len: int) -> T:
        """Rows of at most seq_len tokens."""

    @abstractmethod
    def targets(self, examples: E, tokens: T, how: Answering) -> Targets:
        """What the head is to give."""

    @abstractmethod
    def head(self) -> "type[Head]":
        """The task's own part of the model, with its loss."""

    def output_sizes(self, tokens: TokenRows) -> NDArray[np.int64]:
        """(R,): how many outputs the head gives for each row."""
        return np.ones(len(tokens.rows), np.int64)

    def scale(self, train: E) -> tuple[float, float]:
        """Mean and standard deviation of training values; 0 and 1 where answers are no numbers."""
        return 0.0, 1.0

    @abstractmethod
    def answer(self, outputs: NDArray[np.float32], tokens: T, how: Answering) -> A:
        """From the head's outputs, row after row."""

    @abstractmethod
    def decide(self, examples: E, answers: A, how: Answering) -> Decisions:
        """The answers beside what is right, an item a decision."""

    @abstractmethod
    def score(self, found: Decisions, labels: list[str]) -> Scores:
        """All scores: a function of the decisions."""

    @abstractmethod
    def weighted(self, metric: Metric, found: Decisions) -> Weighted:
        """The metric as a function of how often each group of items stands in a resample."""

    @abstractmethod
    def constant(self, train: E, gold: E, how: Answering) -> Decisions:
        """What a model decides that has seen the answers of train, but no text."""

    @abstractmethod
    def describe(self, examples: E, answers: A, how: Answering) -> Iterator[dict[str, Any]]:
        """For every row of the input, what a person or program is told of it."""


def classes_of(labels: list[str], spelled: list[str]) -> dict[str, int]:
    """Class numbers by name, and by how files write them."""
    return {name: k for k, name in enumerate(labels)} | {name: k for k, name in enumerate(spelled)}


def refuse_blank(texts: Sequence[str], rows: Sequence[Row], column: str, what: str = "text") -> None:
    """Raise UserError for the first text, or other field, that says nothing."""
    for text, row in zip(texts, rows, strict=True):
        if not text.strip():
            raise UserError(f"{row.place}: column {column!r} is empty: give the row a {what}, or drop it")


def unknown_label(cfg: TaskConfig, place: str, which: Sequence[str], labels: list[str], n_rows: int) -> UserError:
    """The error for labels that nobody knows; the first of them stands at `place`."""
    known, there = ("task.labels", "add it there") if cfg.labels else ("the training data", "add rows with it")
    names = ", ".join(repr(name) for name in sorted(set(which)))
    return UserError(
        f"{place}: label {names} is not in {known} ({', '.join(cfg.spelled or labels)}): "
        f"{there}, or drop the {n_rows:,} rows that have it"
    )
