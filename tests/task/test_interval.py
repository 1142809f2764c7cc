"""The bootstrap: its fast metrics against the plain ones, and its intervals against what was planted."""

from functools import partial

import numpy as np
import pytest

from foundation.task.config import Metric, TaskKind
from foundation.task.interval import Interval, resampled_differences, weighted_metric
from foundation.task.kinds.config import METRICS
from foundation.task.metrics import score_classification, score_regression

N = 60


@pytest.mark.parametrize("metric", METRICS[TaskKind.classification] + METRICS[TaskKind.regression])
def test_a_weighted_metric_is_the_plain_one_of_the_repeated_items(metric: Metric) -> None:
    draws = np.random.default_rng(0)
    counts = np.bincount(draws.integers(N, size=N), minlength=N)
    n_labels = 0 if metric in METRICS[TaskKind.regression] else 2 if metric is Metric.f1 else 3
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


def between(
    gold: np.ndarray, first: np.ndarray, second: np.ndarray, metric: Metric = Metric.accuracy, n_labels: int = 2
) -> Interval:
    arms = [[partial(weighted_metric, metric, gold, run, n_labels=n_labels) for run in arm] for arm in (first, second)]
    return resampled_differences(*arms, n_groups=len(gold), seed=0).interval


def runs(gold: np.ndarray, accuracy: float, seeds: int, purpose: int) -> np.ndarray:
    draws = np.random.default_rng(purpose)
    wrong = draws.random((seeds, len(gold))) > accuracy
    return np.where(wrong, 1 - gold, gold)


def test_a_planted_difference_is_found_and_its_interval_has_the_known_width() -> None:
    gold = np.random.default_rng(1).integers(2, size=600)
    found = between(gold, runs(gold, 0.7, 3, 2), runs(gold, 0.8, 3, 3))
    assert found.low < 0.1 < found.high
    assert found.low > 0.02
    # From its items, an arm's mean has variance p(1 − p)/(3·600); resampled seeds add less than as much again.
    spread = (0.7 * 0.3 + 0.8 * 0.2) ** 0.5 / (3 * 600) ** 0.5
    assert 2 * 1.96 * spread < found.high - found.low < 2 * 1.96 * spread * 2
    assert (found.n_items, found.n_seeds) == (600, (3, 3))


def test_no_difference_leaves_zero_inside_and_the_same_runs_leave_nothing() -> None:
    gold = np.random.default_rng(1).integers(2, size=400)
    found = between(gold, runs(gold, 0.8, 3, 2), runs(gold, 0.8, 3, 3))
    assert found.low < 0 < found.high
    one = runs(gold, 0.8, 1, 2)
    same = between(gold, one, one)
    assert (same.difference, same.low, same.high) == (0, 0, 0)


def test_pairing_the_items_narrows_the_interval() -> None:
    """Two runs that fail on nearly the same items differ for sure, though each is known badly."""
    gold = np.zeros(400, dtype=np.int64)
    first = (np.arange(400) < 200).astype(np.int64)[None]
    second = (np.arange(400) < 180).astype(np.int64)[None]
    found = between(gold, first, second)
    assert found.difference == pytest.approx(0.05)
    assert 0.02 < found.low < found.high < 0.08


def test_seeds_are_resampled_too() -> None:
    """One seed in three that fails leaves the sign open, whatever the number of items."""
    gold = np.zeros(1000, dtype=np.int64)
    steady = np.tile(np.arange(1000) < 200, (3, 1)).astype(np.int64)
    shaky = np.stack([np.arange(1000) < 100, np.arange(1000) < 100, np.arange(1000) < 600]).astype(np.int64)
    found = between(gold, steady, shaky)
    assert found.low < -0.2
    assert found.high > 0


def test_the_interval_is_a_function_of_its_arguments() -> None:
    gold = np.random.default_rng(1).normal(size=100)
    first, second = gold + np.random.default_rng(2).normal(size=(2, 3, 100))
    one, two = (between(gold, first, second, Metric.spearman, n_labels=0) for _ in range(2))
    assert one == two
