import subprocess
import sys
import time

import numpy as np
import pytest

from foundation.core.randomness import RowRng, permute, rng, torch_seed


def within_five_sigma(count: float, total: int, p: float) -> bool:
    return abs(count - total * p) < 5 * (total * p * (1 - p)) ** 0.5


def test_a_generator_depends_on_its_arguments_alone():
    first = rng(1, "order", 5).random(4)
    rng(1, "order", 6).random(100)
    assert (rng(1, "order", 5).random(4) == first).all()


def test_another_process_draws_the_same():
    code = """
from foundation.core.randomness import rng, torch_seed
print(rng(3, "mask", 7).random(), torch_seed(3, "init"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(rng(3, "mask", 7).random()), str(torch_seed(3, "init"))]


@pytest.mark.parametrize(
    "other",
    [(2, "order", 5), (1, "mask", 5), (1, "order", 6), (1, "order"), (1 + 2**32, "order", 5), (1, "order", 5 + 2**32)],
)
def test_seed_purpose_and_counters_each_matter(other):
    assert rng(*other).random() != rng(1, "order", 5).random()


def test_torch_seeds_are_accepted_by_torch_and_differ():
    seeds = {torch_seed(seed, "dropout", step) for seed in range(10) for step in range(100)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("draws", [1, 3, 4, 5, 130])
def test_rows_drawn_in_parts_equal_rows_drawn_at_once(draws):
    rows = RowRng(seed=1, purpose="mask", step=9)
    whole = rows.uniform(0, 12, draws)
    parts = [rows.uniform(first, n, draws) for first, n in ((0, 5), (5, 1), (6, 6))]
    assert whole.shape == (12, draws)
    assert (np.concatenate(parts) == whole).all()


def test_rows_and_steps_differ():
    first = RowRng(seed=1, purpose="mask", step=0).uniform(0, 50, 8)
    second = RowRng(seed=1, purpose="mask", step=1).uniform(0, 50, 8)
    assert len(np.unique(np.concatenate([first, second]))) == 800


def test_row_numbers_are_uniform():
    draws = RowRng(seed=4, purpose="mask", step=2).uniform(0, 1000, 101).ravel()
    assert draws.min() >= 0
    assert draws.max() < 1
    for low, high in ((0.0, 0.8), (0.8, 0.9), (0.9, 1.0)):
        assert within_five_sigma(((draws >= low) & (draws < high)).sum(), draws.size, high - low)


def test_columns_of_neighbouring_rows_are_uncorrelated():
    draws = RowRng(seed=4, purpose="mask", step=2).uniform(0, 20_001, 1)[:, 0]
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 5 / 20_000**0.5


@pytest.mark.parametrize("n", [*range(1, 201), 1000, 12345])
def test_a_permutation_sends_every_index_to_another_place(n):
    assert sorted(permute(np.arange(n), n, 7, "order").tolist()) == list(range(n))


def test_permutations_of_other_seeds_purposes_and_epochs_differ():
    index = np.arange(1000)
    base = permute(index, 1000, 7, "order", 0)
    for arguments in ((8, "order", 0), (7, "mask", 0), (7, "order", 1)):
        # Two unrelated permutations agree at one place on average.
        assert (permute(index, 1000, *arguments) == base).sum() < 10


def test_a_permutation_of_a_part_equals_that_part_of_the_whole():
    whole = permute(np.arange(12345), 12345, 7, "order")
    assert (permute(np.arange(500, 600), 12345, 7, "order") == whole[500:600]).all()


def test_a_permutation_sends_an_index_anywhere_alike():
    # Where index 0 lands among 10 places, over 4000 seeds: chi-square with 9 degrees of freedom, 5 sigma.
    places = np.bincount([permute(np.array([0]), 10, seed, "order")[0] for seed in range(4000)], minlength=10)
    chi_square = ((places - 400) ** 2 / 400).sum()
    assert chi_square < 9 + 5 * 18**0.5


def test_a_permutation_does_not_keep_neighbours_together():
    steps = np.diff(permute(np.arange(12345), 12345, 7, "order"))
    assert (np.abs(steps) == 1).mean() < 0.01


def test_seeking_far_costs_no_more_than_seeking_near():
    started = time.monotonic()
    far = RowRng(seed=1, purpose="mask", step=10**9).uniform(10**15, 4, 128)
    places = permute(np.arange(10**15, 10**15 + 1000), 10**15 + 1000, 1, "order")
    # Drawing up to there one by one would take years.
    assert time.monotonic() - started < 1
    assert far.shape == (4, 128)
    assert len(np.unique(places)) == 1000
