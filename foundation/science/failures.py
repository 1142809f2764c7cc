"""Who fails on what, together: systemic failure, its profile, and outcome homogenization.

Everything takes failures as a table of 0 and 1 and is a pure function of it.

Letters: N items · M models · T tuples of models · J deployments (applications) · R groups of people or items
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]


def failure_profile(failed_MN: Bools) -> Floats:
    """(M + 1,): share of items on which exactly t of M models fail, t = 0 … M. Sums to 1.

    Its ends are consistent success and systemic failure; their sum is the polarised share.

    Source: Toups et al. 2023 (NeurIPS, "Ecosystem-level analysis of deployed machine learning").
    """
    n_models, n_items = failed_MN.shape
    return np.bincount(failed_MN.sum(axis=0), minlength=n_models + 1) / n_items


def poisson_binomial(probabilities_M: Floats) -> Floats:
    """(M + 1,): chance that exactly t of M independent events happen, exactly, by convolving one event at a time.

    The profile's null of independence: M models that fail at these rates and share nothing. O(M²).
    """
    distribution = np.ones(1)
    for probability in probabilities_M:
        distribution = np.convolve(distribution, (1 - probability, probability))
    return distribution


def subset_share(n_failed_N: Ints | Floats, n_models: int, size: int) -> Floats:
    """(N,): share of all subsets of `size` models that fail as one, C(c, k) / C(M, k), c of M models failing.

    Written as a product of k ratios: binomials of hundreds of models overflow.
    """
    if not 1 <= size <= n_models:
        raise UserError(f"systemic failure of {size} models needs at least as many, and there are {n_models}")
    steps = np.arange(size)
    # Below k failing models a factor is exactly 0; the clip only keeps two negative ones from making a positive product.
    return np.prod(np.maximum(n_failed_N[..., None] - steps, 0) / (n_models - steps), axis=-1)


def systemic_failure(n_failed_N: Ints | Floats, n_models: int, size: int) -> float:
    """SF_k in [0, 1]: the chance that k models drawn from M exchangeable ones all fail on an item; unbiased, over all subsets.

    Args:
        n_failed_N: how many of the M models fail on each item.
    """
    return float(subset_share(n_failed_N, n_models, size).mean())


@dataclass(frozen=True, slots=True)
class ExchangeableConsistency:
    """Of M exchangeable models, from counts alone. observed, expected: agreement in being right. kappa: beyond chance."""

    accuracy: float
    observed: float
    expected: float
    kappa: float


def exchangeable_consistency(n_failed_N: Ints, n_models: int) -> ExchangeableConsistency:
    """Error consistency of all pairs at once, with one common accuracy as chance (Geirhos et al. 2020, for M models)."""
    both_wrong = subset_share(n_failed_N, n_models, 2)
    both_right = subset_share(n_models - n_failed_N, n_models, 2)
    accuracy = float(1 - n_failed_N.mean() / n_models)
    observed, expected = float((both_wrong + both_right).mean()), accuracy**2 + (1 - accuracy) ** 2
    return ExchangeableConsistency(accuracy, observed, expected, (observed - expected) / (1 - expected))


def tuple_failures(failed_MN: Bools, tuples_Tk: Ints) -> Bools:
    """(T, N): whether every model of a tuple fails on an item."""
    together = failed_MN[tuples_Tk[:, 0]]
    for column in tuples_Tk.T[1:]:
        together = together & failed_MN[column]
    return together


@dataclass(frozen=True, slots=True)
class OutcomeHomogenization:
    """Observed systemic failure over what independent deployments would have; above 1: more than chance.

    average: groups weigh by their size. uniform: alike. worst: the group that fares worst. variance: of the products.
    n_groups: those with items in every deployment.
    """

    average: float
    uniform: float
    worst: float
    variance: float
    n_groups: int


def outcome_homogenization(failures_JR: Floats, counts_JR: Ints) -> OutcomeHomogenization:
    """H_avg, H_unif and H_worst over groups.

    A group without items in some deployment says nothing and is left out: counting its error rate as 1, as the authors'
    code does, inflates H_unif and H_worst when groups are fine.

    Args:
        failures_JR: failed items of each group in each deployment. counts_JR: its items.

    Raises:
        UserError: no group has items everywhere, or a deployment never fails (the ratio is then undefined).

    Source: Bommasani et al. 2022 (NeurIPS, "Picking on the same person: does algorithmic monoculture lead to outcome
    homogenization?", section 3).
    """
    present = (counts_JR > 0).all(axis=0)
    if not present.any():
        raise UserError("no group has items in every deployment: give coarser groups")
    totals = counts_JR.sum(axis=1)
    expected = float(np.prod(failures_JR.sum(axis=1) / totals))
    if expected == 0:
        raise UserError("a deployment never fails: there is no systemic failure to compare with")
    rates_JR = failures_JR[:, present] / counts_JR[:, present]
    together_R = np.prod(rates_JR, axis=0)
    weights_R = np.prod(counts_JR[:, present] / totals[:, None], axis=0)
    return OutcomeHomogenization(
        average=float((weights_R * together_R).sum() / weights_R.sum() / expected),
        uniform=float(together_R.mean() / expected),
        worst=float(together_R.max() / expected),
        variance=float(together_R.var()),
        n_groups=int(present.sum()),
    )


def individual_homogenization(failed_JN: Bools) -> float:
    """H_ind: the same with every item a group of its own: systemic failure over the product of error rates.

    Never report it alone: it explodes with the number of models and says little about sharing (items differ in difficulty).
    """
    expected = float(np.prod(failed_JN.mean(axis=1)))
    if expected == 0:
        raise UserError("a model never fails: there is no systemic failure to compare with")
    return float(failed_JN.all(axis=0).mean()) / expected


def share_of_systemic(before_failed_MN: Bools, model: int, after_failed_N: Bools) -> float:
    """Of the items that one model newly gets right, the share on which every model had failed before (NaN if it gains none).

    Source: Toups et al. 2023, the improvement analysis: gains mostly reach items that other models already got right.
    """
    gained_N = before_failed_MN[model] & ~after_failed_N
    return float(before_failed_MN[:, gained_N].all(axis=0).mean()) if gained_N.any() else float("nan")
