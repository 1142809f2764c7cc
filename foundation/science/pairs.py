"""How alike two models err. Every measure is computed for all pairs at once, as matrix products over items.

Letters: N items · M models · K labels · V weightings of items (the plain one, and those with a block left out or redrawn)
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]


def products(values_MN: Floats | Bools) -> Floats:
    """(M, M): sums over items of one model's entry times another's; exact for 0 and 1 (float32 counts to 2²⁴)."""
    if values_MN.dtype == np.bool_:
        ones = values_MN.astype(np.float32)
        return (ones @ ones.T).astype(np.float64)
    values = values_MN.astype(np.float64)
    return values @ values.T


def disagreement(predicted_MN: Ints) -> Floats:
    """(M, M): share of items that two models answer differently, in [0, 1]."""
    agreed = sum(products(predicted_MN == label) for label in np.unique(predicted_MN))
    return 1 - np.asarray(agreed) / predicted_MN.shape[1]


def kappa(observed: Floats, expected: Floats) -> Floats:
    """Agreement beyond chance, (o − e) / (1 − e): 1 is always, 0 is chance. NaN where chance alone makes it certain."""
    return np.divide(observed - expected, 1 - expected, out=np.full_like(observed, np.nan), where=expected < 1)


def consistency_from_moments(both_failed: Floats, failed_a: Floats, failed_b: Floats) -> Floats:
    """Error consistency κ from rates: of failing together, and of failing alone. Any shape.

    κ = 1: two models fail on the same items; 0: as if drawn independently with their accuracies; below 0: on others.

    Source: Geirhos et al. 2020 (NeurIPS, "Beyond accuracy: quantifying trial-by-trial behaviour of CNNs and humans by
    measuring error consistency").
    """
    observed = 1 - failed_a - failed_b + 2 * both_failed
    expected = (1 - failed_a) * (1 - failed_b) + failed_a * failed_b
    return kappa(observed, expected)


def error_consistency(failed_MN: Bools) -> Floats:
    """(M, M): κ of every pair."""
    failed_M = failed_MN.mean(axis=1)
    return consistency_from_moments(products(failed_MN) / failed_MN.shape[1], failed_M[:, None], failed_M[None])


def failure_correlation(failed_MN: Bools) -> Floats:
    """(M, M): φ, the correlation of two models' failures, in [−1, 1]; NaN where a model always or never fails."""
    rate_M = failed_MN.mean(axis=1)
    spread_M = np.sqrt(rate_M * (1 - rate_M))
    covariance = products(failed_MN) / failed_MN.shape[1] - np.outer(rate_M, rate_M)
    spread = np.outer(spread_M, spread_M)
    return np.divide(covariance, spread, out=np.full_like(covariance, np.nan), where=spread > 0)


def capa(probabilities_MNK: Floats, gold_N: Ints) -> Floats:
    """(M, M): chance-adjusted probabilistic agreement κ_p.

    With one-hot probabilities (`hard_capa`) and two labels it equals error consistency. With soft ones it mixes confidence
    with similarity: a model is not 1 with itself. So report the hard one, and the soft one only after temperature scaling.

    Source: Goel et al. 2025 (ICML, "Great models think alike and this undermines AI oversight", section 2).
    """
    n_models, n_items, n_labels = probabilities_MNK.shape
    flat = probabilities_MNK.reshape(n_models, n_items * n_labels)
    observed = products(flat) / n_items
    right_M = probabilities_MNK[:, np.arange(n_items), gold_N].mean(axis=1)
    return kappa(observed, np.outer(right_M, right_M) + np.outer(1 - right_M, 1 - right_M) / (n_labels - 1))


def hard_capa_from_moments(agreed: Floats, failed_a: Floats, failed_b: Floats, n_labels: int) -> Floats:
    """κ_p of one-hot answers, from the share answered alike and the error rates. Any shape."""
    return kappa(agreed, (1 - failed_a) * (1 - failed_b) + failed_a * failed_b / (n_labels - 1))


def hard_capa(predicted_MN: Ints, gold_N: Ints, n_labels: int) -> Floats:
    """(M, M): κ_p of the answers alone."""
    failed_M = (predicted_MN != gold_N).mean(axis=1)
    return hard_capa_from_moments(1 - disagreement(predicted_MN), failed_M[:, None], failed_M[None], n_labels)


@dataclass(frozen=True, slots=True)
class WrongAgreement:
    """Of pairs of models. share: (M, M), same answer given that both are wrong; NaN where they never are. chance: 1/(K − 1)."""

    share: Floats
    chance: float


def wrong_agreement(predicted_MN: Ints, gold_N: Ints, n_labels: int) -> WrongAgreement:
    """How often two models that are both wrong give the same wrong answer.

    Raises:
        UserError: fewer than three labels. With two it is always 1 and means nothing.

    Source: Kim et al. 2025 (ICML, "Correlated errors in large language models").
    """
    if n_labels < 3:
        raise UserError(
            f"agreement when both are wrong is always 1 with {n_labels} labels: use error consistency instead"
        )
    failed_MN = predicted_MN != gold_N
    same = np.asarray(sum(products(failed_MN & (predicted_MN == label)) for label in range(n_labels)))
    both = products(failed_MN)
    return WrongAgreement(np.divide(same, both, out=np.full_like(same, np.nan), where=both > 0), 1 / (n_labels - 1))


def residual_correlation(predicted_MN: Floats, gold_N: Floats) -> Floats:
    """(M, M): Pearson's correlation of two models' residuals, for tasks whose labels are numbers; NaN for a constant one."""
    residuals_MN = predicted_MN - gold_N
    centred = residuals_MN - residuals_MN.mean(axis=1, keepdims=True)
    covariance = products(centred)
    spread = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    return np.divide(covariance, spread, out=np.full_like(covariance, np.nan), where=spread > 0)
