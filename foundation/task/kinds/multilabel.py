"""Any of a few labels, or none. An item is one decision: whether one text has one label.

Letters: N rows · K labels
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.task.batches import TokenRows
from foundation.task.config import Metric
from foundation.task.examples import Examples
from foundation.task.interval import Floats, Weighted, ratio, weighted_f1, weighted_mean
from foundation.task.kinds.base import Answering, Answers, classes_of, unknown_label
from foundation.task.kinds.texts import Texts
from foundation.task.metrics import Scores
from foundation.task.predictions import Decisions
from foundation.task.row import Row

if TYPE_CHECKING:
    from foundation.task.heads import Head

# Names of a decision's two sides, in the predictions.
_SIDES = ["no", "yes"]
_RATES = ("precision", "recall", "f1")


class Multilabel(Texts):
    """A label is said when it is more likely than not: its probability is above a half."""

    def label_names(self, rows: Sequence[Row]) -> list[str]:
        """As configured, else those of the training rows, sorted."""
        names = list(self.cfg.labels) or sorted({name for row in rows for name in self._written(row)})
        if not names:
            raise UserError(f"no training row of task {self.cfg.name} has a label in column {self.cfg.label!r}")
        return names

    def label_counts(self, train: Examples, n_labels: int) -> NDArray[np.int64]:
        """Of rows; one may count for several."""
        return train.labels.astype(np.int64).sum(0)

    def _written(self, row: Row) -> list[str]:
        """The row's labels: a list, or divided by the separator; an empty field has none."""
        listed = row.get_list(self.cfg.label)
        parts = row.get(self.cfg.label).split(self.cfg.separator) if listed is None else listed
        return [name for part in parts if (name := part.strip())]

    def gold(self, rows: Sequence[Row], labels: list[str]) -> NDArray[np.int64]:
        """(N, K) zeros and ones."""
        classes = classes_of(labels, self.cfg.spelled)
        gold_NK = np.zeros((len(rows), len(labels)), np.int64)
        unknown: list[tuple[str, str]] = []
        for number, row in enumerate(rows):
            for name in self._written(row):
                if name in classes:
                    gold_NK[number, classes[name]] = 1
                else:
                    unknown.append((row.place, name))
        if unknown:
            raise unknown_label(self.cfg, unknown[0][0], [name for _, name in unknown], labels, len(unknown))
        return gold_NK

    def head(self) -> "type[Head]":
        """Binary cross-entropy, label by label."""
        from foundation.task.heads import LabelSetHead

        return LabelSetHead

    def answer(self, outputs: NDArray[np.float32], tokens: TokenRows, how: Answering) -> Answers:
        """Row by row, and in it label by label."""
        return _answers(outputs)

    def decide(self, examples: Examples, answers: Answers, how: Answering) -> Decisions:
        """An item a row and label; the items of a row are a group."""
        item_ids = [f"{name}:{label}" for name in examples.ids for label in how.labels]
        groups = [name for name in examples.ids for _ in how.labels]
        return answers.beside(examples.labels.ravel(), item_ids, _SIDES, groups)

    def score(self, found: Decisions, labels: list[str]) -> Scores:
        """F1 micro, macro, and by label: 0 where nothing was said; the share of rows with every label right."""
        gold_NK, said_NK = (side.reshape(-1, len(labels)) for side in (found.gold, found.predicted))
        # Counted here: sklearn takes a single column for a task of two labels, of which the other is scored too.
        counts_3K = np.stack([part.sum(0) for part in (gold_NK * said_NK, said_NK, gold_NK)])
        values = {"exact_match": float((gold_NK == said_NK).all(1).mean())}
        for average, rates_3 in (("micro", _rates(counts_3K.sum(1))), ("macro", _rates(counts_3K).mean(1))):
            values |= {f"{name}_{average}": float(rate) for name, rate in zip(_RATES, rates_3, strict=True)}
        per_class = {
            label: dict(zip((*_RATES, "support"), (*rates_3.tolist(), float(n_gold)), strict=True))
            for label, rates_3, n_gold in zip(labels, _rates(counts_3K).T, counts_3K[2], strict=True)
        }
        return Scores(values, per_class)

    def weighted(self, metric: Metric, found: Decisions) -> Weighted:
        """Resampled by row."""
        n_labels = len(found.item_ids) // len(set(found.groups))
        gold_NK, said_NK = (side.reshape(-1, n_labels) for side in (found.gold, found.predicted))
        if metric is Metric.exact_match:
            return weighted_mean((gold_NK == said_NK).all(1).astype(np.float64))
        return weighted_f1(gold_NK * said_NK, gold_NK, said_NK, is_micro=metric is Metric.f1_micro)

    def constant(self, train: Examples, gold: Examples, how: Answering) -> Decisions:
        """The same labels for every row.

        All of them for f1_macro, and for f1_micro so many of the commonest that it is highest on the training rows: there no
        other set is better. Else those that most rows have, or the commonest one where none is so common.
        """
        shares_K = train.labels.mean(0)
        match self.cfg.primary:
            case Metric.f1_macro:
                least = 0.0
            case Metric.f1_micro:
                falling_K = np.sort(shares_K)[::-1]
                f1_K = 2 * falling_K.cumsum() / (np.arange(1, how.n_out + 1) + shares_K.sum())
                least = float(falling_K[f1_K.argmax()])
            case _:
                least = min(0.5, float(shares_K.max()))
        outputs = np.tile(np.where(shares_K >= least, 1, -1).astype(np.float32), (len(gold), 1))
        return self.decide(gold, _answers(outputs), how)

    def said(self, number: int, answers: Answers, how: Answering) -> dict[str, Any]:
        """The labels, and how probable each is."""
        shares_K = answers.probabilities[:, 1].reshape(-1, how.n_out)[number].tolist()
        said_K = answers.predicted.reshape(-1, how.n_out)[number]
        return {
            "labels": [label for label, said in zip(how.labels, said_K, strict=True) if said],
            "probabilities": dict(zip(how.labels, shares_K, strict=True)),
        }


def _rates(counts: Floats) -> Floats:
    """(3, …): precision, recall, F1 of (3, …) hits, said, gold; 0 where nothing is divided by."""
    hits, said, gold = counts
    return np.stack([ratio(hits, said), ratio(hits, gold), ratio(2 * hits, said + gold)])


def _answers(outputs_NK: NDArray[np.float32]) -> Answers:
    """(N·K, 2): the softmax of (0, z) is the logistic function of z."""
    return Answers.of_highest(np.stack([np.zeros(outputs_NK.size, np.float32), outputs_NK.ravel()], axis=1))
