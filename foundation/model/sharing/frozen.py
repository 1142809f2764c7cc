"""An encoder that no task changes: it computes as in evaluation, and what it said of a training row it need not say twice.

Letters: T tokens of all rows · D width
"""

import torch
from torch import Tensor, nn

from foundation.model.attention import Layout
from foundation.model.encoder import Encoder

# Of remembered hidden states; rows beyond are computed again each time.
_CACHE_BYTES = 1 << 30


class FrozenEncoder(Encoder):
    """`inner`'s parts under their own names: never in training mode, so without dropout, and without gradients."""

    def __init__(self, inner: Encoder, cache_bytes: int = _CACHE_BYTES) -> None:
        nn.Module.__init__(self)  # not Encoder's: its parts are there already
        self.cfg = inner.cfg
        for name, part in inner.named_children():
            self.add_module(name, part)
        self.position_embedding, self.segment_embedding = inner.position_embedding, inner.segment_embedding
        self.requires_grad_(False)
        self._room = cache_bytes
        self._known: dict[tuple[bytes, bytes], Tensor] = {}
        self.train(False)

    def train(self, mode: bool = True) -> "FrozenEncoder":
        """Stay in evaluation mode, whatever is asked."""
        super().train(False)
        return self

    def forward(self, ids_T: Tensor, segments_T: Tensor, layout: Layout) -> Tensor:
        """As Encoder.forward; rows of a training step are computed once and looked up from then on."""
        if not torch.is_grad_enabled():
            return super().forward(ids_T, segments_T, layout)
        with torch.no_grad():
            return self._remembered(ids_T, segments_T, layout)

    def _remembered(self, ids_T: Tensor, segments_T: Tensor, layout: Layout) -> Tensor:
        rows = list(zip(ids_T.split(layout.lengths), segments_T.split(layout.lengths), strict=True))
        keys = [(ids.cpu().numpy().tobytes(), segments.cpu().numpy().tobytes()) for ids, segments in rows]
        new = [number for number, key in enumerate(keys) if key not in self._known]
        found: dict[tuple[bytes, bytes], Tensor] = {}
        if new:
            lengths = [layout.lengths[number] for number in new]
            part = Layout.of(lengths, ids_T.device)
            ids, segments = (torch.cat([rows[number][side] for number in new]) for side in (0, 1))
            hidden = super().forward(ids, segments, part).split(lengths)
            found = {keys[number]: states for number, states in zip(new, hidden, strict=True)}
            self._remember(found)
        return torch.cat([found[key] if key in found else self._known[key] for key in keys])

    def _remember(self, found: dict[tuple[bytes, bytes], Tensor]) -> None:
        for key, states in found.items():
            if states.nbytes <= self._room:
                # A copy: a view would keep the whole batch.
                self._known[key] = states.clone()
                self._room -= states.nbytes
