"""Rows by step: pure, whole, balanced."""

import time
from itertools import chain

import numpy as np
import pytest

from foundation.core.errors import UserError
from foundation.data.batches import (
    BROKEN,
    FOLLOWS,
    NO_PAIR,
    Batch,
    Pairs,
    PretrainingBatches,
    assemble,
    assemble_spans,
    index_examples,
)
from foundation.data.config import BatchesConfig
from foundation.data.corpus import TokenTable
from foundation.data.ramp import RowRamp
from tests.builders import SPECIALS, table

SEQ_LEN = 32


def batches(
    pairs: Pairs = Pairs.next, rows_per_step: int = 8, n_documents: int = 12, seed: int = 3
) -> PretrainingBatches:
    return PretrainingBatches(
        table(n_documents),
        SPECIALS,
        BatchesConfig(rows_per_step=rows_per_step, seq_len=SEQ_LEN, short_share=0.1),
        pairs=pairs,
        seed=seed,
    )


def numbered(n_documents: int = 12) -> TokenTable:
    """A table whose token ids are their own positions, so that a token can be found again."""
    plain = table(n_documents)
    return TokenTable(np.arange(1000, 1000 + len(plain.ids), dtype=np.uint32), plain.documents, plain.sentences)


def test_assemble_lays_rows_end_to_end() -> None:
    batch = assemble([(np.array([9, 8]),), (np.array([7]), np.array([6, 5]))], SPECIALS, None)
    assert batch.ids.tolist() == [2, 9, 8, 3, 2, 7, 3, 6, 5, 3]
    assert batch.segments.tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 1, 1]
    assert batch.lengths.tolist() == [4, 6]
    assert batch.maskable.tolist() == [False, True, True, False, False, True, False, True, True, False]


def test_rows_and_spans_of_a_table_are_laid_end_to_end() -> None:
    """Random spans, empty ones among them, of one or two segments."""
    draws = np.random.default_rng(0)
    ids = draws.integers(0, 101, 500).astype(np.uint16)  # special ones may be in the text
    for n_rows in (1, 2, 17):
        starts = draws.integers(0, 450, (n_rows, 2))
        spans = np.stack([starts, starts + draws.integers(0, 20, (n_rows, 2))], axis=2)
        is_pair = draws.random(n_rows) < 0.5
        rows = [tuple(ids[a:b] for a, b in spans[row][: 1 + is_pair[row]]) for row in range(n_rows)]
        plain: list[list[int]] = [
            [SPECIALS.cls, *(token for segment in row for token in (*segment.tolist(), SPECIALS.sep))] for row in rows
        ]
        segments = [[0] * (len(row[0]) + 2) + [1] * sum(len(part) + 1 for part in row[1:]) for row in rows]
        for batch in (assemble(rows, SPECIALS, None), assemble_spans(ids, spans, is_pair, SPECIALS)):
            assert batch.ids.tolist() == [*chain(*plain)] and batch.segments.tolist() == [*chain(*segments)]
            assert batch.lengths.tolist() == [len(row) for row in plain]
            specials = (batch.ids == SPECIALS.cls) | (batch.ids == SPECIALS.sep)
            assert np.array_equal(batch.maskable, ~specials)
            assert {part.dtype for part in (batch.ids, batch.segments, batch.lengths)} == {np.dtype(np.int64)}


@pytest.mark.parametrize("whole_sentences", [True, False])
@pytest.mark.parametrize("pairs", list(Pairs))
def test_every_token_comes_exactly_once_an_epoch(pairs: Pairs, whole_sentences: bool) -> None:
    source = numbered()
    made = PretrainingBatches(
        source,
        SPECIALS,
        BatchesConfig(rows_per_step=1, seq_len=SEQ_LEN, short_share=0.2, whole_sentences=whole_sentences),
        pairs=pairs,
        seed=0,
    )
    # Whole epochs in steps that do not divide them: two epochs hold every token twice.
    made.rows_per_step = 6 if len(made) % 6 else 7
    steps = 2 * len(made)
    seen = np.concatenate([(b := made.at(step)).ids[b.maskable] for step in range(steps)])
    found, counts = np.unique(seen, return_counts=True)
    assert (found == source.ids).all()
    assert (counts == 2 * made.rows_per_step).all()


@pytest.mark.parametrize("pairs", list(Pairs))
def test_no_row_is_longer_than_seq_len_and_none_crosses_a_document(pairs: Pairs) -> None:
    source = table()
    bounds = index_examples(source, seq_len=SEQ_LEN, pairs=pairs, short_share=0.1, seed=0).bounds
    made = batches(pairs)
    assert max(made.at(step).lengths.max() for step in range(20)) <= SEQ_LEN
    first, last = (np.searchsorted(source.documents, at, side="right") for at in (bounds[:, 0], bounds[:, 2] - 1))
    assert (first == last).all()


def test_spans_end_at_sentences_unless_a_sentence_is_longer_than_a_span() -> None:
    source = table(sentence_tokens=4)
    bounds = index_examples(source, seq_len=SEQ_LEN, pairs=Pairs.none, short_share=0.0, seed=0).bounds
    assert np.isin(bounds[:, 2], source.sentences).all()


def test_rows_are_full_up_to_their_documents_end_when_sentences_may_be_cut() -> None:
    source = table()
    bounds = index_examples(
        source, seq_len=SEQ_LEN, pairs=Pairs.none, short_share=0.0, whole_sentences=False, seed=0
    ).bounds
    is_full = bounds[:, 2] - bounds[:, 0] == SEQ_LEN - 2
    assert is_full.any() and np.isin(bounds[~is_full, 2], source.documents).all()


def test_batch_is_a_pure_function_of_the_step() -> None:
    one, other = batches(), batches()
    [other.at(step) for step in (5, 0, 9)]
    for step in (0, 1, 7, 100_000):
        a, b = one.at(step), other.at(step)
        assert (a.ids == b.ids).all() and (a.labels == b.labels).all()
    assert not np.array_equal(one.at(0).ids, batches(seed=4).at(0).ids)


def test_every_epoch_has_the_same_tokens_in_an_order_of_its_own() -> None:
    made = batches(Pairs.none)
    made.rows_per_step = len(made)
    one, two = made.at(0).ids, made.at(1).ids
    assert np.array_equal(np.sort(one), np.sort(two)) and not np.array_equal(one, two)


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_ranks_partition_a_step(world: int) -> None:
    made = batches()
    whole, parts = made.at(4), [made.at(4, rank, world) for rank in range(world)]
    assert (np.concatenate([part.ids for part in parts]) == whole.ids).all()
    assert (np.concatenate([part.labels for part in parts]) == whole.labels).all()
    assert [part.first_row for part in parts] == [8 * rank // world for rank in range(world)]


@pytest.mark.parametrize(("first", "last", "steps"), [(1, 8, 20), (3, 16, 7), (8, 8, 5), (12, 4, 9), (4, 16, 0)])
def test_a_ramp_goes_in_a_straight_line_and_counts_what_it_gave(first: int, last: int, steps: int) -> None:
    ramp = RowRamp(first, last, steps)
    rows = [ramp.rows(step) for step in range(steps + 10)]
    assert rows == [round(first + (last - first) * step / steps) for step in range(steps)] + [last] * 10
    assert [ramp.before(step) for step in range(steps + 11)] == [sum(rows[:step]) for step in range(steps + 11)]


@pytest.mark.parametrize("world", [1, 2])
def test_a_ramp_takes_the_same_rows_in_the_same_order_in_other_portions(world: int) -> None:
    plain = PretrainingBatches(
        numbered(), SPECIALS, BatchesConfig(seq_len=SEQ_LEN, rows_per_step=8), pairs=Pairs.none, seed=3
    )
    cfg = BatchesConfig(seq_len=SEQ_LEN, rows_per_step=8, ramp_from=2, ramp_share=0.5)
    ramped = PretrainingBatches(numbered(), SPECIALS, cfg, pairs=Pairs.none, seed=3)
    ramped.ramp_over(40)
    steps = [[ramped.at(step, rank, world) for rank in range(world)] for step in range(40)]
    rows = [sum(part.n_rows for part in parts) for parts in steps]
    assert (
        rows[0] == 2
        and rows[10] == 5
        and rows[20:] == [8] * 20
        and sum(rows) == pytest.approx(40 * cfg.mean_rows, rel=0.04)
    )
    assert len(plain) < sum(rows), "more than one epoch is to be seen"
    expected = np.concatenate([plain.at(step).ids for step in range(40)])
    got = np.concatenate([part.ids for parts in steps for part in parts])
    assert np.array_equal(got, expected[: len(got)])


def test_without_a_ramp_or_a_length_of_the_run_every_step_has_its_rows() -> None:
    made = batches(rows_per_step=8)
    made.ramp_over(10)
    assert made.ramp is None and made.at(0).n_rows == 8


def segments_of(batch: Batch) -> list[tuple[np.ndarray, np.ndarray]]:
    """The tokens of A and of B of every row."""
    out = []
    for ids, kinds, real in zip(
        *(np.split(x, np.cumsum(batch.lengths)[:-1]) for x in (batch.ids, batch.segments, batch.maskable)), strict=True
    ):
        out.append((ids[real & (kinds == 0)], ids[real & (kinds == 1)]))
    return out


def test_negatives_are_half_of_the_pairs_and_never_from_their_own_document() -> None:
    source = numbered(n_documents=30)
    made = PretrainingBatches(
        source, SPECIALS, BatchesConfig(rows_per_step=32, seq_len=SEQ_LEN, short_share=0.1), pairs=Pairs.next, seed=1
    )
    n_broken = n_pairs = 0
    for step in range(60):
        batch = made.at(step)
        n_pairs += int((batch.labels != NO_PAIR).sum())
        n_broken += int((batch.labels == BROKEN).sum())
        for (first, second), label in zip(segments_of(batch), batch.labels, strict=True):
            if label == NO_PAIR:
                assert len(second) == 0
                continue
            documents = np.searchsorted(source.documents, np.array([first[0], second[0]]) - 1000, side="right")
            assert (documents[0] == documents[1]) == (label == FOLLOWS)
            assert (second[0] == first[-1] + 1) == (label == FOLLOWS)
    # One row a step may be left over from halving an odd number of pairs.
    assert abs(n_broken - n_pairs / 2) <= 30 + 1


def test_negatives_come_from_anywhere_and_not_from_next_door() -> None:
    """Neighbouring documents are alike (the same speaker, the same site): taking B's from there would make another task."""
    source = numbered(n_documents=60)
    made = PretrainingBatches(
        source, SPECIALS, BatchesConfig(rows_per_step=64, seq_len=SEQ_LEN, short_share=0.0), pairs=Pairs.next, seed=1
    )
    distances = []
    for step in range(30):
        for (first, second), label in zip(segments_of(batch := made.at(step)), batch.labels, strict=True):
            if label == BROKEN:
                a, b = np.searchsorted(source.documents, np.array([first[0], second[0]]) - 1000, side="right")
                distances.append(abs(a - b))
    # Two documents of 60 drawn at random lie a third of 60 apart.
    assert np.mean(distances) == pytest.approx(20, abs=3)


def test_which_pairs_are_broken_and_with_whom_is_drawn_anew_each_step() -> None:
    """Every step has the same 16 documents, of one pair each: without new draws it would break pairs in the same way."""
    documents = np.arange(0, 17 * 28, 28, dtype=np.int64)
    source = TokenTable(np.arange(1000, 1000 + documents[-1], dtype=np.uint32), documents, documents)
    made = PretrainingBatches(
        source, SPECIALS, BatchesConfig(rows_per_step=16, seq_len=31, short_share=0.0), pairs=Pairs.next, seed=1
    )
    rows, partners = set(), set()
    for step in range(4):
        batch = made.at(step)
        broken = batch.labels == BROKEN
        rows.add(tuple(broken))
        of = {(a[0] - 1000) // 28: (b[0] - 1000) // 28 for a, b in np.array(segments_of(batch))[broken]}
        # By rank among the broken, since which documents those are is drawn as well.
        partners.add(tuple(sorted(of).index(of[document]) for document in sorted(of)))
    assert len(rows) == len(partners) == 4


def test_one_large_document_keeps_its_surplus_pairs_whole() -> None:
    """99 % of the text in one document: what cannot be exchanged stays, and is labelled as what it is."""
    documents = np.array([0, 4000, 4040], dtype=np.int64)
    source = TokenTable(np.arange(1000, 5040, dtype=np.uint32), documents, np.arange(0, 4041, 4, dtype=np.int64))
    made = PretrainingBatches(
        source, SPECIALS, BatchesConfig(rows_per_step=32, seq_len=SEQ_LEN, short_share=0.0), pairs=Pairs.next, seed=1
    )
    for step in range(8):
        for (first, second), label in zip(segments_of(batch := made.at(step)), batch.labels, strict=True):
            if label == BROKEN:
                assert (first[0] < 5000) != (second[0] < 5000)


def test_sentence_order_exchanges_a_and_b() -> None:
    source = numbered()
    made = PretrainingBatches(
        source, SPECIALS, BatchesConfig(rows_per_step=16, seq_len=SEQ_LEN, short_share=0.1), pairs=Pairs.order, seed=1
    )
    batch = made.at(0)
    assert (batch.labels == BROKEN).sum() >= 5
    for (first, second), label in zip(segments_of(batch), batch.labels, strict=True):
        if label == BROKEN:
            assert first[0] == second[-1] + 1
        elif label == FOLLOWS:
            assert second[0] == first[-1] + 1


def test_seeking_far_costs_no_more_than_near() -> None:
    made = batches()

    def fastest(step: int) -> float:
        times = []
        for _ in range(30):
            start = time.perf_counter()
            made.at(step)
            times.append(time.perf_counter() - start)
        return min(times)

    fastest(0)
    assert fastest(10**9) < 3 * fastest(0) + 1e-3


def test_short_share_makes_short_rows() -> None:
    source = table(40)
    lengths = {}
    for share in (0.0, 0.9):
        bounds = index_examples(source, seq_len=SEQ_LEN, pairs=Pairs.none, short_share=share, seed=0).bounds
        lengths[share] = np.median(bounds[:, 2] - bounds[:, 0])
    assert lengths[0.9] < 0.75 * lengths[0.0]


def test_corpus_smaller_than_one_batch_is_refused() -> None:
    with pytest.raises(UserError, match=r"fewer than one batch of 100000: add text, or lower rows_per_step"):
        batches(rows_per_step=100_000)


def test_seq_len_without_room_is_refused() -> None:
    with pytest.raises(UserError, match=r"seq_len=4 leaves no room .* use at least 5"):
        index_examples(table(), seq_len=4, pairs=Pairs.next, short_share=0.0, seed=0)


def test_negatives_from_a_single_document_are_refused() -> None:
    with pytest.raises(UserError, match="has only one"):
        batches(n_documents=1, rows_per_step=1)
