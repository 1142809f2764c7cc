"""Kinds that ask about a text, or a pair of texts, as a whole: one label, a number, or several labels."""

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.data.tokenizer import Tokenizer
from foundation.task.batches import Targets, TokenRows, tokenize
from foundation.task.config import Metric
from foundation.task.examples import Examples
from foundation.task.interval import Weighted, weighted_metric
from foundation.task.kinds.base import Answering, Answers, Kind, classes_of, refuse_blank, unknown_label
from foundation.task.metrics import Scores, score_classification, score_regression
from foundation.task.predictions import Decisions
from foundation.task.row import Row

if TYPE_CHECKING:
    from foundation.task.heads import Head

# A label column with more labels than this, and one for every second row, is a number or an identifier.
_MANY_LABELS = 50


class Texts(Kind[Examples, TokenRows, Answers]):
    """What the three have in common."""

    def asks(self) -> dict[str, str]:
        """One text or two."""
        pair = {} if self.cfg.text_pair is None else {"text_pair": self.cfg.text_pair}
        return {"text": self.cfg.text, **pair}

    def inputs(self, ids: list[str], rows: Sequence[Row]) -> Examples:
        """The text column, and that of the second text."""
        text = [row.get(self.cfg.text) for row in rows]
        pair = None if self.cfg.text_pair is None else [row.get(self.cfg.text_pair) for row in rows]
        return Examples(ids, text, pair, np.zeros(len(rows), np.int64))

    def labelled(self, inputs: Examples, rows: Sequence[Row], labels: list[str]) -> Examples:
        """Texts that say something, with the label column."""
        refuse_blank(inputs.text, rows, self.cfg.text)
        if inputs.text_pair is not None:
            refuse_blank(inputs.text_pair, rows, str(self.cfg.text_pair))
        return replace(inputs, labels=self.gold(rows, labels))

    @abstractmethod
    def gold(self, rows: Sequence[Row], labels: list[str]) -> NDArray[Any]:
        """The label column, understood."""

    def encode(self, examples: Examples, tokenizer: Tokenizer, seq_len: int) -> TokenRows:
        """One or two segments."""
        return tokenize(examples.text, examples.text_pair, tokenizer, seq_len)

    def targets(self, examples: Examples, tokens: TokenRows, how: Answering) -> Targets:
        """The labels."""
        return examples.labels

    def decide(self, examples: Examples, answers: Answers, how: Answering) -> Decisions:
        """An item a row."""
        return answers.beside(examples.labels, examples.ids, how.labels)

    def weighted(self, metric: Metric, found: Decisions) -> Weighted:
        """Every item is a group of its own."""
        return partial(weighted_metric, metric, found.gold, found.predicted, n_labels=len(found.labels))

    def describe(self, examples: Examples, answers: Answers, how: Answering) -> Iterator[dict[str, Any]]:
        """Row by row."""
        for number in range(len(examples)):
            yield self.said(number, answers, how)

    @abstractmethod
    def said(self, number: int, answers: Answers, how: Answering) -> dict[str, Any]:
        """Of one row."""


class Classification(Texts):
    """One of a few labels."""

    def label_names(self, rows: Sequence[Row]) -> list[str]:
        """As configured, else those of the training rows, sorted."""
        if self.cfg.labels:
            return list(self.cfg.labels)
        written = [row.get(self.cfg.label).strip() for row in rows]
        refuse_blank(written, rows, self.cfg.label, "label")
        names = sorted(set(written))
        if len(names) < 2:
            raise UserError(
                f"every training row of task {self.cfg.name} has the label {names[0]!r}: there is nothing to tell apart"
            )
        if len(names) > _MANY_LABELS and len(names) > len(written) / 2:
            raise UserError(
                f"column {self.cfg.label!r} has {len(names):,} different labels in {len(written):,} rows: "
                "if it holds numbers set task.kind=regression, else name another column with task.label=COLUMN"
            )
        return names

    def label_counts(self, train: Examples, n_labels: int) -> NDArray[np.int64]:
        """Of rows."""
        return np.bincount(train.labels.astype(np.int64), minlength=n_labels)

    def gold(self, rows: Sequence[Row], labels: list[str]) -> NDArray[np.int64]:
        """(N,) class numbers."""
        classes = classes_of(labels, self.cfg.spelled)
        written = [row.get(self.cfg.label).strip() for row in rows]
        if "" not in classes:
            refuse_blank(written, rows, self.cfg.label, "label")
        unknown = [number for number, name in enumerate(written) if name not in classes]
        if unknown:
            which = [written[number] for number in unknown]
            raise unknown_label(self.cfg, rows[unknown[0]].place, which, labels, len(unknown))
        return np.array([classes[name] for name in written], dtype=np.int64)

    def head(self) -> "type[Head]":
        """Cross-entropy over labels."""
        from foundation.task.heads import LabelHead

        return LabelHead

    def answer(self, outputs: NDArray[np.float32], tokens: TokenRows, how: Answering) -> Answers:
        """The label of the highest logit."""
        return Answers.of_highest(outputs)

    def score(self, found: Decisions, labels: list[str]) -> Scores:
        """Accuracy, F1 and others."""
        return score_classification(found.gold.astype(np.int64), found.predicted.astype(np.int64), found.labels)

    def constant(self, train: Examples, gold: Examples, how: Answering) -> Decisions:
        """The label that judges best when it is said of every training row: the commonest, but for F1 the one that it is of."""
        said = 1 if self.cfg.primary is Metric.f1 else int(self.label_counts(train, how.n_out).argmax())
        logits = np.tile(np.eye(how.n_out, dtype=np.float32)[said], (len(gold), 1))
        return self.decide(gold, Answers.of_highest(logits), how)

    def said(self, number: int, answers: Answers, how: Answering) -> dict[str, Any]:
        """The label, and how probable each is."""
        shares = answers.probabilities[number].tolist()
        return {
            "label": how.labels[int(answers.predicted[number])],
            "probabilities": dict(zip(how.labels, shares, strict=True)),
        }


class Regression(Texts):
    """A number."""

    def label_names(self, rows: Sequence[Row]) -> list[str]:
        """None."""
        return []

    def gold(self, rows: Sequence[Row], labels: list[str]) -> NDArray[np.float64]:
        """(N,) values as they stand."""
        return np.array([_number(row.get(self.cfg.label).strip(), row.place) for row in rows], dtype=np.float64)

    def scale(self, train: Examples) -> tuple[float, float]:
        """Of the training values."""
        mean, std = float(train.labels.mean()), float(train.labels.std())
        if std == 0:
            raise UserError(
                f"every training row of task {self.cfg.name} has the value {mean:g}: there is nothing to learn"
            )
        return mean, std

    def targets(self, examples: Examples, tokens: TokenRows, how: Answering) -> Targets:
        """Standardised values."""
        standard: NDArray[np.float64] = (examples.labels.astype(np.float64) - how.mean) / how.std
        return standard

    def head(self) -> "type[Head]":
        """Squared error."""
        from foundation.task.heads import ValueHead

        return ValueHead

    def answer(self, outputs: NDArray[np.float32], tokens: TokenRows, how: Answering) -> Answers:
        """Values in the labels' own unit."""
        values = outputs[:, :1].astype(np.float64) * how.std + how.mean
        return Answers(values[:, 0], values.astype(np.float32), np.empty((len(values), 0)))

    def score(self, found: Decisions, labels: list[str]) -> Scores:
        """Correlations and error."""
        return score_regression(found.gold, found.predicted)

    def constant(self, train: Examples, gold: Examples, how: Answering) -> Decisions:
        """The mean training value."""
        mean = np.full((len(gold), 1), float(train.labels.mean()))
        return self.decide(gold, Answers(mean[:, 0], mean.astype(np.float32), np.empty((len(gold), 0))), how)

    def said(self, number: int, answers: Answers, how: Answering) -> dict[str, Any]:
        """The value."""
        return {"value": float(answers.predicted[number])}


def _number(written: str, place: str) -> float:
    try:
        number = float(written)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{place}: label {written!r} is not a number: mend it, or set task.kind=classification")
    return number
