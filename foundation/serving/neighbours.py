"""The nearest texts to a query, by cosine, over any number of texts that come by in parts.

Letters: Q queries · N texts of a part · K neighbours · D width
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Neighbour:
    """row: number of the text in the input, from 0, as in the file of vectors."""

    row: int
    cosine: float
    text: str


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, D) of length 1; a vector of zeros stays what it is."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)


class Nearest:
    """The k nearest of all texts so far: memory goes with Q·k, not with the texts. Of equal texts the first is kept."""

    def __init__(self, queries: Sequence[str], vectors_QD: NDArray[np.float32], k: int) -> None:
        self.queries, self.k = list(queries), k
        self._unit_QD = unit(vectors_QD)
        self._cosines_QK = np.empty((len(self.queries), 0), np.float32)
        self._rows_QK = np.empty((len(self.queries), 0), np.int64)
        self._texts: dict[int, str] = {}
        self._n_seen = 0

    def add(self, texts: Sequence[str], vectors_ND: NDArray[np.float32]) -> None:
        """The next N texts."""
        cosines = np.concatenate([self._cosines_QK, self._unit_QD @ unit(vectors_ND).T], axis=1)
        numbers = np.arange(self._n_seen, self._n_seen + len(texts))
        rows = np.concatenate([self._rows_QK, np.broadcast_to(numbers, (len(self.queries), len(texts)))], axis=1)
        best = np.argsort(-cosines, axis=1, kind="stable")[:, : self.k]
        self._cosines_QK = np.take_along_axis(cosines, best, axis=1)
        self._rows_QK = np.take_along_axis(rows, best, axis=1)
        known = self._texts | dict(zip(numbers.tolist(), texts, strict=True))
        self._texts = {row: known[row] for row in np.unique(self._rows_QK).tolist()}
        self._n_seen += len(texts)

    def found(self) -> Iterator[tuple[str, list[Neighbour]]]:
        """Each query with its neighbours, the nearest first."""
        for query, rows, cosines in zip(self.queries, self._rows_QK.tolist(), self._cosines_QK.tolist(), strict=True):
            yield query, [Neighbour(row, cos, self._texts[row]) for row, cos in zip(rows, cosines, strict=True)]

    def records(self) -> Iterator[dict[str, Any]]:
        """The same as plain values."""
        for query, neighbours in self.found():
            plain = [{"row": one.row, "cosine": one.cosine, "text": one.text} for one in neighbours]
            yield {"query": query, "neighbours": plain}


def table(nearest: Nearest) -> str:
    """For people: a query, and below it a line a neighbour."""
    lines = []
    for query, neighbours in nearest.found():
        lines.append(query)
        lines += [f"  {one.cosine:6.3f}  row {one.row}  {one.text}" for one in neighbours]
    return "\n".join(lines)
