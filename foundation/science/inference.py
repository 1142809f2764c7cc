"""How sure a figure is when both foundations and items are samples: two-way jackknife, multibootstrap, permutations.

The unit of replication is the foundation. With fewer than three nothing is said about how foundations are made.

Letters: P foundations · G blocks of items · T pairs (or larger tuples) of models · B resamples · R permutations
A *table* (1 + G, 1 + P) holds a statistic: row 0 with all items, row g without block g; column 0 with all
foundations, column p without the p-th.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from foundation.core.errors import UserError
from foundation.core.randomness import rng

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

FEWEST_FOUNDATIONS = 3
MOST_BLOCKS = 100


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure, its 95 % interval, and what it stands on.

    about_procedure: the interval counts foundations as a sample of those that could have been made; else it holds for these
    ones only. standard_error is NaN, and so are the ends, where not even items can be resampled.
    """

    value: float
    low: float
    high: float
    standard_error: float
    freedom: float
    n_foundations: int
    n_seeds: int
    n_items: int
    about_procedure: bool

    def p_value(self) -> float:
        """Two-sided, of the value being 0. Raises UserError with fewer than three foundations."""
        if not self.about_procedure:
            raise UserError(
                f"a p-value about how foundations are made needs {FEWEST_FOUNDATIONS} of them, and there are "
                f"{self.n_foundations}: pretrain more with other seeds"
            )
        if not self.standard_error > 0:
            return 1.0 if self.value == 0 else float("nan")
        return float(2 * stats.t.sf(abs(self.value) / self.standard_error, self.freedom))


@dataclass(frozen=True, slots=True)
class Sample:
    """How many of each kind a figure stands on."""

    n_foundations: int
    n_seeds: int
    n_items: int


def item_blocks(n_items: int, seed: int = 0) -> Ints:
    """(N,): a block for each item, drawn at random, of nearly equal sizes: at most 100, at least one item each.

    Leaving out a random block of exchangeable items is as good as leaving out each, and N/100 times cheaper.
    """
    blocks = np.arange(n_items) % min(n_items, MOST_BLOCKS)
    return rng(seed, "blocks", n_items).permutation(blocks)


def block_sums(values_XN: NDArray[np.generic], blocks_N: Ints) -> Floats:
    """(X, G): sums over the items of each block."""
    order = np.argsort(blocks_N, kind="stable")
    starts = np.flatnonzero(np.diff(blocks_N[order], prepend=-1))
    return np.add.reduceat(values_XN[:, order].astype(np.float64), starts, axis=1)


def left_out(sums_XG: Floats) -> Floats:
    """(1 + G, X): totals of all blocks, and of all but each one."""
    total = sums_XG.sum(axis=1)
    return np.concatenate([total[None], total - sums_XG.T])


def tuple_weights(members_Tk: Ints, n_foundations: int) -> Floats:
    """(1 + P, T): equal weights of all tuples, and of those without the p-th foundation; 0 rows where none is left.

    Args:
        members_Tk: foundations of a tuple's models, once or more.
    """
    keeps = np.ones((1 + n_foundations, len(members_Tk)))
    for column in members_Tk.T:
        keeps[1 + column, np.arange(len(members_Tk))] = 0
    total = keeps.sum(axis=1, keepdims=True)
    return np.divide(keeps, total, out=np.full_like(keeps, np.nan), where=total > 0)


def arm_table(scores_PSN: Sequence[Floats], blocks_N: Ints | None = None) -> Floats:
    """Table of an arm's mean, foundations weighing alike: accuracy, where scores are 1 for right.

    Two of them subtracted, of the same foundations and items, are the table of a paired difference.
    """
    blocks = item_blocks(scores_PSN[0].shape[-1]) if blocks_N is None else blocks_N
    sums_PG = np.stack([block_sums(seeds, blocks).mean(axis=0) for seeds in scores_PSN])
    n_items_V = left_out(np.bincount(blocks)[None].astype(np.float64))
    weights = tuple_weights(np.arange(len(sums_PG))[:, None], len(sums_PG))
    table: Floats = left_out(sums_PG) / n_items_V @ weights.T
    return table


def estimate(table: Floats, sample: Sample) -> Estimate:
    """Interval of a smooth statistic of foundations × items, by the delete-one jackknife in both directions.

    Variances over foundations and over items both hold what an item makes of a foundation, so that part, taken from
    leaving out one of each, is subtracted once. Student's t with Satterthwaite's degrees of freedom: with five
    foundations the normal quantile would cover far too little.

    With fewer than three foundations, only items are varied.

    Source: jackknife: Efron & Stein 1981 (never too small on average); two-way arrays: Owen 2007 ("The pigeonhole
    bootstrap"), section 3; small samples: Hesterberg 2015 (The American Statistician), section 4.
    """
    n_blocks, n_foundations = table.shape[0] - 1, table.shape[1] - 1
    value = float(table[0, 0])
    about_procedure = n_foundations >= FEWEST_FOUNDATIONS and bool(np.isfinite(table[0]).all())
    items = _jackknife_variance(table[1:, 0])
    parts, freedoms = [items], [n_blocks - 1.0]
    if about_procedure:
        both = table[0, 0] - table[1:, :1] - table[:1, 1:] + table[1:, 1:]
        # The expected square of a two-way mean's interaction, from deletions of both kinds.
        shared = float((both**2).sum() * (n_blocks - 1) * (n_foundations - 1) / (n_blocks * n_foundations))
        parts = [max(items - shared, 0.0), _jackknife_variance(table[0, 1:])]
        freedoms = [n_blocks - 1.0, n_foundations - 1.0]
    variance = sum(parts)
    if not np.isfinite(variance) or n_blocks < 2:
        return Estimate(value, np.nan, np.nan, np.nan, np.nan, *_counts(sample), about_procedure)
    spread = sum(part**2 / freedom for part, freedom in zip(parts, freedoms, strict=True))
    freedom = variance**2 / spread if spread > 0 else freedoms[-1]
    error = variance**0.5
    half = stats.t.ppf(0.975, freedom) * error
    return Estimate(
        value, float(value - half), float(value + half), error, float(freedom), *_counts(sample), about_procedure
    )


def _counts(sample: Sample) -> tuple[int, int, int]:
    return sample.n_foundations, sample.n_seeds, sample.n_items


def _jackknife_variance(left_out_values: Floats) -> float:
    n = len(left_out_values)
    return float((n - 1) / n * ((left_out_values - left_out_values.mean()) ** 2).sum())


@dataclass(frozen=True, slots=True)
class Multibootstrap:
    """Resampled differences of two arms: observed, 95 % percentile interval, two-sided p (never below 2/B)."""

    difference: float
    low: float
    high: float
    p: float
    n_foundations: tuple[int, int]
    n_items: int


def multibootstrap(
    first_PSN: Sequence[Floats],
    second_PSN: Sequence[Floats],
    *,
    paired: bool,
    blocks_N: Ints | None = None,
    n_resamples: int = 2_000,
    seed: int = 0,
) -> Multibootstrap:
    """Compare the means of two arms: resample foundations, seeds inside each, and items (the same ones for both arms).

    Args:
        first_PSN, second_PSN: one entry a foundation, (S, N) scores of its seeds on each item, as 1 for right.
        paired: both arms begin at the same foundations, in one order, so they are drawn together.
        blocks_N: items drawn together, as the words of a sentence have to be; None: blocks at random.

    Conservative where arms are paired: what items and foundations are to each other is resampled twice over and counts
    three times in the variance (Owen 2007). `estimate` of arms' tables counts it once.

    Raises:
        UserError: fewer than three foundations in an arm, or arms that cannot be paired.

    Source: Sellam et al. 2022 (ICLR, "The MultiBERTs", section 4 and appendix A).
    """
    sizes = (len(first_PSN), len(second_PSN))
    if min(sizes) < FEWEST_FOUNDATIONS:
        raise UserError(
            f"a claim about how foundations are made needs {FEWEST_FOUNDATIONS} of them in each arm, and there are "
            f"{sizes[0]} and {sizes[1]}: pretrain more with other seeds"
        )
    if paired and sizes[0] != sizes[1]:
        raise UserError(f"arms of {sizes[0]} and {sizes[1]} foundations cannot be paired")
    blocks = item_blocks(first_PSN[0].shape[-1]) if blocks_N is None else blocks_N
    sizes_G = np.bincount(blocks).astype(np.float64)
    draws = rng(seed, "multibootstrap")
    drawn_BG = draws.multinomial(len(sizes_G), np.full(len(sizes_G), 1 / len(sizes_G)), size=n_resamples)
    chosen_BP = draws.integers(sizes[0], size=(n_resamples, sizes[0]))
    means = []
    for side, arm in enumerate((first_PSN, second_PSN)):
        if side == 1 and not paired:
            chosen_BP = draws.integers(sizes[1], size=(n_resamples, sizes[1]))
        sums_XG = block_sums(np.concatenate(arm), blocks)
        weights_BX = _nested_weights(chosen_BP, [len(seeds) for seeds in arm], draws)
        means.append((weights_BX @ sums_XG * drawn_BG).sum(axis=1) / (drawn_BG @ sizes_G))
    differences = means[0] - means[1]
    low, high = np.quantile(differences, [0.025, 0.975])
    tail = min(float((differences <= 0).mean()), float((differences >= 0).mean()))
    p = min(1.0, 2 * max(tail, 1 / n_resamples))
    first, second = (float(np.mean([seeds.mean() for seeds in arm])) for arm in (first_PSN, second_PSN))
    return Multibootstrap(first - second, float(low), float(high), p, sizes, len(blocks))


def _nested_weights(chosen_BP: Ints, n_seeds_P: list[int], draws: np.random.Generator) -> Floats:
    """(B, all models): weight of each model in each resample; a foundation drawn twice draws its seeds twice."""
    starts_P = np.cumsum([0, *n_seeds_P[:-1]])
    sizes_P = np.array(n_seeds_P)
    weights = np.zeros((len(chosen_BP), sum(n_seeds_P)))
    rows_B = np.arange(len(chosen_BP))
    for foundation_B in chosen_BP.T:
        size_B = sizes_P[foundation_B]
        for turn in range(int(sizes_P.max())):
            models_B = starts_P[foundation_B] + (draws.random(len(rows_B)) * size_B).astype(np.int64)
            weights[rows_B, models_B] += (turn < size_B) / size_B / chosen_BP.shape[1]
    return weights


def permutation_p(
    statistic: Callable[[Ints], float], foundation_M: Ints, seed_M: Ints, *, n_permutations: int = 999, seed: int = 0
) -> float:
    """Chance of a statistic at least as large if foundations were labels without meaning; exact but for sampling.

    Labels move only among models of one seed, since those share the order of their data, and among models whose seed is
    theirs alone. A seed that a foundation lacks changes nothing for the others.

    Raises:
        UserError: fewer than three foundations.
    """
    n_foundations = len(np.unique(foundation_M))
    if n_foundations < FEWEST_FOUNDATIONS:
        raise UserError(f"a permutation test of foundations needs {FEWEST_FOUNDATIONS}, and there are {n_foundations}")
    groups = exchangeable(seed_M)
    draws = rng(seed, "permutation")
    observed = statistic(foundation_M)
    as_large = 0
    for _ in range(n_permutations):
        labels = foundation_M.copy()
        for group in groups:
            labels[group] = draws.permutation(labels[group])
        # Sums in another order differ in the last digits, which must not decide about a tie.
        as_large += statistic(labels) >= observed - 1e-12 * max(1.0, abs(observed))
    return (1 + as_large) / (1 + n_permutations)


def exchangeable(seed_M: Ints) -> list[Ints]:
    """Models among which labels of foundations may move: those of one seed; and all whose seed no other model has."""
    _, code_M, n_models = np.unique(seed_M, return_inverse=True, return_counts=True)
    alone = np.flatnonzero(n_models[code_M] == 1)
    return [*(np.flatnonzero(code_M == code) for code in np.flatnonzero(n_models > 1)), alone]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the chance of any false claim below the level (Holm 1979); NaN is not a test."""
    real = [n for n, p in enumerate(p_values) if np.isfinite(p)]
    adjusted = list(p_values)
    highest = 0.0
    for place, n in enumerate(sorted(real, key=lambda n: p_values[n])):
        highest = max(highest, min(1.0, (len(real) - place) * p_values[n]))
        adjusted[n] = highest
    return adjusted
