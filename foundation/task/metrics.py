"""How good predictions are. Every number is a pure function of gold labels and model outputs.

Letters: N items · K labels
"""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from foundation.task.config import Metric

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scores:
    """values: by metric. per_class: precision, recall, f1, support by label. confusion: (K, K) counts, gold in rows."""

    values: dict[str, float]
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)
    confusion: list[list[int]] = field(default_factory=list)


def softmax(logits_NK: NDArray[np.floating[Any]]) -> Floats:
    """Rows that sum to 1, in float64."""
    shifted = logits_NK.astype(np.float64) - logits_NK.max(axis=-1, keepdims=True)
    powers = np.exp(shifted)
    probabilities: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


def score_classification(gold: Ints, predicted: Ints, labels: list[str]) -> Scores:
    """Accuracy, Matthews correlation; precision, recall, F1 micro, macro, per class: 0 where nothing was predicted."""
    from sklearn import metrics

    numbers = list(range(len(labels)))
    values = {
        "accuracy": float(metrics.accuracy_score(gold, predicted)),
        "matthews": float(metrics.matthews_corrcoef(gold, predicted)),
    }
    for average in ("micro", "macro"):
        three = metrics.precision_recall_fscore_support(
            gold, predicted, labels=numbers, average=average, zero_division=0
        )
        values |= {
            f"{name}_{average}": float(x) for name, x in zip(("precision", "recall", "f1"), three[:3], strict=True)
        }
    columns = metrics.precision_recall_fscore_support(gold, predicted, labels=numbers, average=None, zero_division=0)
    per_class = {
        label: {
            name: float(column[k])
            for name, column in zip(("precision", "recall", "f1", "support"), columns, strict=True)
        }
        for k, label in enumerate(labels)
    }
    if len(labels) == 2:
        values["f1"] = per_class[labels[1]]["f1"]
    confusion = metrics.confusion_matrix(gold, predicted, labels=numbers).tolist()
    return Scores(values, per_class, confusion)


def score_regression(gold: Floats, predicted: Floats) -> Scores:
    """Pearson's and Spearman's correlation, and the root of the mean squared error in the labels' own unit.

    A constant side has no correlation; it counts as 0: it says nothing about the other.
    """
    from scipy import stats

    is_constant = len(gold) < 2 or np.ptp(gold) == 0 or np.ptp(predicted) == 0
    return Scores(
        {
            "pearson": 0.0 if is_constant else float(stats.pearsonr(gold, predicted).statistic),
            "spearman": 0.0 if is_constant else float(stats.spearmanr(gold, predicted).statistic),
            "rmse": float(np.sqrt(np.mean((gold - predicted) ** 2))),
        }
    )


# A regression run whose predictions hardly go with the truth has learnt nothing, whatever the sign.
_LEAST_CORRELATION = 0.1


def is_collapsed(metric: Metric, value: float, floor: float) -> bool:
    """Whether a run is no better than the constant answer (Mosbach et al. 2021 call it a failed run)."""
    if metric in (Metric.pearson, Metric.spearman):
        return abs(value) < _LEAST_CORRELATION
    return value <= floor
