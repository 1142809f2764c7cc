"""Are two models of one foundation more alike than two of different ones? Every pair measure, in both arms.

Letters: N items · M models · P foundations · K labels · G blocks of items · T pairs of models · V = 1 + G
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.science import pairs
from foundation.science.answers import Answers
from foundation.science.design import Design
from foundation.science.inference import Estimate, block_sums, estimate, left_out, permutation_p, tuple_weights

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]

# Measures that are larger the less alike two models are.
DISTANCES = ("correctness difference", "disagreement", "squared difference")
# Those of them, one a kind of task, whose gap is tested.
_TESTED = ("correctness difference", "squared difference")


@dataclass(frozen=True, slots=True)
class Contrast:
    """A pair measure in both arms.

    effect: what sharing adds, in the direction of more alike. permutation_p: None below three foundations.
    """

    measure: str
    shared: Estimate | None
    control: Estimate | None
    effect: Estimate | None
    permutation_p: float | None


def pair_tables(answers: Answers) -> dict[str, tuple[Floats | None, Floats | None]]:
    """By measure, its table (1 + G, 1 + P) over shared and over control pairs; None where there are no such pairs."""
    moments = _classification_moments(answers) if answers.n_labels else _regression_moments(answers)
    sides = [answers.design.shared(2), answers.design.control(2)]
    tables: dict[str, tuple[Floats | None, Floats | None]] = {}
    for name, matrix_VMM in moments.items():
        arms = [_table_of(matrix_VMM, pairs_T2, answers.design) if len(pairs_T2) else None for pairs_T2 in sides]
        tables[name] = (arms[0], arms[1])
    return tables


def _table_of(matrix_VMM: Floats, pairs_T2: Ints, design: Design) -> Floats:
    values_VT = matrix_VMM[:, pairs_T2[:, 0], pairs_T2[:, 1]]
    # A pair of which one never fails has no κ; it is left out of the mean.
    values_VT = values_VT[:, np.isfinite(values_VT).all(axis=0)]
    kept = pairs_T2[np.isfinite(matrix_VMM[:, pairs_T2[:, 0], pairs_T2[:, 1]]).all(axis=0)]
    weights = tuple_weights(design.foundation_M[kept], design.n_foundations)
    table: Floats = values_VT @ weights.T
    return table


def block_products(values_MN: Floats | Bools, blocks_N: Ints) -> Floats:
    """(G, M, M): products over the items of each block."""
    return np.stack([pairs.products(values_MN[:, blocks_N == g]) for g in range(int(blocks_N.max()) + 1)])


def _without_blocks(sums_GMM: Floats) -> Floats:
    """(1 + G, M, M): over all items, and over all but those of each block."""
    total = sums_GMM.sum(axis=0)
    return np.concatenate([total[None], total - sums_GMM])


def _classification_moments(answers: Answers) -> dict[str, Floats]:
    blocks, failed = answers.blocks_N, answers.failed_MN
    n_items_V = left_out(block_sums(np.ones((1, len(blocks))), blocks))[:, 0, None, None]
    both = _without_blocks(block_products(failed, blocks)) / n_items_V
    labels = range(answers.n_labels)
    same = sum(block_products(answers.predicted_MN == label, blocks) for label in labels)
    agreed = _without_blocks(np.asarray(same)) / n_items_V
    alone = np.diagonal(both, axis1=1, axis2=2)
    a, b = alone[:, :, None], alone[:, None, :]
    found = {
        "correctness difference": a + b - 2 * both,
        "disagreement": 1 - agreed,
        "error consistency": pairs.consistency_from_moments(both, a, b),
        "hard CAPA": pairs.hard_capa_from_moments(agreed, a, b, answers.n_labels),
    }
    if answers.n_labels >= 3:
        wrong = sum(block_products(failed & (answers.predicted_MN == label), blocks) for label in labels)
        with np.errstate(invalid="ignore", divide="ignore"):
            found["same answer when both wrong"] = _without_blocks(np.asarray(wrong)) / n_items_V / both
    if answers.probabilities_MNK is not None:
        found["soft CAPA, scaled"] = _soft_capa(answers, n_items_V)
    return found


def _soft_capa(answers: Answers, n_items_V: Floats) -> Floats:
    assert answers.probabilities_MNK is not None
    n_models, n_items, n_labels = answers.probabilities_MNK.shape
    gold = answers.gold_N.astype(np.int64)
    flat = answers.probabilities_MNK.reshape(n_models, n_items * n_labels)
    observed = _without_blocks(block_products(flat, np.repeat(answers.blocks_N, n_labels))) / n_items_V
    right = left_out(block_sums(answers.probabilities_MNK[:, np.arange(n_items), gold], answers.blocks_N))
    right = right / n_items_V[:, :, 0]
    a, b = right[:, :, None], right[:, None, :]
    return pairs.kappa(observed, a * b + (1 - a) * (1 - b) / (n_labels - 1))


def _regression_moments(answers: Answers) -> dict[str, Floats]:
    blocks = answers.blocks_N
    residuals = (answers.predicted_MN - answers.gold_N) / answers.gold_N.std()
    n_items_V = left_out(block_sums(np.ones((1, len(blocks))), blocks))[:, 0, None, None]
    products = _without_blocks(block_products(residuals, blocks)) / n_items_V
    means = left_out(block_sums(residuals, blocks)) / n_items_V[:, :, 0]
    covariance = products - means[:, :, None] * means[:, None, :]
    spread = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    squares = np.diagonal(products, axis1=1, axis2=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "squared difference": squares[:, :, None] + squares[:, None, :] - 2 * products,
            "residual correlation": covariance / (spread[:, :, None] * spread[:, None, :]),
        }


def contrasts(answers: Answers) -> list[Contrast]:
    """Every pair measure in both arms, and the foundation share ρ_F = 1 − shared / control of the first, a distance."""
    sample = answers.design.sample(len(answers.gold_N))
    tables = pair_tables(answers)
    found = [_contrast(name, *arms, answers) for name, arms in tables.items()]
    shared, control = next(iter(tables.values()))
    if shared is not None and control is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            share = 1 - shared / control
        found.append(Contrast("foundation share", None, None, estimate(share, sample), found[0].permutation_p))
    return found


def _contrast(name: str, shared: Floats | None, control: Floats | None, answers: Answers) -> Contrast:
    sample = answers.design.sample(len(answers.gold_N))
    arms = [None if table is None else estimate(table, sample) for table in (shared, control)]
    if shared is None or control is None:
        return Contrast(name, arms[0], arms[1], None, None)
    effect = control - shared if name in DISTANCES else shared - control
    p = _permutation(answers) if name in _TESTED else None
    return Contrast(name, arms[0], arms[1], estimate(effect, sample), p)


def _permutation(answers: Answers) -> float | None:
    """Whether models of one foundation are more alike than relabelled ones; None below three foundations."""
    design = answers.design
    if answers.n_labels:
        alone = answers.failed_MN.mean(axis=1)
        distance = alone[:, None] + alone[None] - 2 * pairs.products(answers.failed_MN) / len(answers.gold_N)
    else:
        gram = pairs.products(answers.predicted_MN - answers.gold_N)
        distance = np.diag(gram)[:, None] + np.diag(gram)[None] - 2 * gram

    def gap(foundation_M: Ints) -> float:
        same = foundation_M[:, None] == foundation_M[None]
        np.fill_diagonal(same, False)
        other = foundation_M[:, None] != foundation_M[None]
        if design.keeps_seeds_apart:
            other &= design.seed_M[:, None] != design.seed_M[None]
        return float(distance[other].mean() - distance[same].mean())

    try:
        return permutation_p(gap, design.foundation_M, design.seed_M)
    except UserError:
        return None
