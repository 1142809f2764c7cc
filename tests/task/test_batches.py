"""Rows by step: each once an epoch, pure in the step, of similar length; and texts that fit."""

from itertools import pairwise

import numpy as np
import pytest

from foundation.core.errors import UserError
from foundation.task.batches import TaskBatches, TokenRows, by_length, by_tokens, fit
from tests.builders import SPECIALS


def rows(n: int) -> TokenRows:
    """Row i holds the token 10 + i, as often as chance wants."""
    lengths = np.random.default_rng(0).integers(1, 100, size=n)
    return TokenRows([(np.full(length, 10 + i),) for i, length in enumerate(lengths)], SPECIALS, 0)


def task_batches(n: int = 1003, batch_rows: int = 8, seed: int = 0) -> TaskBatches:
    return TaskBatches(rows(n), np.arange(n), batch_rows=batch_rows, seed=seed)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 400, 1003])
def test_every_row_comes_once_an_epoch(n: int) -> None:
    batches = task_batches(n)
    for epoch in range(2):
        steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
        labels = np.concatenate([batches.at(step).labels for step in steps])
        assert sorted(labels.tolist()) == list(range(n))


def test_batches_are_as_equal_as_can_be_and_no_larger_than_asked() -> None:
    batches = task_batches(1003, batch_rows=8)
    sizes = {batches.at(step).n_rows for step in range(batches.steps_per_epoch)}
    assert batches.steps_per_epoch == 126
    assert sizes == {7, 8}


def test_a_batch_is_a_function_of_the_step() -> None:
    batches, fresh = task_batches(), task_batches()
    for step in (300, 3, 126, 3, 0):
        one, other = batches.at(step), fresh.at(step)
        assert np.array_equal(one.ids, other.ids)
        assert np.array_equal(one.labels, other.labels)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    batches, other = task_batches(), task_batches(seed=1)
    first = batches.rows_at(0).tolist()
    assert first != batches.rows_at(batches.steps_per_epoch).tolist()
    assert first != other.rows_at(0).tolist()


def test_rows_and_labels_stay_together_and_nothing_is_padded() -> None:
    batch = task_batches().at(5)
    starts = np.concatenate([[0], batch.lengths.cumsum()[:-1]])
    assert np.array_equal(batch.ids[starts + 1], 10 + batch.labels)
    assert batch.n_tokens == batch.lengths.sum()
    assert (batch.ids != SPECIALS.pad).all()


def test_ranks_share_a_step_between_them() -> None:
    batches = task_batches()
    whole = batches.at(4)
    parts = [batches.at(4, rank, 3) for rank in range(3)]
    assert np.array_equal(np.concatenate([part.labels for part in parts]), whole.labels)
    assert np.array_equal(np.concatenate([part.ids for part in parts]), whole.ids)
    assert [part.first_row for part in parts] == [0, 2, 5]


def test_more_ranks_than_rows_are_refused() -> None:
    with pytest.raises(UserError, match="a batch of 2 rows cannot be shared by 3 processes: raise batch_rows"):
        task_batches(batch_rows=2).at(0, 0, 3)


def padding_share(lengths: np.ndarray, batches: list[np.ndarray]) -> float:
    """Cells that would be padding if each batch were a rectangle."""
    cells = sum(int(lengths[rows].max()) * len(rows) for rows in batches)
    return 1 - int(lengths.sum()) / cells


def test_bucketing_wastes_less_than_a_random_order() -> None:
    batches = task_batches()
    lengths = batches.tokens.lengths()
    bucketed = padding_share(lengths, [batches.rows_at(step) for step in range(batches.steps_per_epoch)])
    random = padding_share(lengths, np.array_split(np.random.default_rng(0).permutation(1003), 126))
    assert bucketed < 0.05 < 0.3 < random


def test_short_and_long_batches_come_in_random_order() -> None:
    batches = task_batches()
    means = [batches.at(step).lengths.mean() for step in range(batches.steps_per_epoch)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


def test_reading_by_length_takes_every_row_once() -> None:
    lengths = rows(100).lengths()
    numbers = list(by_length(lengths, 8))
    assert sorted(np.concatenate(numbers).tolist()) == list(range(100))
    assert all(lengths[a].max() <= lengths[b].min() for a, b in pairwise(numbers))


@pytest.mark.parametrize(
    ("lengths", "room", "kept"),
    [
        ([5], 7, [5]),
        ([9], 7, [7]),
        ([3, 4], 7, [3, 4]),
        ([2, 9], 7, [2, 5]),
        ([9, 2], 7, [5, 2]),
        ([9, 9], 7, [3, 4]),
        ([9, 8], 7, [4, 3]),
        ([8, 9], 7, [3, 4]),
        ([4, 9], 8, [4, 4]),
        ([5, 4], 8, [4, 4]),
        ([0, 9], 7, [0, 7]),
    ],
)
def test_the_longer_segment_gives_way_first(lengths: list[int], room: int, kept: list[int]) -> None:
    assert fit(lengths, room) == kept
    assert sum(fit(lengths, room)) <= room


def test_no_rows_are_refused() -> None:
    with pytest.raises(UserError, match="there are no training rows"):
        TaskBatches(TokenRows([], SPECIALS, 0), np.arange(0), batch_rows=8, seed=0)


@pytest.mark.parametrize("batch_tokens", [1, 100, 1000, 10**6])
def test_batches_by_tokens_hold_every_row_once_and_no_more_tokens_than_asked(batch_tokens: int) -> None:
    lengths = rows(500).lengths()
    batches = list(by_tokens(lengths, batch_tokens))
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert all(lengths[batch].sum() <= batch_tokens or len(batch) == 1 for batch in batches)
    # None could have taken the first row of the next one too.
    for one, other in pairwise(batches):
        assert lengths[one].sum() + lengths[other[0]] > batch_tokens
    assert not list(by_tokens(np.array([], np.int64), batch_tokens))
