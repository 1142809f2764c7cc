"""How many labels a foundation is worth: learning curves of two arms, and how far one lies to the left of the other.

Letters: B resamples · Z sizes · U draws of training rows · S seeds · N items
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foundation.core.randomness import rng
from foundation.task.config import Metric
from foundation.task.interval import Floats, weighted_metric

RESAMPLES = 1000
# Scores at which the horizontal distance is taken, over the band that both curves reach.
_BAND_POINTS = 201


@dataclass(frozen=True, slots=True)
class Answered:
    """What the runs of an arm said: for each size, for each draw of so many rows, (S, N). sizes: ascending, labels."""

    name: str
    sizes: list[int]
    predicted: list[list[Floats]]


@dataclass(frozen=True, slots=True)
class Advantage:
    """Data advantage of the first arm over the second, in labels, with the middle 95 % of its resamples.

    labels: None where the curves share no score. equivalents: for each size of the first arm, the labels that the second
    needs for the same score; None where none of its sizes reaches it, 0 where its smallest is above.
    undefined: share of resamples in which the curves share no score; they are left out of low and high.
    """

    labels: float | None
    low: float | None
    high: float | None
    equivalents: list[float | None]
    undefined: float


def scores(answered: Answered, metric: Metric, gold: NDArray[np.int64] | Floats, n_labels: int) -> list[Floats]:
    """For each size (U, S): the metric of every run."""
    once = np.ones((1, len(gold)))
    return [
        np.array([[weighted_metric(metric, gold, run, once, n_labels)[0] for run in runs] for runs in draws])
        for draws in answered.predicted
    ]


def labels_needed(sizes: Sequence[int], curve_Z: Floats, wanted: Floats) -> Floats:
    """The least number of labels at which a curve reaches each wanted score; inf where it never does.

    More labels do no harm: the curve is taken as its running maximum. Between two sizes it is a line over log(labels), as the
    sizes are doubled; a score below the first size's needs no more than that.
    """
    best_Z, logs_Z = np.maximum.accumulate(curve_Z), np.log(np.array(sizes, dtype=np.float64))
    # The first size that reaches it, and the one before, which does not.
    at = np.searchsorted(best_Z, wanted, side="left").clip(max=len(best_Z) - 1)
    before = (at - 1).clip(min=0)
    step = best_Z[at] - best_Z[before]
    done = np.divide(wanted - best_Z[before], step, out=np.ones_like(wanted), where=step > 0)
    found = np.exp(logs_Z[before] + done * (logs_Z[at] - logs_Z[before]))
    return np.where(wanted > best_Z[-1], np.inf, np.where(at == 0, float(sizes[0]), found))


def data_advantage(first: tuple[Sequence[int], Floats], second: tuple[Sequence[int], Floats]) -> float:
    """Mean horizontal distance of two curves (sizes, scores) over the scores that both reach: labels that the first saves.

    nan where there is no such score. Source: Le Scao & Rush 2021, section 3.
    """
    low = max(float(curve.min()) for _, curve in (first, second))
    high = min(float(curve.max()) for _, curve in (first, second))
    if not low < high:
        return float("nan")
    band = np.linspace(low, high, _BAND_POINTS)
    return float(np.trapezoid(labels_needed(*second, band) - labels_needed(*first, band), band) / (high - low))


def advantage(
    first: Answered, second: Answered, metric: Metric, gold: NDArray[np.int64] | Floats, n_labels: int
) -> Advantage:
    """Data advantage of the arms' mean curves, and an interval.

    A resample draws items (the same for all runs), draws of training rows (the same for both arms and all sizes: they are
    nested), and the seeds of every cell.
    """
    plain = [np.array([cell.mean() for cell in scores(arm, metric, gold, n_labels)]) for arm in (first, second)]
    labels = data_advantage((first.sizes, plain[0]), (second.sizes, plain[1]))
    needed = labels_needed(second.sizes, plain[1], plain[0])
    below = plain[0] < plain[1][0]
    resampled = np.array(_resampled(first, second, metric, gold, n_labels))
    known = resampled[~np.isnan(resampled)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (None, None)
    return Advantage(
        labels=None if np.isnan(labels) else labels,
        low=None if low is None else float(low),
        high=None if high is None else float(high),
        equivalents=[
            0.0 if is_below else float(n) if np.isfinite(n) else None for n, is_below in zip(needed, below, strict=True)
        ],
        undefined=1 - len(known) / len(resampled),
    )


def _resampled(
    first: Answered, second: Answered, metric: Metric, gold: NDArray[np.int64] | Floats, n_labels: int
) -> list[float]:
    draws = rng(0, "few-shot")
    n_items = len(gold)
    counts_BN = draws.multinomial(n_items, np.full(n_items, 1 / n_items), size=RESAMPLES).astype(np.float64)
    most_draws = max(len(runs) for runs in first.predicted)
    chosen_BU = draws.integers(most_draws, size=(RESAMPLES, most_draws))
    curves = []
    for arm in (first, second):
        columns = []
        for runs_of_draws in arm.predicted:
            values_BU = np.stack(
                [_over_seeds(draws, metric, gold, runs, counts_BN, n_labels) for runs in runs_of_draws], axis=1
            )
            # All rows have one draw only: whatever is drawn is that one.
            picked_BU = np.take_along_axis(values_BU, chosen_BU % values_BU.shape[1], axis=1)
            columns.append(picked_BU.mean(axis=1))
        curves.append(np.stack(columns, axis=1))
    return [
        data_advantage((first.sizes, one), (second.sizes, other))
        for one, other in zip(curves[0], curves[1], strict=True)
    ]


def _over_seeds(
    draws: np.random.Generator,
    metric: Metric,
    gold: NDArray[np.int64] | Floats,
    runs_SN: Floats,
    counts_BN: Floats,
    n_labels: int,
) -> Floats:
    """(B,): mean of the metric over seeds drawn with replacement."""
    values_SB = np.stack([weighted_metric(metric, gold, run, counts_BN, n_labels) for run in runs_SN])
    drawn = draws.integers(len(values_SB), size=values_SB.shape)
    return np.take_along_axis(values_SB, drawn, axis=0).mean(axis=0)
