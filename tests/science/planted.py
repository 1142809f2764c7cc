"""Models whose common defects are known, because they were put in."""

import numpy as np
from scipy.special import expit

from foundation.science.answers import Answers
from foundation.science.design import Design


def failures(
    draws: np.random.Generator, n: tuple[int, int, int], defect: float = 0.8, items: float = 2.0
) -> np.ndarray:
    """(P, S, N) of 0 and 1. defect: how far a foundation's own blind spots move an item, in logits; items: their difficulty."""
    n_foundations, n_seeds, n_items = n
    difficulty = draws.normal(-1.5, items, n_items)
    own = draws.normal(0, defect, (n_foundations, 1, n_items)) + draws.normal(0, 0.2 * defect, (n_foundations, 1, 1))
    return draws.random((n_foundations, n_seeds, n_items)) < expit(difficulty + own)


def answers(failed: np.ndarray) -> Answers:
    """Answers of a task with two labels of which the first is always right."""
    n_foundations, n_seeds, n_items = failed.shape
    design = Design(np.repeat(np.arange(n_foundations), n_seeds), np.tile(np.arange(n_seeds), n_foundations))
    return Answers(np.zeros(n_items), failed.reshape(-1, n_items).astype(np.float64), 2, design)
