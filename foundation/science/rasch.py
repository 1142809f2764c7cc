"""The null of item difficulty: some items are hard for everyone, and that alone makes models fail together.

Letters: N items · M models · Q points of the difficulty grid
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

from foundation.core.errors import UserError
from foundation.science.failures import poisson_binomial

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]

# Difficulties in logits. Beyond ±9 a chance of failing differs from 0 or 1 by 1e-4, which thousands of items do not show.
_GRID = np.linspace(-9.0, 9.0, 61)
_EM_ROUNDS = 300
_EM_TOLERANCE = 1e-7
_BISECTIONS = 50


@dataclass(frozen=True, slots=True)
class Difficulty:
    """How difficulty is spread over items, as some models showed it. weights_Q: of the grid's points; sum to 1.

    ability_M: θ of the models it was fitted on. log_likelihood: in nats an item.
    """

    weights_Q: Floats
    ability_M: Floats
    log_likelihood: float

    def failure_curves(self, error_rates_M: Floats) -> Floats:
        """(M, Q): chance that a model of each error rate fails, by difficulty; its mean over items is that rate."""
        return expit(_GRID - match_ability(self.weights_Q, error_rates_M)[:, None])

    def systemic_failure(self, error_rates_k: Floats) -> float:
        """SF_k that models of these error rates would show, were items' difficulty all they have in common."""
        return float(np.prod(self.failure_curves(error_rates_k), axis=0) @ self.weights_Q)

    def profile(self, error_rates_M: Floats) -> Floats:
        """(M + 1,): share of items on which exactly t of M such models fail."""
        columns = self.failure_curves(error_rates_M).T
        return np.array([poisson_binomial(column) for column in columns]).T @ self.weights_Q


def fit_difficulty(failed_MN: Bools) -> Difficulty:
    """Fit P(model m fails on item i) = σ(β_i − θ_m) with a free distribution of β on a grid, by EM on the marginal likelihood.

    β is not estimated item by item: with few models most items are failed by none or all, where its estimate is infinite,
    and a plugged-in one exaggerates the spread. What is predicted for other models integrates over the distribution.
    Models should have nothing in common but the items (one a foundation); else their kinship passes for difficulty.

    Raises:
        UserError: fewer than two models, or models that never fail.

    Source: Rasch 1960; the semi-parametric marginal likelihood of Lindsay, Clogg & Grego 1991 (JASA); EM: Bock & Aitkin 1981.
    """
    n_models, n_items = failed_MN.shape
    if n_models < 2:
        raise UserError(f"item difficulty needs two models that share nothing but the items, and there are {n_models}")
    rates_M = failed_MN.mean(axis=1)
    if not 0 < rates_M.mean() < 1:
        raise UserError("item difficulty cannot be told from models that all fail, or all succeed, everywhere")
    # Equal answers have equal posteriors: as many rows as there are patterns, not items.
    found_XM, counts_X = np.unique(failed_MN.T, axis=0, return_counts=True)
    patterns_XM = found_XM.astype(np.float64)
    share_X = counts_X / n_items
    weights_Q = np.full(len(_GRID), 1 / len(_GRID))
    ability_M = match_ability(weights_Q, rates_M)
    before = -np.inf
    for _ in range(_EM_ROUNDS):
        posterior_XQ, total_X = _posterior(patterns_XM, ability_M, weights_Q)
        weights_Q = share_X @ posterior_XQ
        # The EM equation for θ: the model's expected failures under the posterior equal its observed ones.
        ability_M = _newton(weights_Q, rates_M, ability_M)
        likelihood = float(share_X @ total_X)
        if likelihood - before < _EM_TOLERANCE:
            break
        before = likelihood
    return Difficulty(weights_Q, ability_M, float(share_X @ _posterior(patterns_XM, ability_M, weights_Q)[1]))


def _newton(weights_Q: Floats, error_rates_M: Floats, ability_M: Floats) -> Floats:
    """match_ability from a start nearby, in three steps."""
    for _ in range(3):
        chances_MQ = expit(_GRID - ability_M[:, None])
        slope_M = (chances_MQ * (1 - chances_MQ)) @ weights_Q
        ability_M = ability_M + np.clip((chances_MQ @ weights_Q - error_rates_M) / np.maximum(slope_M, 1e-9), -1, 1)
    return ability_M


def match_ability(weights_Q: Floats, error_rates_M: Floats) -> Floats:
    """(M,): the θ at which a model's chance of failing, averaged over difficulties, is its error rate; by bisection."""
    low, high = np.full(len(error_rates_M), -40.0), np.full(len(error_rates_M), 40.0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        fails_more = expit(_GRID - middle[:, None]) @ weights_Q > error_rates_M
        low, high = np.where(fails_more, middle, low), np.where(fails_more, high, middle)
    return (low + high) / 2


def _posterior(patterns_XM: Floats, ability_M: Floats, weights_Q: Floats) -> tuple[Floats, Floats]:
    """(X, Q) chance of each difficulty given a pattern of failures, and (X,) log chance of the pattern."""
    logits_MQ = _GRID - ability_M[:, None]
    joint_XQ = patterns_XM @ logits_MQ + log_expit(-logits_MQ).sum(axis=0) + np.log(np.maximum(weights_Q, 1e-300))
    highest_X = joint_XQ.max(axis=1)
    shares_XQ = np.exp(joint_XQ - highest_X[:, None])
    total_X = shares_XQ.sum(axis=1)
    return shares_XQ / total_X[:, None], highest_X + np.log(total_X)
