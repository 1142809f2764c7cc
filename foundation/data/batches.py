"""The batch of step i is a pure function of (corpus, seed, i): nothing is iterated, so nothing has to be restored.

documents of a table -> spans of whole sentences -> examples (one span, or two neighbours A and B) -> a fresh permutation of
the examples every epoch -> rows of a step. Every token of the table is in exactly one row of an epoch.

Letters: T tokens of all rows, laid end to end without padding · R rows
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.core.randomness import permute, rng
from foundation.data.config import BatchesConfig
from foundation.data.corpus import TokenTable
from foundation.data.ramp import RowRamp
from foundation.data.tokenizer import SpecialIds

Ids: TypeAlias = NDArray[np.int64]


class Pairs(str, Enum):
    """What the two segments of a row are.

    none: one segment. next: half of the rows have another document's B (Devlin et al. 2019, 3.1, task 2).
    order: half of the rows have A and B exchanged (Lan et al. 2020, ALBERT, 3.1).
    """

    none = "none"
    next = "next"
    order = "order"


# Labels of a pair, in BERT's released convention: 0 where B truly follows A.
FOLLOWS, BROKEN, NO_PAIR = 0, 1, -1


@dataclass(slots=True)
class Batch:
    """Clean tokens of some rows of a step.

    ids, segments: (T,) int64. lengths: (R,) int64, their sum is T. maskable: (T,) bool, False at [CLS] and [SEP].
    labels: (R,), int64 or float64, or as a task's head wants them; None where there are none. first_row: number of the first of
    these rows within the step. places: (R, 2) int64, where a row's text starts and ends in the table (of a broken pair: where its
    A and what followed it do); None where there is no table.
    """

    ids: Ids
    segments: Ids
    lengths: Ids
    maskable: NDArray[np.bool_]
    labels: NDArray[np.int64] | NDArray[np.float64] | None
    first_row: int
    places: Ids | None = None

    @property
    def n_rows(self) -> int:
        """R."""
        return len(self.lengths)

    @property
    def n_tokens(self) -> int:
        """T, special tokens included."""
        return len(self.ids)


Row: TypeAlias = tuple[NDArray[np.integer], ...]


def assemble(
    rows: Sequence[Row],
    specials: SpecialIds,
    labels: NDArray[np.int64] | NDArray[np.float64] | None,
    first_row: int = 0,
) -> Batch:
    """Lay rows of one or two segments end to end as [CLS] A [SEP] and [CLS] A [SEP] B [SEP]; nothing is padded or cut."""
    segments = [segment for row in rows for segment in row]
    ends = np.cumsum([len(segment) for segment in segments])
    is_pair = np.array([len(row) == 2 for row in rows])
    spans = np.zeros((len(rows), 2, 2), dtype=np.int64)
    spans[np.stack([np.ones_like(is_pair), is_pair], axis=1)] = np.stack(
        [ends - np.diff(ends, prepend=0), ends], axis=1
    )
    batch = assemble_spans(np.concatenate(segments), spans, is_pair, specials)
    batch.labels, batch.first_row = labels, first_row
    return batch


def assemble_spans(table: NDArray[np.integer], spans: Ids, is_pair: NDArray[np.bool_], specials: SpecialIds) -> Batch:
    """The same for rows that are spans of a table, (R, 2, 2): where A and B start and end; B counts where is_pair, (R,).

    A few passes over all tokens, in which numpy lets other threads run; a loop over rows would hold up the thread that asks a GPU
    for its steps.
    """
    asked = np.stack([np.ones_like(is_pair), is_pair], axis=1).ravel()
    starts, ends = spans.reshape(-1, 2)[asked].T
    is_first = np.arange(len(asked))[asked] % 2 == 0
    n_text = ends - starts
    n_piece = n_text + 1 + is_first  # [SEP] behind every segment, [CLS] before the first of a row
    piece_ends = n_piece.cumsum()
    ids = np.empty(n_piece.sum(), dtype=np.int64)
    ids[piece_ends - 1] = specials.sep
    ids[(piece_ends - n_piece)[is_first]] = specials.cls
    # Where each token of the text is: counted through, plus how far its segment is from where the count stands.
    count = np.arange(n_text.sum())
    counted = n_text.cumsum() - n_text
    ids[count + (piece_ends - 1 - n_text - counted).repeat(n_text)] = table[count + (starts - counted).repeat(n_text)]
    maskable = (ids != specials.cls) & (ids != specials.sep)
    lengths = np.add.reduceat(n_piece, np.flatnonzero(is_first))
    return Batch(ids, (~is_first).astype(np.int64).repeat(n_piece), lengths, maskable, labels=None, first_row=0)


def rows_of_rank(n_rows: int, rank: int, world: int) -> range:
    """This rank's rows of a step: neighbours, shares as equal as can be."""
    return range(n_rows * rank // world, n_rows * (rank + 1) // world)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleIndex:
    """The rows there are: (E, 3) int64 token offsets (start of A, start of B, end); B is empty in a row of one segment."""

    bounds: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.bounds)


def index_examples(
    table: TokenTable, *, seq_len: int, pairs: Pairs, short_share: float, whole_sentences: bool = True, seed: int
) -> ExampleIndex:
    """Cut every document into rows of at most seq_len tokens, special ones included.

    A span is as many whole sentences as fit (a longer sentence is cut), or without whole_sentences as many tokens;
    neighbouring spans of a document pair up, an odd one out stays alone. For short_share of the rows the room is drawn
    uniformly instead, so that short inputs are known too (Devlin et al. 2019, released create_pretraining_data.py). All
    documents advance together, a span a turn: time and memory go with the number of rows.
    """
    specials, segments = (2, 1) if pairs is Pairs.none else (3, 2)
    room = (seq_len - specials) // segments
    if room < 1:
        raise UserError(
            f"seq_len={seq_len} leaves no room for text beside {specials} special tokens: use at least {specials + segments}"
        )
    generator = rng(seed, "short rows")
    documents = np.asarray(table.documents)
    start, end = documents[:-1].copy(), documents[1:]
    order = np.arange(len(start))
    found: list[NDArray[np.int64]] = []
    while len(order):
        at, stop = start[order], end[order]
        rooms = np.full(len(order), room)
        is_short = generator.random(len(order)) < short_share
        rooms[is_short] = generator.integers(1, room + 1, int(is_short.sum()))
        bounds = table.sentences if whole_sentences else None
        middle = _next_cut(bounds, at, stop, rooms)
        last = middle if pairs is Pairs.none else _next_cut(bounds, middle, stop, rooms)
        found.append(np.stack([at, middle, last, order], axis=1))
        start[order] = last
        order = order[last < stop]
    rows = np.concatenate(found) if found else np.empty((0, 4), np.int64)
    # Back into the corpus' order, so that the index does not depend on how the cutting was arranged.
    return ExampleIndex(bounds=rows[np.argsort(rows[:, 0], kind="stable"), :3])


def _next_cut(
    sentences: NDArray[np.int64] | None, at: NDArray[np.int64], stop: NDArray[np.int64], rooms: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The last sentence bound within reach of each start, or the reach itself when the sentence is longer (or there are no
    bounds to keep); at most `stop`."""
    reach = np.minimum(at + rooms, stop)
    if sentences is None:
        return reach
    bound = sentences[np.searchsorted(sentences, reach, side="right") - 1]
    return np.where(bound > at, bound, reach)


class PretrainingBatches:
    """Rows of a corpus by step.

    Args:
        table: the tokens. specials: ids of [CLS] and [SEP]. seed: of the order of rows and of the broken pairs.

    A ramp of the rows is a share of a run, so it is there once the run's length is: see ramp_over.
    """

    def __init__(self, table: TokenTable, specials: SpecialIds, cfg: BatchesConfig, *, pairs: Pairs, seed: int) -> None:
        if pairs is Pairs.next and len(table.documents) < 3:
            raise UserError(
                "next sentence prediction takes its negatives from other documents, and the corpus has only one"
            )
        self.table, self.specials, self.seed, self.pairs = table, specials, seed, pairs
        self.cfg, self.rows_per_step = cfg, cfg.rows_per_step
        self.ramp: RowRamp | None = None
        self.index = index_examples(
            table,
            seq_len=cfg.seq_len,
            pairs=pairs,
            short_share=cfg.short_share,
            whole_sentences=cfg.whole_sentences,
            seed=seed,
        )
        if len(self.index) < cfg.rows_per_step:
            raise UserError(
                f"the corpus gives {len(self.index)} rows of up to {cfg.seq_len} tokens, fewer than one batch of "
                f"{cfg.rows_per_step}: add text, or lower rows_per_step or seq_len"
            )

    def __len__(self) -> int:
        """Rows in an epoch."""
        return len(self.index)

    def ramp_over(self, total_steps: int) -> None:
        """Lay the settings' ramp, if there is one, over a run of so many steps."""
        if self.cfg.ramp_from is not None:
            steps = round(self.cfg.ramp_share * total_steps)
            self.ramp = RowRamp(self.cfg.ramp_from, self.cfg.rows_per_step, steps)

    def at(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """This rank's rows of a step; the rows of all ranks together are those of one process."""
        examples = self.index.bounds[self._examples_of(step)]
        seconds, labels = self._pair_up(examples, step)
        mine = rows_of_rank(len(examples), rank, world)
        examples, seconds, labels = (part[mine.start : mine.stop] for part in (examples, seconds, labels))
        spans = np.stack([examples[:, :2], seconds], axis=1)
        if self.pairs is Pairs.order:
            spans[labels == BROKEN] = spans[labels == BROKEN, ::-1]
        batch = assemble_spans(self.table.ids, spans, labels != NO_PAIR, self.specials)
        batch.labels, batch.first_row, batch.places = labels, mine.start, examples[:, ::2]
        return batch

    def _examples_of(self, step: int) -> Ids:
        """Example numbers of the step's rows; a step may straddle two epochs, each in its own random order."""
        first, n_rows = step * self.rows_per_step, self.rows_per_step
        if self.ramp is not None:
            first, n_rows = self.ramp.before(step), self.ramp.rows(step)
        slots = np.arange(first, first + n_rows)
        epochs, places = slots // len(self), slots % len(self)
        out = np.empty(n_rows, np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            out[here] = permute(places[here], len(self), self.seed, "order", int(epoch))
        return out

    def _pair_up(self, examples: Ids, step: int) -> tuple[Ids, Ids]:
        """(R, 2) bounds of each row's second segment, and (R,) labels. Broken and whole pairs alternate in a random order."""
        seconds = examples[:, 1:].copy()
        labels = np.full(len(examples), NO_PAIR)
        if self.pairs is Pairs.none:
            return seconds, labels
        paired = np.flatnonzero(examples[:, 2] > examples[:, 1])
        labels[paired] = FOLLOWS
        broken = rng(self.seed, "broken pairs", step).permutation(paired)[: len(paired) // 2]
        if self.pairs is Pairs.next:
            broken = self._exchange_seconds(examples, seconds, broken, step)
        labels[broken] = BROKEN
        return seconds, labels

    def _exchange_seconds(self, examples: Ids, seconds: Ids, broken: Ids, step: int) -> Ids:
        """Permute the B's of `broken` rows among themselves, each to another document; returns the rows that could be.

        With the documents in a random order and the rows turned by the size of the largest one, no row can meet its own
        document, as long as no document holds more than half of them; its surplus rows keep their B's (and the label of whole
        pairs). The order has to be random: neighbours in the corpus are alike, and would be hard negatives.
        """
        documents = np.searchsorted(self.table.documents, examples[broken, 0], side="right")
        while True:
            kinds, counts = np.unique(documents, return_counts=True)
            surplus = 2 * int(counts.max(initial=0)) - len(broken)
            if surplus <= 0:
                break
            drop = np.flatnonzero(documents == kinds[counts.argmax()])[:surplus]
            broken, documents = np.delete(broken, drop), np.delete(documents, drop)
        if len(broken):
            _, numbers = np.unique(documents, return_inverse=True)
            shuffled = rng(self.seed, "documents of broken pairs", step).permutation(len(counts))
            by_document = broken[np.argsort(shuffled[numbers], kind="stable")]
            seconds[by_document] = seconds[np.roll(by_document, -int(counts.max()))]
        return broken
