"""Scores against values worked out by hand."""

import numpy as np
import pytest

from foundation.task.config import Metric
from foundation.task.metrics import (
    is_collapsed,
    score_classification,
    score_regression,
    softmax,
)

# Three labels, ten items. Hits: 3 of 4 a, 2 of 3 b, 1 of 3 c.
GOLD = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
SAID = np.array([0, 0, 0, 1, 1, 1, 2, 2, 0, 0])


def test_counts_and_averages_by_hand() -> None:
    scores = score_classification(GOLD, SAID, ["a", "b", "c"])
    assert scores.confusion == [[3, 1, 0], [0, 2, 1], [2, 0, 1]]
    assert scores.values["accuracy"] == pytest.approx(6 / 10)
    # said: 5 a, 3 b, 2 c
    expected = {"a": (3 / 5, 3 / 4, 2 / 3, 4), "b": (2 / 3, 2 / 3, 2 / 3, 3), "c": (1 / 2, 1 / 3, 2 / 5, 3)}
    for label, (precision, recall, f1, support) in expected.items():
        by_hand = {"precision": precision, "recall": recall, "f1": f1, "support": support}
        assert scores.per_class[label] == pytest.approx(by_hand)
    assert scores.values["precision_macro"] == pytest.approx((3 / 5 + 2 / 3 + 1 / 2) / 3)
    assert scores.values["recall_macro"] == pytest.approx((3 / 4 + 2 / 3 + 1 / 3) / 3)
    assert scores.values["f1_macro"] == pytest.approx((2 / 3 + 2 / 3 + 2 / 5) / 3)
    for name in ("precision_micro", "recall_micro", "f1_micro"):
        assert scores.values[name] == pytest.approx(6 / 10)
    # (hits·n − Σ said·gold) / √((n² − Σ said²)(n² − Σ gold²)): (60 − 35) / √((100 − 38)(100 − 34))
    assert scores.values["matthews"] == pytest.approx(25 / (62 * 66) ** 0.5)
    assert "f1" not in scores.values


def test_two_labels_have_an_f1_of_the_second() -> None:
    scores = score_classification(np.array([1, 1, 1, 0, 0]), np.array([1, 1, 0, 1, 0]), ["no", "yes"])
    assert scores.values["f1"] == pytest.approx(2 / 3)  # 2 hits, 3 said, 3 gold
    assert scores.values["matthews"] == pytest.approx((2 * 1 - 1 * 1) / (3 * 3 * 2 * 2) ** 0.5)


def test_a_label_that_is_never_said_scores_zero_and_does_not_warn() -> None:
    scores = score_classification(np.array([0, 0, 1]), np.array([0, 0, 0]), ["a", "b"])
    assert (scores.values["f1"], scores.values["matthews"]) == (0, 0)
    assert scores.values["f1_macro"] == pytest.approx((4 / 5 + 0) / 2)


def test_a_label_that_is_not_in_dev_keeps_its_row() -> None:
    scores = score_classification(np.array([0, 1]), np.array([0, 1]), ["a", "b", "c"])
    assert np.array(scores.confusion).shape == (3, 3)
    assert scores.per_class["c"]["support"] == 0


def test_correlations_by_hand() -> None:
    # Deviations −1, 0, 1 and −2, 1, 1: 3 / √(2·6). Ranks 1, 2, 3 and 1, 2.5, 2.5: 1.5 / √(2·1.5).
    scores = score_regression(np.array([1.0, 2, 3]), np.array([0.0, 3, 3]))
    assert scores.values["pearson"] == pytest.approx(3 / 12**0.5)
    assert scores.values["spearman"] == pytest.approx(1.5 / 3**0.5)
    assert scores.values["rmse"] == pytest.approx((2 / 3) ** 0.5)


def test_a_constant_answer_has_no_correlation() -> None:
    assert score_regression(np.array([1.0, 2, 3]), np.full(3, 2.0)).values["pearson"] == 0


def test_softmax_stands_large_logits() -> None:
    assert softmax(np.array([[1000.0, 1000 + np.log(3)]])) == pytest.approx(np.array([[0.25, 0.75]]))


@pytest.mark.parametrize(
    ("metric", "value", "floor", "collapsed"),
    [
        (Metric.accuracy, 0.51, 0.509, False),
        (Metric.accuracy, 0.509, 0.509, True),
        (Metric.accuracy, 0.4, 0.509, True),
        (Metric.matthews, 0.0, 0.0, True),
        (Metric.matthews, 0.01, 0.0, False),
        (Metric.pearson, 0.09, 0.0, True),
        (Metric.spearman, -0.09, 0.0, True),
        (Metric.pearson, 0.1, 0.0, False),
    ],
)
def test_a_run_no_better_than_a_constant_is_collapsed(
    metric: Metric, value: float, floor: float, collapsed: bool
) -> None:
    assert is_collapsed(metric, value, floor) is collapsed
