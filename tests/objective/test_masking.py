"""Masking: the right shares, at the right places, the same however the rows are dealt out."""

from pathlib import Path

import numpy as np
import pytest

from foundation.core.randomness import RowRng
from foundation.data.batches import Batch, assemble
from foundation.objective.config import MaskingConfig, MaskUnit
from foundation.objective.masked_lm import Masking
from tests.builders import SPECIALS

VOCAB = 200
# Every third ordinary id continues a word.
CONTINUES = np.arange(VOCAB) % 3 == 0
CONTINUES[:5] = False


def rows(n_rows: int = 400, length: int = 60, seed: int = 0) -> Batch:
    generator = np.random.default_rng(seed)
    return assemble([(generator.integers(5, VOCAB, length),) for _ in range(n_rows)], SPECIALS, None)


def masking(row_stride: int = 64, **changes: object) -> Masking:
    return Masking(MaskingConfig(**changes), SPECIALS, CONTINUES, row_stride=row_stride)


def within_five_sigma(count: float, total: float, p: float) -> bool:
    return abs(count - total * p) < 5 * (total * p * (1 - p)) ** 0.5


@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_shares_are_80_10_10_of_the_rate(rate: float) -> None:
    batch = rows()
    example = masking(rate=rate, final_rate=rate)(batch, RowRng(0, "mask", 0), 0.0)
    at, n = example.targets_at.numpy(), int(batch.maskable.sum())
    assert within_five_sigma(len(at), n, rate)
    now, before = example.ids.numpy()[at], batch.ids[at]
    assert (example.targets.numpy() == before).all()
    same_by_chance = 1 / (VOCAB - 5)
    assert within_five_sigma((now == SPECIALS.mask).sum(), len(at), 0.8)
    # Kept unchanged: 10 %, and the random tokens that happen to be the same one.
    assert within_five_sigma((now == before).sum(), len(at), 0.1 + 0.1 * same_by_chance)
    others = np.delete(np.arange(batch.n_tokens), at)
    assert (example.ids.numpy()[others] == batch.ids[others]).all()


def test_special_tokens_are_neither_hidden_nor_put_in() -> None:
    batch = rows()
    example = masking(rate=0.9, final_rate=0.9)(batch, RowRng(0, "mask", 0), 0.0)
    assert batch.maskable[example.targets_at.numpy()].all()
    changed = example.ids.numpy()[example.targets_at.numpy()]
    assert not np.isin(changed, [SPECIALS.cls, SPECIALS.sep, SPECIALS.pad, SPECIALS.unk]).any()


def test_random_tokens_are_all_ordinary_ones_alike() -> None:
    mask = masking(rate=0.4, final_rate=0.4, mask_share=0.0, random_share=1.0)
    example = mask(rows(), RowRng(0, "mask", 0), 0.0)
    counts = np.bincount(example.ids.numpy()[example.targets_at.numpy()], minlength=VOCAB)
    assert all(within_five_sigma(count, counts.sum(), 1 / (VOCAB - 5)) for count in counts[5:])


@pytest.mark.parametrize("unit", list(MaskUnit))
def test_rows_dealt_to_ranks_get_the_same_masks(unit: MaskUnit) -> None:
    whole, mask = rows(10), masking(unit=unit)
    expected = mask(whole, RowRng(1, "mask", 7), 0.0).ids.numpy()
    got = []
    for first, last in ((0, 3), (3, 4), (4, 10)):
        tokens = slice(first * 62, last * 62)
        part = Batch(
            whole.ids[tokens], whole.segments[tokens], whole.lengths[first:last], whole.maskable[tokens], None, first
        )
        got.append(mask(part, RowRng(1, "mask", 7), 0.0).ids.numpy())
    assert (np.concatenate(got) == expected).all()


def test_masks_differ_from_step_to_step() -> None:
    batch, mask = rows(20), masking()
    one, two = (mask(batch, RowRng(0, "mask", step), 0.0).targets_at.numpy() for step in (0, 1))
    assert not np.array_equal(one, two)


def test_rate_moves_in_a_straight_line_and_masks_are_nested() -> None:
    batch, mask = rows(100), masking(rate=0.4, final_rate=0.2)
    early, middle, late = (set(mask(batch, RowRng(0, "mask", 0), p).targets_at.tolist()) for p in (0.0, 0.5, 0.999))
    assert late < middle < early
    assert within_five_sigma(len(middle), int(batch.maskable.sum()), 0.3)


def test_whole_words_are_hidden_whole() -> None:
    batch = rows()
    example = masking(unit=MaskUnit.whole_word)(batch, RowRng(0, "mask", 0), 0.0)
    hidden = np.zeros(batch.n_tokens, bool)
    hidden[example.targets_at.numpy()] = True
    inside = CONTINUES[batch.ids] & np.concatenate([[False], batch.maskable[:-1]]) & batch.maskable
    previous = np.concatenate([[False], hidden[:-1]])
    assert (hidden[inside] == previous[inside]).all()
    assert hidden.sum() / batch.maskable.sum() == pytest.approx(0.15, abs=0.02)


def test_spans_have_the_rate_and_the_mean_length_asked_for() -> None:
    batch = rows(800)
    example = masking(unit=MaskUnit.span, mean_span=3.0, rate=0.15)(batch, RowRng(0, "mask", 0), 0.0)
    hidden = np.zeros(batch.n_tokens, bool)
    hidden[example.targets_at.numpy()] = True
    starts = hidden & ~np.concatenate([[False], hidden[:-1]])
    assert hidden.sum() / batch.maskable.sum() == pytest.approx(0.15, abs=0.01)
    # Neighbouring spans merge (1 in 0.85) and rows cut them, so a run is a little longer or shorter than a span.
    assert 2.6 < hidden.sum() / starts.sum() < 3.9


def test_a_span_becomes_masks_or_stays_as_a_whole() -> None:
    mask = masking(unit=MaskUnit.span, mean_span=3.0, mask_share=0.5, random_share=0.0)
    example = mask(rows(), RowRng(0, "mask", 0), 0.0)
    at, is_mask = example.targets_at.numpy(), (example.ids == SPECIALS.mask).numpy()
    neighbours = at[:-1][np.diff(at) == 1]
    # Some are of two spans, one right behind the other: 7 %, of which half differ.
    assert (is_mask[neighbours] != is_mask[neighbours + 1]).mean() < 0.1


def test_row_longer_than_the_stride_is_our_mistake() -> None:
    with pytest.raises((IndexError, ValueError)):
        masking(row_stride=8)(rows(2), RowRng(0, "mask", 0), 0.0)


def test_textbook_cases_are_doctests() -> None:
    import doctest

    from foundation.objective import masked_lm

    result = doctest.testmod(masked_lm)
    assert result.attempted >= 5 and result.failed == 0, Path(masked_lm.__file__)
