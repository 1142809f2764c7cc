"""Whether a model's probabilities can be believed: calibration error, Brier, NLL, and one temperature that mends them.

Letters: N items · K labels · M models
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax

from foundation.core.errors import UserError

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

# exp of these: no model of ours is off by more, and where every item is right the likelihood has no other end.
_LOG_TEMPERATURE_RANGE = (-4.0, 4.0)
_NEWTON_STEPS = 60


@dataclass(frozen=True, slots=True)
class Calibration:
    """Of one model. ece in [0, 1]; brier in [0, 2]; nll in nats; temperature: best by NLL, above 1 is overconfident.

    nll_scaled, ece_scaled: after dividing by a temperature that was fitted on the other half of the items.
    """

    ece: float
    brier: float
    nll: float
    temperature: float
    ece_scaled: float
    nll_scaled: float


def calibration(logits_NK: NDArray[np.floating], gold_N: Ints, n_bins: int = 15) -> Calibration:
    """All of a model's calibration figures."""
    logits = logits_NK.astype(np.float64)
    plain, scaled = softmax(logits, axis=1), softmax(scale_by_other_half(logits, gold_N), axis=1)
    return Calibration(
        ece=expected_calibration_error(plain, gold_N, n_bins),
        brier=brier_score(plain, gold_N),
        nll=negative_log_likelihood(logits, gold_N),
        temperature=fit_temperature(logits, gold_N),
        ece_scaled=expected_calibration_error(scaled, gold_N, n_bins),
        nll_scaled=float(-np.log(scaled[np.arange(len(gold_N)), gold_N]).mean()),
    )


def expected_calibration_error(probabilities_NK: Floats, gold_N: Ints, n_bins: int = 15) -> float:
    """Mean distance of confidence from accuracy over bins of equal width, each bin by its share of items; in [0, 1].

    Source: Guo et al. 2017 (ICML, "On calibration of modern neural networks"); a confidence on an edge is in the lower bin.
    """
    confidence_N = probabilities_NK.max(axis=1)
    right_N = probabilities_NK.argmax(axis=1) == gold_N
    bins_N = np.clip(np.ceil(confidence_N * n_bins).astype(np.int64) - 1, 0, n_bins - 1)
    gap = np.bincount(bins_N, confidence_N - right_N, minlength=n_bins)
    return float(np.abs(gap).sum() / len(gold_N))


def brier_score(probabilities_NK: Floats, gold_N: Ints) -> float:
    """Mean squared distance to the one-hot truth, summed over labels, in [0, 2] (Brier 1950)."""
    truth = np.eye(probabilities_NK.shape[1])[gold_N]
    return float(((probabilities_NK - truth) ** 2).sum(axis=1).mean())


def negative_log_likelihood(logits_NK: Floats, gold_N: Ints) -> float:
    """Mean, in nats."""
    return float((logsumexp(logits_NK, axis=1) - logits_NK[np.arange(len(gold_N)), gold_N]).mean())


def fit_temperature(logits_NK: Floats, gold_N: Ints) -> float:
    """The T > 0 for which softmax(logits / T) has the least NLL on these items; clipped to e^±4.

    NLL is convex in 1/T, so the root of its derivative is found by Newton's method kept inside a shrinking bracket.

    Source: Guo et al. 2017, section 4.2.
    """
    if len(gold_N) == 0:
        raise UserError("a temperature needs items to be fitted on")
    logits = logits_NK - logits_NK.max(axis=1, keepdims=True)
    truth_N = logits[np.arange(len(gold_N)), gold_N]
    low, high = (float(np.exp(x)) for x in _LOG_TEMPERATURE_RANGE)
    inverse = 1.0
    for _ in range(_NEWTON_STEPS):
        weights = np.exp(inverse * logits)
        weights /= weights.sum(axis=1, keepdims=True)
        mean_N = (weights * logits).sum(axis=1)
        slope = float((mean_N - truth_N).mean())
        curvature = float(((weights * logits**2).sum(axis=1) - mean_N**2).mean())
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curvature if curvature > 0 else np.inf
        new = step if low < step < high else (low * high) ** 0.5
        if abs(new - inverse) < 1e-12 * inverse:
            break
        inverse = new
    return 1 / inverse


def scale_by_other_half(logits_NK: Floats, gold_N: Ints) -> Floats:
    """(N, K): logits over a temperature; even items by the one fitted on odd items, and the other way round."""
    scaled = np.empty(logits_NK.shape)
    for side in (0, 1):
        temperature = fit_temperature(logits_NK[1 - side :: 2], gold_N[1 - side :: 2])
        scaled[side::2] = logits_NK[side::2] / temperature
    return scaled
