"""How sure is a difference between two arms: a paired bootstrap over items, and over seeds.

A resample draws items with replacement, the same ones for every run of both arms, and seeds of each arm; its value is
the difference between the arms' means over the drawn seeds (Sellam et al. 2022, MultiBERTs, section 4.2, with unpaired
seeds). A resample is a count for each item, so every metric is a weighted one, and thousands are matrix products.
Items that come from one sentence, or one text, are not independent: they are drawn together, as a group.

Letters: B resamples · S seeds · N items · G groups of items · K labels
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from foundation.core.randomness import rng
from foundation.task.config import Metric

Floats: TypeAlias = NDArray[np.float64]
# A run's metric: from how often each group stands in each resample, (B, G), to its values, (B,).
Weighted: TypeAlias = Callable[[Floats], Floats]

RESAMPLES = 10_000
# Counts of so many items (over all resamples of a block) are held at once: 64 MB.
_BLOCK_CELLS = 8_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """Second arm minus first, and the middle 95 % of the resampled differences."""

    difference: float
    low: float
    high: float
    n_items: int
    n_seeds: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Differences:
    """Second arm minus first: as it is, and in every resample, (B,). n_items: groups of items, which are drawn as one."""

    difference: float
    resampled: Floats
    n_items: int
    n_seeds: tuple[int, int]

    @property
    def interval(self) -> Interval:
        """The middle 95 %."""
        low, high = np.quantile(self.resampled, [0.025, 0.975])
        return Interval(self.difference, float(low), float(high), self.n_items, self.n_seeds)


def macro_differences(tasks: Sequence[Differences]) -> Differences:
    """Of the mean over tasks: each task's items and seeds are resampled on their own, and resamples are averaged.

    The tasks themselves are not: the interval is about these tasks. n_items: of all together; n_seeds: the fewest.
    """
    fewest = [min(task.n_seeds[arm] for task in tasks) for arm in (0, 1)]
    return Differences(
        float(np.mean([task.difference for task in tasks])),
        np.mean([task.resampled for task in tasks], axis=0),
        sum(task.n_items for task in tasks),
        (fewest[0], fewest[1]),
    )


def resampled_differences(
    first: Sequence[Weighted], second: Sequence[Weighted], *, n_groups: int, seed: int
) -> Differences:
    """The difference `second − first`, resampled.

    Args:
        first, second: the metric of each arm's runs, over the same groups of items.
        seed: of the draws; tasks that are averaged need one each.
    """
    draws = rng(seed, "bootstrap")
    block = max(1, _BLOCK_CELLS // n_groups)
    differences = []
    for start in range(0, RESAMPLES, block):
        n = min(block, RESAMPLES - start)
        cells = draws.integers(n_groups, size=(n, n_groups)) + np.arange(n)[:, None] * n_groups
        counts_BG = np.bincount(cells.ravel(), minlength=n * n_groups).reshape(n, n_groups).astype(np.float64)
        means = []
        for arm in (first, second):
            values_SB = np.stack([run(counts_BG) for run in arm])
            drawn = draws.integers(len(values_SB), size=values_SB.shape)
            means.append(np.take_along_axis(values_SB, drawn, axis=0).mean(axis=0))
        differences.append(means[1] - means[0])
    once = np.ones((1, n_groups))
    plain = [np.mean([run(once) for run in arm]) for arm in (first, second)]
    return Differences(float(plain[1] - plain[0]), np.concatenate(differences), n_groups, (len(first), len(second)))


def summed_by_group(values_N: Floats, groups: list[str]) -> Floats:
    """(G, …): sums over the items of each group, groups in the order they come up in."""
    numbers: dict[str, int] = {}
    at = np.array([numbers.setdefault(name, len(numbers)) for name in groups])
    sums = np.zeros((len(numbers), *values_N.shape[1:]))
    np.add.at(sums, at, values_N)
    return sums


def weighted_mean(sums_G: Floats, sizes_G: Floats | None = None) -> Weighted:
    """Mean over items, given each group's sum and number of items; without sizes, a group is one item."""
    sizes = np.ones_like(sums_G) if sizes_G is None else sizes_G
    return lambda counts_BG: ratio(counts_BG @ sums_G, counts_BG @ sizes)


def weighted_f1(hits_GK: Floats, gold_GK: Floats, said_GK: Floats, *, is_micro: bool) -> Weighted:
    """F1 of labels, from how often each group has, says and hits each; 0 for a label that never comes up."""

    def value(counts_BG: Floats) -> Floats:
        sums = [counts_BG @ part for part in (hits_GK, gold_GK + said_GK)]
        hits, both = (part.sum(1, keepdims=True) for part in sums) if is_micro else sums
        return ratio(2 * hits, both).mean(1)

    return value


def weighted_metric(
    metric: Metric,
    gold: NDArray[np.int64] | Floats,
    predicted: NDArray[np.int64] | Floats,
    counts_BN: Floats,
    n_labels: int,
) -> Floats:
    """(B,): the metric as if item n stood counts_BN[b, n] times in resample b. For counts of one: metrics.py's.

    metric: one that judges classification or regression.
    """
    if metric is Metric.pearson:
        return _correlation(gold.astype(np.float64)[None], predicted.astype(np.float64)[None], counts_BN)
    if metric is Metric.spearman:
        return _correlation(_ranks(gold, counts_BN), _ranks(predicted, counts_BN), counts_BN)
    labels = np.arange(n_labels)
    gold_NK, said_NK = (np.equal.outer(side, labels).astype(np.float64) for side in (gold, predicted))
    gold_BK, said_BK, hits_BK = counts_BN @ gold_NK, counts_BN @ said_NK, counts_BN @ (gold_NK * said_NK)
    n, hits = gold_BK.sum(1), hits_BK.sum(1)
    match metric:
        case Metric.accuracy | Metric.f1_micro:
            return ratio(hits, n)
        case Metric.matthews:
            spread = (n**2 - (said_BK**2).sum(1)) * (n**2 - (gold_BK**2).sum(1))
            return ratio(hits * n - (said_BK * gold_BK).sum(1), np.sqrt(spread))
        case _:
            f1_BK = ratio(2 * hits_BK, gold_BK + said_BK)
            return f1_BK[:, 1] if metric is Metric.f1 else f1_BK.mean(1)


def ratio(above: Floats, below: Floats) -> Floats:
    """0 where nothing is divided by."""
    out: Floats = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return out


def _correlation(x_BN: Floats, y_BN: Floats, counts_BN: Floats) -> Floats:
    n = counts_BN.sum(1, keepdims=True)
    x_BN = x_BN - (counts_BN * x_BN).sum(1, keepdims=True) / n
    y_BN = y_BN - (counts_BN * y_BN).sum(1, keepdims=True) / n
    spread = np.sqrt((counts_BN * x_BN**2).sum(1) * (counts_BN * y_BN**2).sum(1))
    return ratio((counts_BN * x_BN * y_BN).sum(1), spread)


def _ranks(values: NDArray[np.int64] | Floats, counts_BN: Floats) -> Floats:
    """(B, N) ranks among the resampled items; equal values share the middle of theirs."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    sizes_BG = np.add.reduceat(counts_BN[:, order], starts, axis=1)
    middles_BG = sizes_BG.cumsum(1) - (sizes_BG - 1) / 2
    return middles_BG[:, group]
