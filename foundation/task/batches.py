"""Labelled rows by step: tokenised once, cut to the model's length, batched by similar length, nothing padded.

Letters: R rows · U units: rows, or the few rows that make an item
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.core.randomness import rng
from foundation.data.batches import Batch, Row, assemble, rows_of_rank
from foundation.data.tokenizer import SpecialIds, Tokenizer
from foundation.task.examples import Labels

# So many batches are sorted by length together: enough to make neighbours alike, few enough to keep batches random.
_POOL_BATCHES = 50

# What the head is to give: an entry a unit of TokenRows, or a list of arrays with an entry a token.
Targets: TypeAlias = Labels | list[NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Rows of one or two segments, without special tokens, that fit the model.

    n_cut: how many texts had to be shortened or divided. rows_per_unit: neighbours that a batch never separates.
    """

    rows: list[Row]
    specials: SpecialIds
    n_cut: int
    rows_per_unit: int = 1

    def __len__(self) -> int:
        """Units."""
        return len(self.rows) // self.rows_per_unit

    def row_lengths(self) -> NDArray[np.int64]:
        """(R,) tokens of each row, special ones included."""
        return np.array([sum(len(segment) + 1 for segment in row) + 1 for row in self.rows], dtype=np.int64)

    def take(self, numbers: NDArray[np.int64]) -> "TokenRows":
        """These rows, in this order, each on its own; n_cut stays that of all."""
        return TokenRows([self.rows[number] for number in numbers], self.specials, self.n_cut)

    def lengths(self) -> NDArray[np.int64]:
        """(U,) tokens of each unit."""
        return self.row_lengths().reshape(-1, self.rows_per_unit).sum(1)

    def batch(self, numbers: NDArray[np.int64], targets: Targets | None, first_unit: int = 0) -> Batch:
        """These units, in this order; targets are of all units."""
        places = numbers[:, None] * self.rows_per_unit + np.arange(self.rows_per_unit)
        chosen = [self.rows[place] for place in places.ravel()]
        labels: Labels | None
        if isinstance(targets, list):
            labels = np.concatenate([targets[number] for number in numbers])
        else:
            labels = None if targets is None else targets[numbers]
        return assemble(chosen, self.specials, labels, first_unit * self.rows_per_unit)


def tokenize(text: list[str], text_pair: list[str] | None, tokenizer: Tokenizer, max_seq_len: int) -> TokenRows:
    """Encode texts or pairs; a row has at most max_seq_len tokens, and of a pair the longer segment gives way first."""
    segments = [tokenizer.encode_batch(text)]
    if text_pair is not None:
        segments.append(tokenizer.encode_batch(text_pair))
    room = max_seq_len - len(segments) - 1
    if room < len(segments):
        raise UserError(f"the model takes {max_seq_len} tokens, special ones included: too few for this task's texts")
    rows: list[Row] = []
    n_cut = 0
    for row in zip(*segments, strict=True):
        kept = fit([len(segment) for segment in row], room)
        n_cut += kept != [len(segment) for segment in row]
        rows.append(tuple(segment[:n] for segment, n in zip(row, kept, strict=True)))
    return TokenRows(rows, tokenizer.specials, n_cut)


def fit(lengths: list[int], room: int) -> list[int]:
    """Lengths of one or two segments after cutting the longer first until they fit.

    Of two that are both too long the longer one, else the second, keeps the odd token: so does `longest_first` of the
    tokenizers library, and an exported model sees the same rows.
    """
    if sum(lengths) <= room:
        return lengths
    if len(lengths) == 1:
        return [room]
    shorter = min(lengths)
    if shorter <= room // 2:
        return [shorter, room - shorter] if lengths[0] == shorter else [room - shorter, shorter]
    return [room - room // 2, room // 2] if lengths[0] > lengths[1] else [room // 2, room - room // 2]


def by_length(lengths: NDArray[np.int64], batch_rows: int) -> Iterator[NDArray[np.int64]]:
    """Row numbers in batches of neighbours in length, for reading only: each row once."""
    order = np.argsort(lengths, kind="stable")
    for first in range(0, len(order), batch_rows):
        yield order[first : first + batch_rows]


def by_tokens(lengths: NDArray[np.int64], batch_tokens: int) -> Iterator[NDArray[np.int64]]:
    """As by_length, with at most batch_tokens tokens in a batch (a longer row is alone): batches take equal time and memory."""
    order = np.argsort(lengths, kind="stable")
    ends = lengths[order].cumsum()
    first, before = 0, 0
    while first < len(order):
        last = max(first + 1, int(np.searchsorted(ends, before + batch_tokens, side="right")))
        yield order[first:last]
        first, before = last, int(ends[last - 1])


class TaskBatches:
    """Training units by step, in a fresh order every epoch; `at` is pure: any step may be asked for at any time.

    Every unit is in exactly one batch of an epoch. Batches are as few as batch_rows allows and as equal as can be:
    no unit weighs more for standing in a small rest.

    Args:
        targets: one a unit. batch_rows: most units in an optimizer step, over all ranks. seed: of the order.
    """

    def __init__(self, tokens: TokenRows, targets: Targets, *, batch_rows: int, seed: int) -> None:
        if not len(tokens):
            raise UserError("there are no training rows: give the task more data")
        self.tokens, self.targets, self.seed = tokens, targets, seed
        self.steps_per_epoch = -(-len(tokens) // batch_rows)
        self._lengths = tokens.lengths()
        self._cuts = np.arange(self.steps_per_epoch + 1) * len(tokens) // self.steps_per_epoch
        # Kept only to save work: the plan is a function of seed and epoch. One attribute, since a thread asks too.
        self._plan: tuple[int, list[NDArray[np.int64]]] = (-1, [])

    def __len__(self) -> int:
        """Units in an epoch."""
        return len(self.tokens)

    def at(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """This rank's units of a step."""
        numbers = self.rows_at(step)
        if len(numbers) < world:
            raise UserError(f"a batch of {len(numbers)} rows cannot be shared by {world} processes: raise batch_rows")
        mine = rows_of_rank(len(numbers), rank, world)
        return self.tokens.batch(numbers[mine.start : mine.stop], self.targets, mine.start)

    def rows_at(self, step: int) -> NDArray[np.int64]:
        """Unit numbers of a step, over all ranks."""
        epoch, place = divmod(step, self.steps_per_epoch)
        planned, batches = self._plan
        if epoch != planned:
            batches = self._batches_of(epoch)
            self._plan = (epoch, batches)
        return batches[place]

    def _batches_of(self, epoch: int) -> list[NDArray[np.int64]]:
        """Shuffle the units, sort pools of them by length, cut into batches, shuffle the batches."""
        generator = rng(self.seed, "order", epoch)
        order = generator.permutation(len(self))
        for first in range(0, self.steps_per_epoch, _POOL_BATCHES):
            last = min(first + _POOL_BATCHES, self.steps_per_epoch)
            pool = order[self._cuts[first] : self._cuts[last]]
            order[self._cuts[first] : self._cuts[last]] = pool[np.argsort(self._lengths[pool], kind="stable")]
        batches = np.split(order, self._cuts[1:-1])
        return [batches[number] for number in generator.permutation(len(batches))]
