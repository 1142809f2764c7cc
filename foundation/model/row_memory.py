"""Hidden states of rows that were encoded before: a row is the same wherever it stands, so it need not be encoded twice.

Letters: T tokens of all rows · D width
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from foundation.model.attention import Layout, picked
from foundation.model.encoder import Encoder

# Rows beyond are computed again each time.
ROOM_BYTES = 1 << 30


class RowMemory:
    """What an encoder whose weights do not change said of each row: up to room_bytes."""

    def __init__(self, room_bytes: int = ROOM_BYTES) -> None:
        self._room_bytes = self._room = room_bytes
        self._known: dict[tuple[bytes, bytes], Tensor] = {}

    def forget(self) -> None:
        """Start anew."""
        self._known, self._room = {}, self._room_bytes

    def hidden(
        self, encode: Callable[[Tensor, Tensor, Layout], Tensor], ids_T: Tensor, segments_T: Tensor, layout: Layout
    ) -> Tensor:
        """encode(ids, segments, layout), (T, D), which is asked only about rows that are new, each once."""
        keys = list(zip(_bytes_of_rows(ids_T, layout), _bytes_of_rows(segments_T, layout), strict=True))
        new = {key: number for number, key in enumerate(keys) if key not in self._known}
        found: dict[tuple[bytes, bytes], Tensor] = {}
        if new:
            lengths = [layout.lengths[number] for number in new.values()]
            ids, segments = (
                torch.cat([rows[number] for number in new.values()])
                for rows in (ids_T.split(layout.lengths), segments_T.split(layout.lengths))
            )
            hidden_TD = encode(ids, segments, Layout.of(lengths, ids_T.device))
            found = dict(zip(new, hidden_TD.split(lengths), strict=True))
            self._remember(found)
        return torch.cat([found[key] if key in found else self._known[key] for key in keys])

    def _remember(self, found: dict[tuple[bytes, bytes], Tensor]) -> None:
        for key, states in found.items():
            if states.nbytes <= self._room:
                # A copy: a view would keep the whole batch.
                self._known[key] = states.clone()
                self._room -= states.nbytes


def _bytes_of_rows(values_T: Tensor, layout: Layout) -> list[bytes]:
    return [row.tobytes() for row in np.split(values_T.cpu().numpy(), np.cumsum(layout.lengths[:-1]))]


class RememberingEncoder(Encoder):
    """Around an encoder in evaluation: remembers rows until `forget`. Tasks that hold it in common encode a row once."""

    def __init__(self, inner: Encoder) -> None:
        nn.Module.__init__(self)  # not Encoder's: the parts are `inner`'s
        self.inner, self.cfg = inner, inner.cfg
        self.token_embedding = inner.token_embedding
        self._memory = RowMemory()

    def forget(self) -> None:
        """Free the memory."""
        self._memory.forget()

    @torch.no_grad()
    def forward(self, ids_T: Tensor, segments_T: Tensor, layout: Layout, at_M: Tensor | None = None) -> Tensor:
        """As Encoder.forward; rows are remembered whole."""
        return picked(self._memory.hidden(self.inner, ids_T, segments_T, layout), at_M)
