"""Where differences between models come from: the foundation, or what came after it.

Letters: N items · P foundations · S fine-tuning seeds · Q tasks
"""

from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from foundation.core.errors import UserError
from foundation.core.randomness import rng

Floats: TypeAlias = NDArray[np.float64]

_PIVOT_DRAWS = 20_000


@dataclass(frozen=True, slots=True)
class Decomposition:
    """Means over items. pretraining (V_pt), finetuning (V_ft): variances, unbiased, so the first may be negative.

    bias_squared: loss − V_pt − V_ft. share: ρ_F = V_pt / (V_pt + V_ft), NaN where nothing varies.
    within, across: mean squared difference of two seeds of one foundation, and of two foundations.
    """

    bias_squared: float
    pretraining: float
    finetuning: float

    @property
    def share(self) -> float:
        """ρ_F."""
        return foundation_share(self.pretraining, self.finetuning)

    @property
    def within(self) -> float:
        """2·V_ft: exact, since half the mean squared difference of two draws is the sample variance."""
        return 2 * self.finetuning

    @property
    def across(self) -> float:
        """2·(V_ft + V_pt)."""
        return 2 * (self.finetuning + self.pretraining)


def foundation_share(pretraining: float, finetuning: float) -> float:
    """ρ_F: the part of a model's item-wise variance that its foundation decides; NaN where nothing varies."""
    total = pretraining + finetuning
    return pretraining / total if total else float("nan")


def nested_decomposition(correct_NPS: NDArray[np.generic], gold: float = 1.0) -> Decomposition:
    """Bias² and the two variances of correctness, seeds nested in foundations; needs P ≥ 2 and S ≥ 2.

    Args:
        correct_NPS: 1 where a model is right, 0 where not (or any number whose target is `gold`).

    Source: Zhong et al. 2021 (Findings of ACL, "Are larger pretrained language models uniformly better? Comparing
    performance at the instance level", section 4).
    """
    values = correct_NPS.astype(np.float64)
    _, n_foundations, n_seeds = values.shape
    if n_foundations < 2 or n_seeds < 2:
        raise UserError(
            f"the variance of {n_foundations} foundations × {n_seeds} seeds cannot be split: it takes two of each"
        )
    seeds_NP = values.var(axis=2, ddof=1)
    finetuning = seeds_NP.mean()
    # The variance of P means holds a part of the seeds' variance, which is taken off again.
    pretraining = values.mean(axis=2).var(axis=1, ddof=1).mean() - finetuning / n_seeds
    loss = ((values - gold) ** 2).mean()
    return Decomposition(float(loss - finetuning - pretraining), float(pretraining), float(finetuning))


def mean_differences(values_NPS: NDArray[np.generic]) -> tuple[float, float]:
    """Mean |difference| of two seeds of one foundation, and of two models of different foundations (all their seeds)."""
    values = values_NPS.astype(np.float64)
    n_foundations, n_seeds = values.shape[1:]
    within = [np.abs(values[:, :, a] - values[:, :, b]).mean() for a, b in combinations(range(n_seeds), 2)]
    across = [
        np.abs(values[:, a, :, None] - values[:, b, None, :]).mean() for a, b in combinations(range(n_foundations), 2)
    ]
    return float(np.mean(within)), float(np.mean(across))


def normalised_score(score: Floats, floor: Floats, ceiling: float = 1.0) -> Floats:
    """(score − floor) / (ceiling − floor): 0 is the constant answer, 1 is perfect. Makes tasks comparable."""
    return (score - floor) / (ceiling - floor)


def spread_over_tasks(scores_QX: Floats) -> Floats:
    """(X,): standard deviation over tasks (n − 1 below) of a model's normalised scores; small: scores have converged."""
    if len(scores_QX) < 2:
        raise UserError("the spread over tasks needs at least two tasks")
    return scores_QX.std(axis=0, ddof=1)


@dataclass(frozen=True, slots=True)
class Inheritance:
    """How far a foundation's quality is the same on every task, from scores of Q tasks × P foundations × S seeds.

    foundation, interaction, seed: variance components σ²_φ, σ²_τφ, σ²_ε, unbiased, so the first two may be negative.
    index: σ²_φ / (σ²_φ + σ²_τφ) with negative ones taken as 0: 1: a foundation that is bad is bad everywhere;
    0: its effect belongs to the task; NaN: no effect at all. low, high: its 95 % interval.
    correlation: mean Pearson correlation over task pairs of foundations' mean scores, NaN below five foundations.
    """

    foundation: float
    interaction: float
    seed: float
    index: float
    low: float
    high: float
    correlation: float


def inheritance(scores_QPS: Floats, seed: int = 0) -> Inheritance:
    """Variance components of z = μ + task + foundation + task × foundation + seed, balanced, by mean squares.

    The interval is a generalised one: each mean square is divided by a draw of its own χ²/df, which keeps the interval
    inside [0, 1] and needs no large P. It takes effects as normal.

    Raises:
        UserError: fewer than two tasks, three foundations, or two seeds.

    Source: components: Searle, Casella & McCulloch 1992, section 4.5; interval: Weerahandi 1993 (JASA, "Generalized
    confidence intervals"), Hannig, Iyer & Patterson 2006.
    """
    n_tasks, n_foundations, n_seeds = scores_QPS.shape
    if n_tasks < 2 or n_foundations < 3 or n_seeds < 2:
        raise UserError(
            f"the inheritance index needs 2 tasks, 3 foundations and 2 seeds, and has {n_tasks}, {n_foundations}, {n_seeds}"
        )
    cells_QP = scores_QPS.mean(axis=2)
    mean = cells_QP.mean()
    foundation_P, task_Q = cells_QP.mean(axis=0) - mean, cells_QP.mean(axis=1) - mean
    sums = np.array(
        [
            n_tasks * n_seeds * (foundation_P**2).sum(),
            n_seeds * ((cells_QP - mean - foundation_P - task_Q[:, None]) ** 2).sum(),
            ((scores_QPS - cells_QP[..., None]) ** 2).sum(),
        ]
    )
    freedom = np.array(
        [n_foundations - 1, (n_foundations - 1) * (n_tasks - 1), n_tasks * n_foundations * (n_seeds - 1)]
    )
    parts = _components(sums / freedom, n_tasks, n_seeds)
    draws = rng(seed, "inheritance").chisquare(freedom, size=(_PIVOT_DRAWS, 3))
    pivots = _index(*_components(sums / draws, n_tasks, n_seeds)[..., :2].T)
    low, high = np.nanquantile(pivots, [0.025, 0.975]) if np.isfinite(pivots).any() else (np.nan, np.nan)
    return Inheritance(
        foundation=float(parts[0]),
        interaction=float(parts[1]),
        seed=float(parts[2]),
        index=float(_index(parts[0], parts[1])),
        low=float(low),
        high=float(high),
        correlation=score_correlation(cells_QP) if n_foundations >= 5 else float("nan"),
    )


def _components(squares: Floats, n_tasks: int, n_seeds: int) -> Floats:
    """(…, 3): σ²_φ, σ²_τφ, σ²_ε from the mean squares of foundations, interaction and seeds."""
    foundation, interaction, error = np.moveaxis(squares, -1, 0)
    return np.stack([(foundation - interaction) / (n_tasks * n_seeds), (interaction - error) / n_seeds, error], axis=-1)


def _index(foundation: Floats, interaction: Floats) -> Floats:
    above, below = np.maximum(foundation, 0), np.maximum(foundation, 0) + np.maximum(interaction, 0)
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)


def score_correlation(scores_QP: Floats) -> float:
    """Mean over task pairs of the correlation between foundations' scores; pairs with a constant side are left out."""
    pairs = [(a, b) for a, b in combinations(scores_QP, 2) if np.ptp(a) > 0 and np.ptp(b) > 0]
    return float(np.mean([stats.pearsonr(a, b).statistic for a, b in pairs])) if pairs else float("nan")


@dataclass(frozen=True, slots=True)
class Gap:
    """A difference of two means with Welch's 95 % interval; NaN ends where a side has fewer than two."""

    difference: float
    low: float
    high: float


def specificity_gap(specialised: Floats, shared: Floats) -> Gap:
    """What a foundation made for the task is ahead of the shared ones: normalised scores, one number a foundation.

    The unit is the foundation, so seeds are averaged before. Unequal variances: Welch 1947.
    """
    difference = float(specialised.mean() - shared.mean())
    if min(len(specialised), len(shared)) < 2:
        return Gap(difference, float("nan"), float("nan"))
    interval = stats.ttest_ind(specialised, shared, equal_var=False).confidence_interval(0.95)
    return Gap(difference, float(interval.low), float(interval.high))
