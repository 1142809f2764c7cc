"""The parts of texts that windows of tokens can name: cutting texts into windows, finding answers in them, reading them off.

Letters: L tokens of a row · C tokens of its part of the text · A longest answer, in tokens
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
# Of each window so many answers are kept, as in Google's released run_squad.py.
N_BEST = 20


@dataclass(frozen=True, slots=True)
class Window:
    """Row `row` shows the tokens of a text from number `first` on. offsets: (C, 2) the characters of each.

    begin: where they begin in the row, [CLS] counted as 0.
    """

    item: int
    begin: int
    offsets: Ints

    def place_of(self, start: int, end: int) -> tuple[int, int]:
        """Positions in the row of the first and last token of the characters from start to end; (0, 0) if it has not all."""
        touched = np.flatnonzero((self.offsets[:, 1] > start) & (self.offsets[:, 0] < end))
        if not len(touched) or self.offsets[0, 0] > start or self.offsets[-1, 1] < end:
            return 0, 0
        return self.begin + int(touched[0]), self.begin + int(touched[-1])


@dataclass(frozen=True, slots=True)
class Span:
    """Characters of a text, and the sum of the logits of its ends."""

    start: int
    end: int
    score: float


def window_starts(n_tokens: int, room: int, stride: int) -> Iterator[int]:
    """Where windows of `room` tokens begin that together show all n_tokens; the last one reaches the end."""
    first = 0
    yield first
    while first + room < n_tokens:
        first += min(stride, room)
        yield first


def best_spans(outputs_L2: NDArray[np.float32], window: Window, max_tokens: int) -> list[Span]:
    """The N_BEST spans of a window by score, best first, none longer than max_tokens."""
    n = len(window.offsets)
    start_C, end_C = outputs_L2[window.begin : window.begin + n].astype(np.float64).T
    # Cell (c, a): from token c to token c + a. What lies behind the window can never win.
    beyond = np.concatenate([end_C, np.full(max_tokens - 1, -np.inf)])
    score_CA = start_C[:, None] + np.lib.stride_tricks.sliding_window_view(beyond, max_tokens)
    flat = score_CA.ravel()
    kept = np.argpartition(-flat, min(N_BEST, flat.size - 1))[:N_BEST]
    kept = kept[np.argsort(-flat[kept], kind="stable")]
    firsts, lengths = np.divmod(kept[np.isfinite(flat[kept])], max_tokens)
    return [
        Span(int(window.offsets[c, 0]), int(window.offsets[c + a, 1]), float(score_CA[c, a]))
        for c, a in zip(firsts, lengths, strict=True)
    ]
