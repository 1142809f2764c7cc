"""The interface that research extends: an objective corrupts, counts its targets, and scores.

Letters: T tokens of all rows · R rows · M targets · D width
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from foundation.core.device import moved
from foundation.core.randomness import RowRng
from foundation.data.batches import Batch
from foundation.model.attention import Layout
from foundation.model.encoder import Encoder


@dataclass(slots=True)
class Example:
    """Rows ready for the encoder, with what is to be predicted.

    ids, segments: (T,) int64. lengths: tokens of each row. targets_at: (M,) positions in T, ascending; targets: (M,) int64 ids
    that stood there. labels: one an item, or None. rows_per_item: rows that make an item: neighbours, never split. task: which of
    several is asked, where an objective has several. of_rows (R, …), of_tokens (T, …): what else is asked of each, by name.
    """

    ids: Tensor
    segments: Tensor
    lengths: tuple[int, ...]
    targets_at: Tensor
    targets: Tensor
    labels: Tensor | None
    rows_per_item: int = 1
    task: int = 0
    of_rows: dict[str, Tensor] = field(default_factory=dict)
    of_tokens: dict[str, Tensor] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.ids.device

    @property
    def n_tokens(self) -> int:
        """T."""
        return len(self.ids)

    @property
    def first_tokens(self) -> Tensor:
        """(R,) int64: where each row begins in T."""
        lengths = moved(torch.tensor(self.lengths), self.device)
        return lengths.cumsum(0) - lengths

    def layout(self) -> Layout:
        """Bidirectional: every token sees its own row."""
        return Layout.of(self.lengths, self.device)

    def to(self, device: torch.device) -> "Example":
        """The same on another device; from page-locked memory the copy runs beside the computation."""
        return self._each(lambda tensor: moved(tensor, device))

    def pinned(self) -> "Example":
        """The same in page-locked memory, from which a copy to a GPU can begin at once."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Example":
        return replace(
            self,
            ids=change(self.ids),
            segments=change(self.segments),
            targets_at=change(self.targets_at),
            targets=change(self.targets),
            labels=None if self.labels is None else change(self.labels),
            of_rows={name: change(asked) for name, asked in self.of_rows.items()},
            of_tokens={name: change(asked) for name, asked in self.of_tokens.items()},
        )

    def split(self, rows: int) -> list["Example"]:
        """Parts of at most `rows` rows, or of one item where it has more, in order."""
        rows = max(rows // self.rows_per_item, 1) * self.rows_per_item
        if rows >= len(self.lengths):
            return [self]
        parts, token = [], 0
        for first in range(0, len(self.lengths), rows):
            lengths = self.lengths[first : first + rows]
            end = token + sum(lengths)
            chosen = (self.targets_at >= token) & (self.targets_at < end)
            items = slice(first // self.rows_per_item, (first + rows) // self.rows_per_item)
            mine = slice(first, first + rows)
            parts.append(
                replace(
                    self,
                    ids=self.ids[token:end],
                    segments=self.segments[token:end],
                    lengths=lengths,
                    targets_at=self.targets_at[chosen] - token,
                    targets=self.targets[chosen],
                    labels=None if self.labels is None else self.labels[items],
                    of_rows={name: asked[mine] for name, asked in self.of_rows.items()},
                    of_tokens={name: asked[token:end] for name, asked in self.of_tokens.items()},
                )
            )
            token = end
        return parts


def clean_example(batch: Batch) -> Example:
    """A batch as it is: no token hidden."""
    nothing = torch.empty(0, dtype=torch.int64)
    return Example(
        ids=torch.from_numpy(batch.ids),
        segments=torch.from_numpy(batch.segments),
        lengths=tuple(batch.lengths.tolist()),
        targets_at=nothing,
        targets=nothing,
        labels=None if batch.labels is None else torch.from_numpy(batch.labels),
    )


class Objective(nn.Module, ABC):
    """What is learnt: corruption, heads and loss of one definition. `terms` names the parts of the loss.

    Heads live in the attribute `heads`; the shared part in `encoder`. Nothing else of a subclass has parameters.
    """

    encoder: Encoder
    heads: nn.Module
    terms: tuple[str, ...]

    @abstractmethod
    def corrupt(self, batch: Batch, rng: RowRng, progress: float) -> Example:
        """What the encoder shall see and what is asked: a pure function. progress: share of the run that is done, in [0, 1]."""

    @abstractmethod
    def count(self, example: Example) -> Tensor:
        """Targets of each term, (terms,) float64, on the example's device."""

    @abstractmethod
    def forward(self, example: Example, totals: Tensor) -> Tensor:
        """This part's share of each term's mean over the whole step: (terms,), nats; the shares of all parts add up to it."""
