"""Tuples of models tell sharing apart, and where there are many a fair draw of them does."""

import numpy as np
import pytest
from scipy.special import expit

from foundation.science.across_tasks import _assignments
from foundation.science.answers import Answers
from foundation.science.design import MOST_TUPLES, Design, at_most
from foundation.science.systemic import Nulls, profile, systemic_failures
from tests.science import planted, references


@pytest.mark.parametrize(("size", "most"), [(3, None), (5, None), (4, 200), (2, 200)])
def test_tuples_are_a_sample_in_which_foundations_come_equally_often(size: int, most: int | None) -> None:
    """40 foundations × 5 seeds: more tuples than are taken. Within five standard errors of a draw with replacement."""
    design = Design(np.repeat(np.arange(40), 5), np.tile(np.arange(5), 40))
    tuples = design.control(size) if most is None else at_most(most, design.control(size))
    assert len(tuples) == (MOST_TUPLES if most is None else most)
    expected = len(tuples) * size / 40
    assert np.abs(np.bincount(design.foundation_M[tuples].ravel(), minlength=40) - expected).max() < 5 * expected**0.5


def test_a_worse_foundation_weighs_alike_wherever_it_stands() -> None:
    """No foundation's own blind spots: only one is worse than five others, the first or the last."""
    draws = np.random.default_rng(0)
    beta = draws.normal(-1.5, 1.2, 1000)
    for worse in (0, 5):
        shift = np.repeat(np.arange(6) == worse, 4)[:, None] * 1.5
        failed = (draws.random((24, 1000)) < expit(beta + shift)).astype(float)
        answers = Answers(np.zeros(1000), failed, 2, Design(np.repeat(np.arange(6), 4), np.tile(np.arange(4), 6)))
        shape = profile(answers, Nulls(answers))
        assert shape.shared is not None and shape.control is not None
        assert shape.control @ np.arange(5) == pytest.approx(shape.shared @ np.arange(5), rel=0.05)


def test_few_of_many_tuples_are_drawn_and_not_listed() -> None:
    """Of 100 seeds there are 75 million sets of five, of 20 foundations 28 million orders of six: lists nobody has room for."""
    design = Design(np.repeat(np.arange(2), 100), np.tile(np.arange(100), 2))
    shared = design.shared(5)
    assert 0.99 * MOST_TUPLES < len(shared) <= MOST_TUPLES
    assert (np.diff(shared, axis=1) > 0).all()
    assert (np.ptp(design.foundation_M[shared], axis=1) == 0).all()
    assert abs(design.foundation_M[shared[:, 0]].mean() - 0.5) < 0.06
    for n_foundations in (20, 5):
        own, other = _assignments(n_foundations, 6)
        assert len(own) == n_foundations and len(set(other)) == 500
        assert min(len(set(chosen)) for chosen in other) == (6 if n_foundations == 20 else 2)
    assert len(_assignments(3, 2)[1]) == 6 and len(_assignments(2, 3)[1]) == 6


def test_shared_and_control_tuples_by_hand() -> None:
    design = planted.answers(np.zeros((3, 2, 4))).design
    assert design.shared(2).tolist() == [[0, 1], [2, 3], [4, 5]]
    assert design.control(2).tolist() == [[0, 3], [0, 5], [1, 2], [1, 4], [2, 5], [3, 4]]
    assert len(design.shared(3)) == len(design.control(3)) == 0
    loops = [references.systemic(planted.failures(np.random.default_rng(0), (1, 3, 50))[0], 2)]
    answers = planted.answers(planted.failures(np.random.default_rng(0), (1, 3, 50)))
    (found,) = systemic_failures(answers, Nulls(answers), [2])
    assert found.shared is not None and found.control is None and found.difficulty is None
    assert found.shared.value == pytest.approx(loops[0], abs=1e-12)
