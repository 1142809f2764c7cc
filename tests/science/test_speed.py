"""A fiftieth of the size that the analysis must take in a minute (200 models × 10,000 items), in processor time."""

import time

import numpy as np

from foundation.science.contrast import contrasts
from foundation.science.systemic import Nulls, profile, systemic_failures
from tests.science import planted


def test_forty_models_on_a_thousand_items_take_seconds() -> None:
    answers = planted.answers(planted.failures(np.random.default_rng(0), (10, 4, 1000)))
    started = time.process_time()
    nulls = Nulls(answers)
    contrasts(answers)
    systemic_failures(answers, nulls, [2, 3])
    profile(answers, nulls)
    assert time.process_time() - started < 10
