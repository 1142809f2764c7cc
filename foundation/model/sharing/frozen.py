"""An encoder that no task changes: it computes as in evaluation, and what it said of a training row it need not say twice.

Letters: T tokens of all rows · D width
"""

import torch
from torch import Tensor, nn

from foundation.model.attention import Layout, picked
from foundation.model.encoder import Encoder
from foundation.model.row_memory import ROOM_BYTES, RowMemory


class FrozenEncoder(Encoder):
    """`inner`'s parts under their own names: never in training mode, so without dropout, and without gradients."""

    def __init__(self, inner: Encoder, room_bytes: int = ROOM_BYTES) -> None:
        nn.Module.__init__(self)  # not Encoder's: its parts are there already
        self.cfg = inner.cfg
        for name, part in inner.named_children():
            self.add_module(name, part)
        self.position_embedding, self.segment_embedding = inner.position_embedding, inner.segment_embedding
        self.requires_grad_(False)
        self._memory = RowMemory(room_bytes)
        self.train(False)

    def train(self, mode: bool = True) -> "FrozenEncoder":
        """Stay in evaluation mode, whatever is asked."""
        super().train(False)
        return self

    def forward(self, ids_T: Tensor, segments_T: Tensor, layout: Layout, at_M: Tensor | None = None) -> Tensor:
        """As Encoder.forward; rows of a training step are computed once, whole, and looked up from then on."""
        if not torch.is_grad_enabled():
            return super().forward(ids_T, segments_T, layout, at_M)
        with torch.no_grad():
            return picked(self._memory.hidden(super().forward, ids_T, segments_T, layout), at_M)
