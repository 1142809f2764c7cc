"""What labels are worth: distances between curves by hand, and that the interval is about what is drawn."""

import math

import numpy as np
import pytest

from foundation.task.learning_curve import Answered, Weighted, advantage, data_advantage, labels_needed, scores

SIZES = [8, 16, 32, 64]


def test_labels_between_two_sizes_lie_on_a_line_over_their_logarithm() -> None:
    curve = np.array([0.5, 0.6, 0.8, 0.8])
    wanted = np.array([0.5, 0.55, 0.6, 0.7, 0.8, 0.81, 0.1])
    needed = labels_needed(SIZES, curve, wanted)
    assert needed == pytest.approx([8, 8 * 2**0.5, 16, 16 * 2**0.5, 32, math.inf, 8])


def test_a_dip_does_not_count_against_a_curve() -> None:
    assert labels_needed(SIZES, np.array([0.5, 0.7, 0.6, 0.9]), np.array([0.7, 0.8])) == pytest.approx(
        [16, 32 * 2**0.5]
    )


def test_a_curve_that_needs_twice_the_labels() -> None:
    """The same line over log2(labels), one doubling apart: at the score s the one needs n labels and the other 2n."""
    first, second = np.array([0.6, 0.7, 0.8, 0.9]), np.array([0.5, 0.6, 0.7, 0.8])
    band = np.linspace(0.6, 0.8, 200_001)
    by_hand = np.mean(8 * 2 ** ((band - 0.6) / 0.1))
    assert data_advantage((SIZES, first), (SIZES, second)) == pytest.approx(by_hand, rel=1e-3)
    assert data_advantage((SIZES, second), (SIZES, first)) == pytest.approx(-by_hand, rel=1e-3)
    assert data_advantage((SIZES, first), (SIZES, first)) == 0


def test_curves_without_a_shared_score_have_no_distance() -> None:
    assert math.isnan(data_advantage((SIZES, np.full(4, 0.9)), (SIZES, np.array([0.5, 0.6, 0.6, 0.7]))))


def answered(name: str, chances: list[float], gold: np.ndarray, purpose: int) -> Answered:
    """Runs that are right with these chances, by size; three draws of rows and two seeds."""
    generator = np.random.default_rng(purpose)

    def run(chance: float) -> Weighted:
        is_right = (generator.random(len(gold)) < chance).astype(np.float64)
        return lambda counts: counts @ is_right / counts.sum(1)

    runs = [[[run(chance) for _ in range(2)] for _ in range(3)] for chance in chances]
    return Answered(name, SIZES, runs, [[0, 1]] * len(SIZES))


def test_the_interval_holds_the_advantage_that_was_planted() -> None:
    gold = np.random.default_rng(0).integers(0, 2, 1500)
    first = answered("first", [0.6, 0.7, 0.8, 0.9], gold, 1)
    second = answered("second", [0.5, 0.6, 0.7, 0.8], gold, 2)
    found = advantage(first, second, len(gold))
    planted = 8 * (4 - 1) / math.log(4)
    assert found.labels == pytest.approx(planted, rel=0.15)
    assert found.low is not None and found.high is not None
    assert found.low < planted < found.high
    assert found.low > 0
    assert found.undefined == 0
    # The first arm's smallest size is what the second has at 16; its largest is beyond all of the second's.
    assert found.equivalents[0] == pytest.approx(16, rel=0.25)
    assert found.equivalents[3] is None
    assert [cell.shape for cell in scores(first, len(gold))] == [(3, 2)] * 4


def test_two_like_arms_have_no_advantage() -> None:
    gold = np.random.default_rng(0).integers(0, 2, 1500)
    arms = [answered(name, [0.6, 0.7, 0.8, 0.9], gold, purpose) for purpose, name in enumerate("ab", start=5)]
    found = advantage(arms[0], arms[1], len(gold))
    assert found.low is not None and found.high is not None
    assert found.low < 0 < found.high


def test_seeds_are_resampled_and_the_interval_leaves_out_a_fortieth_on_either_side() -> None:
    """Of three seeds one fails, and 1/27 of the resamples has only that one: between a fortieth and a twentieth."""
    ends = [8, 16]

    def always(value: float) -> Weighted:
        return lambda counts: np.full(len(counts), value)

    def arm(name: str, at_most: list[float]) -> Answered:
        return Answered(name, ends, [[[always(0.5)] * 3], [[always(value) for value in at_most]]], [[0, 1, 2]] * 2)

    shaky, steady = arm("shaky", [0.9, 0.9, 0.7]), arm("steady", [0.9, 0.9, 0.9])
    worst = data_advantage((ends, np.array([0.5, 0.7])), (ends, np.array([0.5, 0.9])))
    assert worst < 0
    found = advantage(shaky, steady, 10)
    assert (found.low, found.high) == pytest.approx((worst, 0))
    turned = advantage(steady, shaky, 10)
    assert (turned.low, turned.high) == pytest.approx((0, -worst))
