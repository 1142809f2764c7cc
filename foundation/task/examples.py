"""A task's data, read and checked: what the kinds of task make of rows."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from foundation.task.row import Row

Labels: TypeAlias = NDArray[np.int64] | NDArray[np.float64]


@dataclass(slots=True)
class Side:
    """Rows of one split before their labels are understood; ids and rows go together."""

    ids: list[str]
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class Examples:
    """One split, an entry a row in every field.

    ids name the rows for good, whichever model sees them. text, text_pair: as a person would be shown the row.
    labels: class numbers or raw values, (N,); zeros and ones where a row has any of several labels, (N, K); zeros, (N,), where
    an answer is no class: then a subclass holds it.
    """

    ids: list[str]
    text: list[str]
    text_pair: list[str] | None
    labels: Labels

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[np.int64]) -> Self:
        """These rows, in this order."""
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: _taken(column, rows) for name, column in columns.items()})

    def items(self) -> Iterator[tuple[Any, ...]]:
        """Row by row all that is known of it."""
        columns = [getattr(self, f.name) for f in fields(self)]
        return zip(*([""] * len(self) if column is None else _plain(column) for column in columns), strict=True)


def _plain(column: Any) -> list[Any]:
    """Without arrays, not even among the entries: of a long one, such as a sentence's tags, repr shows the ends only."""
    if isinstance(column, np.ndarray):
        return list(column.tolist())
    return [entry.tolist() if isinstance(entry, np.ndarray) else entry for entry in column]


def _taken(column: Any, rows: NDArray[np.int64]) -> Any:
    if isinstance(column, list):
        return [column[row] for row in rows]
    return None if column is None else column[rows]


@dataclass(frozen=True, slots=True)
class TaskData:
    """A task's examples. labels: none for regression. notes: for the user, what was decided without being asked.

    dev_tokens: the reported rows as tokens, for every tokenizer's fingerprint and length that an arm has asked for.
    """

    train: Examples
    dev: Examples
    labels: list[str]
    notes: list[str]
    dev_tokens: dict[tuple[str, int], Any] = field(default_factory=dict, repr=False, compare=False)

    def fingerprint(self) -> str:
        """16 hex digits that stand for every id, text and label of both splits, and for the labels' names."""
        digest = hashlib.blake2b(repr(self.labels).encode(), digest_size=8)
        for split in (self.train, self.dev):
            for item in split.items():
                digest.update(repr(item).encode())
            digest.update(b"\n")
        return digest.hexdigest()
