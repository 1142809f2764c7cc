"""The bootstrap: its fast metrics against the plain ones, and its intervals against what was planted."""

import numpy as np
import pytest

from foundation.task.config import REGRESSION_METRICS, Metric
from foundation.task.interval import difference_interval, weighted_metric
from foundation.task.metrics import score_classification, score_regression

N = 60


@pytest.mark.parametrize("metric", [m for m in Metric if m is not Metric.usual])
def test_a_weighted_metric_is_the_plain_one_of_the_repeated_items(metric: Metric) -> None:
    draws = np.random.default_rng(0)
    counts = np.bincount(draws.integers(N, size=N), minlength=N)
    n_labels = 0 if metric in REGRESSION_METRICS else 2 if metric is Metric.f1 else 3
    if n_labels:
        gold, said = draws.integers(n_labels, size=(2, N))
    else:
        gold, said = draws.integers(9, size=(2, N)) / 2.0  # with ties
    for weights in (np.ones(N, int), counts):
        g, s = gold.repeat(weights), said.repeat(weights)
        names = [str(k) for k in range(n_labels)]
        plain = score_classification(g, s, names) if n_labels else score_regression(g, s)
        fast = weighted_metric(metric, gold, said, weights[None].astype(float), n_labels)
        assert fast == pytest.approx([plain.values[metric.value]], abs=1e-12)


def runs(gold: np.ndarray, accuracy: float, seeds: int, purpose: int) -> np.ndarray:
    draws = np.random.default_rng(purpose)
    wrong = draws.random((seeds, len(gold))) > accuracy
    return np.where(wrong, 1 - gold, gold)


def test_a_planted_difference_is_found_and_its_interval_has_the_known_width() -> None:
    gold = np.random.default_rng(1).integers(2, size=600)
    found = difference_interval(Metric.accuracy, gold, runs(gold, 0.7, 3, 2), runs(gold, 0.8, 3, 3), n_labels=2, seed=0)
    assert found.low < 0.1 < found.high
    assert found.low > 0.02
    # From its items, an arm's mean has variance p(1 − p)/(3·600); resampled seeds add less than as much again.
    spread = (0.7 * 0.3 + 0.8 * 0.2) ** 0.5 / (3 * 600) ** 0.5
    assert 2 * 1.96 * spread < found.high - found.low < 2 * 1.96 * spread * 2
    assert (found.n_items, found.n_seeds) == (600, (3, 3))


def test_no_difference_leaves_zero_inside_and_the_same_runs_leave_nothing() -> None:
    gold = np.random.default_rng(1).integers(2, size=400)
    found = difference_interval(Metric.accuracy, gold, runs(gold, 0.8, 3, 2), runs(gold, 0.8, 3, 3), n_labels=2, seed=0)
    assert found.low < 0 < found.high
    one = runs(gold, 0.8, 1, 2)
    same = difference_interval(Metric.accuracy, gold, one, one, n_labels=2, seed=0)
    assert (same.difference, same.low, same.high) == (0, 0, 0)


def test_pairing_the_items_narrows_the_interval() -> None:
    """Two runs that fail on nearly the same items differ for sure, though each is known badly."""
    gold = np.zeros(400, dtype=np.int64)
    first = (np.arange(400) < 200).astype(np.int64)[None]
    second = (np.arange(400) < 180).astype(np.int64)[None]
    found = difference_interval(Metric.accuracy, gold, first, second, n_labels=2, seed=0)
    assert found.difference == pytest.approx(0.05)
    assert 0.02 < found.low < found.high < 0.08


def test_seeds_are_resampled_too() -> None:
    """One seed in three that fails leaves the sign open, whatever the number of items."""
    gold = np.zeros(1000, dtype=np.int64)
    steady = np.tile(np.arange(1000) < 200, (3, 1)).astype(np.int64)
    shaky = np.stack([np.arange(1000) < 100, np.arange(1000) < 100, np.arange(1000) < 600]).astype(np.int64)
    found = difference_interval(Metric.accuracy, gold, steady, shaky, n_labels=2, seed=0)
    assert found.low < -0.2
    assert found.high > 0


def test_the_interval_is_a_function_of_its_arguments() -> None:
    gold = np.random.default_rng(1).normal(size=100)
    first, second = gold + np.random.default_rng(2).normal(size=(2, 3, 100))
    one, two = (difference_interval(Metric.spearman, gold, first, second, n_labels=0, seed=0) for _ in range(2))
    assert one == two
