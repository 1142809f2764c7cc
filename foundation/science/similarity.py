"""How alike two layers represent the same items: linear CKA without its bias.

Letters: N items · D, E widths · B minibatches
"""

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError

Floats: TypeAlias = NDArray[np.float64]


def unbiased_hsic(left_ND: NDArray[np.floating], right_NE: NDArray[np.floating]) -> float:
    """HSIC₁ of two linear kernels, unbiased: its mean over random representations that have nothing in common is 0.

    Computed from products of D × E and sums, never from an N × N kernel.

    Source: Song et al. 2012 (JMLR, "Feature selection via dependence maximization", equation 5).
    """
    x, y = left_ND.astype(np.float64), right_NE.astype(np.float64)
    n = len(x)
    if len(y) != n or n < 4:
        raise UserError(f"CKA needs the same four or more items on both sides, and has {n} and {len(y)}")
    # HSIC₁ ignores the mean of the features; without it the sums below do not cancel large numbers.
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    norm_x, norm_y = (x**2).sum(axis=1), (y**2).sum(axis=1)
    # Kernels with a zero diagonal: K̃ = XXᵀ − diag. Rows of K̃ sum to −|x|², since the features are centred.
    trace = ((x.T @ y) ** 2).sum() - norm_x @ norm_y
    sums = norm_x.sum() * norm_y.sum() / ((n - 1) * (n - 2))
    rows = 2 / (n - 2) * (norm_x @ norm_y)
    return float((trace + sums - rows) / (n * (n - 3)))


def debiased_cka(left_ND: NDArray[np.floating], right_NE: NDArray[np.floating]) -> float:
    """Linear CKA from unbiased HSIC: 1 for the same representation up to rotation and scale, about 0 for unrelated ones.

    The usual estimate is near 1 for unrelated random features as soon as the width approaches the number of items.
    NaN where a side is constant. May be a little below 0.

    Source: Kornblith et al. 2019 (ICML); debiased: Murphy, Zylberberg & Fyshe 2024 (arXiv 2405.01012).
    """
    return cka_over_batches([(left_ND, right_NE)])


def cka_over_batches(batches_B: Iterable[tuple[NDArray[np.floating], NDArray[np.floating]]]) -> float:
    """The same from minibatches: HSIC₁ is unbiased in each, so its terms add up (Nguyen et al. 2021, section 3.1)."""
    cross = own_left = own_right = 0.0
    for left, right in batches_B:
        cross += unbiased_hsic(left, right)
        own_left += unbiased_hsic(left, left)
        own_right += unbiased_hsic(right, right)
    return cross / (own_left * own_right) ** 0.5 if own_left > 0 and own_right > 0 else float("nan")


def biased_cka(left_ND: NDArray[np.floating], right_NE: NDArray[np.floating]) -> float:
    """The usual estimate, ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖), for comparison with published figures only."""
    x, y = (side.astype(np.float64) - side.mean(axis=0, dtype=np.float64) for side in (left_ND, right_NE))
    return float(((y.T @ x) ** 2).sum() / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))
