"""How many labels a foundation is worth: learning curves of two arms, and how far one lies to the left of the other.

Letters: B resamples · Z sizes · U draws of training rows · S seeds · N items (or groups of them, drawn together)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foundation.core.randomness import rng
from foundation.task.interval import Floats, Weighted

RESAMPLES = 1000
# Scores at which the horizontal distance is taken, over the band that both curves reach.
_BAND_POINTS = 201


@dataclass(frozen=True, slots=True)
class Answered:
    """The runs of an arm: for each size, for each draw of so many rows, a seed each.

    sizes: ascending, labels. seeds: for each size, those of its runs, in their order.
    """

    name: str
    sizes: list[int]
    runs: list[list[list[Weighted]]]
    seeds: list[list[int]]


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


def scores(answered: Answered, n_items: int) -> list[Floats]:
    """For each size (U, S): the metric of every run."""
    once = np.ones((1, n_items))
    return [np.array([[run(once)[0] for run in seeds] for seeds in draws]) for draws in answered.runs]


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


def advantage(first: Answered, second: Answered, n_items: int) -> Advantage:
    """Data advantage of the arms' mean curves, and an interval.

    A resample draws items (the same for all runs), draws of training rows (the same for both arms and all sizes: they are
    nested), and the seeds of every cell.
    """
    plain = [np.array([cell.mean() for cell in scores(arm, n_items)]) for arm in (first, second)]
    labels = data_advantage((first.sizes, plain[0]), (second.sizes, plain[1]))
    needed = labels_needed(second.sizes, plain[1], plain[0])
    below = plain[0] < plain[1][0]
    resampled = np.array(_resampled(first, second, n_items))
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


def _resampled(first: Answered, second: Answered, n_items: int) -> list[float]:
    draws = rng(0, "few-shot")
    counts_BN = draws.multinomial(n_items, np.full(n_items, 1 / n_items), size=RESAMPLES).astype(np.float64)
    most_draws = max(len(seeds) for seeds in first.runs)
    chosen_BU = draws.integers(most_draws, size=(RESAMPLES, most_draws))
    curves = []
    for arm in (first, second):
        columns = []
        for seeds_of_draws in arm.runs:
            values_BU = np.stack([_over_seeds(draws, seeds, counts_BN) for seeds in seeds_of_draws], axis=1)
            # All rows have one draw only: whatever is drawn is that one.
            picked_BU = np.take_along_axis(values_BU, chosen_BU % values_BU.shape[1], axis=1)
            columns.append(picked_BU.mean(axis=1))
        curves.append(np.stack(columns, axis=1))
    return [
        data_advantage((first.sizes, one), (second.sizes, other))
        for one, other in zip(curves[0], curves[1], strict=True)
    ]


def _over_seeds(draws: np.random.Generator, runs: list[Weighted], counts_BN: Floats) -> Floats:
    """(B,): mean of the metric over seeds drawn with replacement."""
    values_SB = np.stack([run(counts_BN) for run in runs])
    drawn = draws.integers(len(values_SB), size=values_SB.shape)
    return np.take_along_axis(values_SB, drawn, axis=0).mean(axis=0)
