"""Which tokens see which, and self-attention over sequences laid end to end without padding.

Letters: T tokens of all sequences · M some of them · R sequences (rows) · L longest sequence of a group · D width · N heads
H head width
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundation.core.device import moved
from foundation.model import flash, native
from foundation.model.config import ModelConfig
from foundation.model.dropout import dropout as drop
from foundation.model.rotary import Rotation

# Sequences are padded to one of these lengths and their number to a multiple, for attention only. Few different shapes matter
# more than little padding: oneDNN compiles a kernel for each shape it meets (measured: 1,700 tokens/s with a new shape every
# step, 14,300 with the same ones). But of 512 tokens a step has few sequences, and an empty one costs as much as a real one:
# from there on none is added.
_PADDED_LENGTHS = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_ROW_MULTIPLES = {32: 8, 64: 8, 128: 8, 256: 2}

# Up to this length the plain products beat torch's fused CPU kernel, whose backward pass does not use the matrix unit
# (measured on 2 cores with AMX, bf16, 64 sequences of 128, 4 heads of 64: 14 ms against 57 ms, forward and backward).
_PLAIN_UP_TO = 512


class Visibility(str, Enum):
    """Who sees whom inside a sequence: everyone; only what came before; or a prefix that all see, and what came before."""

    bidirectional = "bidirectional"
    causal = "causal"
    prefix = "prefix"


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows of similar length, to be padded together for one dense attention call.

    gather_RL: flat position of every padded cell (any token where the cell is none), int64.
    real_RL: True where the cell is a token. scatter: cells (of R·L) that are tokens, in flat order, int64.
    flat: where those tokens lie in T, int64. rows: row numbers, of which the last may repeat. dense: no cell is padding.
    starts, lengths: (R,) where each row's tokens begin in T and how many they are, int64; an empty row has none.
    """

    gather_RL: Tensor
    real_RL: Tensor
    scatter: Tensor
    flat: Tensor
    rows: Tensor
    starts: Tensor
    lengths: Tensor
    dense: bool = field(kw_only=True)


@dataclass(slots=True)
class Layout:
    """How T flat tokens fall into sequences, and who sees whom in each.

    prefix_lengths: for Visibility.prefix, how many tokens at the start of each sequence everyone in it sees. longest: tokens of
    the longest sequence. has_flash: whether model/flash.py may serve. starts: (R + 1,) int32, where each begins in T, and T.
    positions: (T,) int64, of each token in its own.
    """

    lengths: tuple[int, ...]
    device: torch.device
    visibility: Visibility = Visibility.bidirectional
    prefix_lengths: tuple[int, ...] = ()
    longest: int = field(init=False)
    has_flash: bool = field(init=False)
    starts: Tensor = field(init=False)
    positions: Tensor = field(init=False)
    _groups: list[RowGroup] | None = field(init=False, default=None)
    _order: Tensor | None = field(init=False, default=None)
    _masks: dict[tuple[int, int], Tensor | None] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.visibility is Visibility.prefix and len(self.prefix_lengths) != len(self.lengths):
            raise ValueError(
                f"{len(self.lengths)} sequences need as many prefix_lengths, not {len(self.prefix_lengths)}"
            )
        self.longest = max(self.lengths)
        self.has_flash = self.is_bidirectional and flash.is_there(self.device)
        bounds = F.pad(torch.tensor(self.lengths, dtype=torch.int64).cumsum(0), (1, 0)).to(torch.int32)
        self.starts = moved(bounds, self.device)
        # On a GPU told how many there are, the host does not wait for the device to count.
        starts_T = self.starts[:-1].repeat_interleave(self.starts.diff(), output_size=int(bounds[-1]))
        self.positions = torch.arange(len(starts_T), device=self.device) - starts_T

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device | str = "cpu") -> "Layout":
        """Bidirectional sequences of these lengths (tokens), in order."""
        return cls(tuple(int(n) for n in lengths), torch.device(device))

    @property
    def n_tokens(self) -> int:
        """T."""
        return sum(self.lengths)

    def filled_up(self, multiple: int, longest: int) -> "Layout":
        """The same with sequences of filler at the end, none over `longest`, so that T is a multiple."""
        filler = -self.n_tokens % multiple
        extra = tuple(min(longest, filler - start) for start in range(0, filler, longest))
        if not extra:
            return self
        prefixes = (*self.prefix_lengths, *extra) if self.prefix_lengths else ()
        return Layout((*self.lengths, *extra), self.device, self.visibility, prefixes)

    @property
    def is_bidirectional(self) -> bool:
        """Whether every token sees its whole row, but for a window."""
        return self.visibility is Visibility.bidirectional

    @property
    def groups(self) -> list[RowGroup]:
        """The rows by similar length; made at first use, shared by all layers."""
        if self._groups is None:
            self._groups = self._group_rows()
        return self._groups

    @property
    def order(self) -> Tensor:
        """(T,): where each flat token stands among the tokens of all groups, one group after the other."""
        if self._order is None:
            self._order = torch.cat([group.flat for group in self.groups]).argsort()
        return self._order

    def _group_rows(self) -> list[RowGroup]:
        lengths = torch.tensor(self.lengths)
        starts = lengths.cumsum(0) - lengths
        if bool((lengths == lengths[0]).all()):
            return [self._group(starts, lengths, torch.arange(len(lengths)), self.lengths[0])]
        limits = torch.tensor([*_PADDED_LENGTHS, max(self.longest, _PADDED_LENGTHS[-1])])
        bucket = torch.bucketize(lengths, limits)
        groups = []
        for value in bucket.unique().tolist():
            rows = (bucket == value).nonzero().flatten()
            groups.append(self._group(starts, lengths, rows, int(limits[value])))
        return groups

    def _group(self, starts: Tensor, lengths: Tensor, rows: Tensor, padded_length: int) -> RowGroup:
        """These rows in cells of (rows, padded_length); unless all is dense, empty rows fill up to a multiple."""
        cells = torch.arange(padded_length)
        real = cells < lengths[rows, None]
        n_empty = 0 if bool(real.all()) else -len(rows) % _ROW_MULTIPLES.get(padded_length, 1)
        real = F.pad(real, (0, 0, 0, n_empty))
        rows = torch.cat([rows, rows[-1:].expand(n_empty)])
        gather = torch.where(real, starts[rows, None] + cells, 0)
        scatter, flat, dense = real.flatten().nonzero().flatten(), gather[real], bool(real.all())
        own_lengths = real.sum(1)
        parts = (gather, real, scatter, flat, rows, starts[rows], own_lengths)
        return RowGroup(*(part.to(self.device, non_blocking=True) for part in parts), dense=dense)

    def visible(self, group_number: int, window: int) -> Tensor | None:
        """(R, 1, L, L) or (R, 1, 1, L) boolean, True = may be seen; None where all see all. window: tokens, 0 = unlimited."""
        key = (group_number, window)
        if key not in self._masks:
            self._masks[key] = self._visible(self.groups[group_number], window)
        return self._masks[key]

    def _visible(self, group: RowGroup, window: int) -> Tensor | None:
        length = group.real_RL.shape[1]
        unlimited = window == 0 or length <= window // 2 + 1
        if self.visibility is Visibility.bidirectional and unlimited:
            return None if group.dense else self._some_cell(group.real_RL)[:, None, None, :]
        cells = torch.arange(length, device=self.device)
        query, key = cells[:, None], cells[None, :]
        seen = torch.ones(1, length, length, dtype=torch.bool, device=self.device)
        if self.visibility is not Visibility.bidirectional:
            seen = (key <= query)[None]
        if self.visibility is Visibility.prefix:
            prefix = torch.tensor(self.prefix_lengths, device=self.device)[group.rows]
            seen = seen | (key[None] < prefix[:, None, None])
        if not unlimited:
            seen = seen & ((query - key).abs() <= window // 2)
        # A padded query sees at least itself: a row of nothing but False has no softmax.
        return ((seen & group.real_RL[:, None, :]) | torch.eye(length, dtype=torch.bool, device=self.device))[:, None]

    @staticmethod
    def _some_cell(real_RL: Tensor) -> Tensor:
        """Empty rows see their first cell: a row of nothing but False has no softmax."""
        seen = real_RL.clone()
        seen[:, 0] = True
        return seen


class Attention(nn.Module):
    """Multi-head self-attention; every token attends inside its own sequence only."""

    def __init__(self, cfg: ModelConfig, layer: int) -> None:
        super().__init__()
        self.heads = cfg.heads
        self.window = cfg.local_window if cfg.is_local(layer) else 0
        self.dropout = cfg.attention_dropout
        self.qkv = nn.Linear(cfg.width, 3 * cfg.width, bias=cfg.linear_bias)
        self.out = nn.Linear(cfg.width, cfg.width, bias=cfg.linear_bias)
        # Keys and values that a task may put before every row, (2, P, N, H): model/sharing.
        self.prefix: nn.Parameter | None
        self.register_parameter("prefix", None)

    def forward(self, hidden_TD: Tensor, layout: Layout, turn: Rotation | None, at_M: Tensor | None = None) -> Tensor:
        """(T, D) -> (T, D), or (M, D): of the tokens at these positions, which look at all of their row."""
        qkv_T3NH = self.qkv(hidden_TD).unflatten(-1, (3, self.heads, -1))
        return self.project(picked(self._mix(qkv_T3NH, layout, turn), at_M))

    def _mix(self, qkv_T3NH: Tensor, layout: Layout, turn: Rotation | None) -> Tensor:
        """(T, N, H), by the fastest way that takes them."""
        settings = layout, self.window, self.dropout if self.training else 0.0
        if self.prefix is None:
            if native.attention_applies_to(qkv_T3NH, layout):
                return native.attend(qkv_T3NH, *settings, turn)
            if flash.applies_to(qkv_T3NH, layout):
                return flash.attend(qkv_T3NH, *settings, turn)
        if turn is not None:
            qk_T2NH = turn.of_queries_and_keys(qkv_T3NH[:, :2])
            qkv_T3NH = torch.cat([qk_T2NH, qkv_T3NH[:, 2:]], dim=1)
        return attend(qkv_T3NH, *settings, self.prefix)

    def project(self, mixed_TNH: Tensor) -> Tensor:
        """(T, N, H) -> (T, D)."""
        out_TD: Tensor = self.out(mixed_TNH.flatten(-2))
        return out_TD


def picked(x: Tensor, at_M: Tensor | None) -> Tensor:
    """(T, …) -> (M, …): what stands at these positions; None: everything."""
    return x if at_M is None else x.index_select(0, at_M)


def attend(qkv_T3NH: Tensor, layout: Layout, window: int, dropout: float, prefix_2PNH: Tensor | None = None) -> Tensor:
    """softmax(q·k / √H)·v inside each sequence, (T, N, H): padded per group of similar lengths, then dense products.

    prefix_2PNH: keys and values that every token sees before those of its own sequence.
    """
    mixed = []
    for number, group in enumerate(layout.groups):
        rows, length = group.gather_RL.shape
        whole = len(layout.groups) == 1 and group.dense
        cells = qkv_T3NH if whole else qkv_T3NH.index_select(0, group.gather_RL.flatten())
        q, k, v = cells.unflatten(0, (rows, length)).permute(2, 0, 3, 1, 4)
        visible = layout.visible(number, window)
        if prefix_2PNH is not None:
            k, v, visible = _after_prefix(prefix_2PNH, k, v, visible)
        mix = plain_attention if q.device.type == "cpu" and length <= _PLAIN_UP_TO else fused_attention
        out_CNH = mix(q, k, v, visible, dropout).transpose(1, 2).flatten(0, 1)
        if whole:
            return out_CNH
        mixed.append(out_CNH if group.dense else out_CNH.index_select(0, group.scatter))
    return (torch.cat(mixed) if len(mixed) > 1 else mixed[0]).index_select(0, layout.order)


def _after_prefix(
    prefix_2PNH: Tensor, k: Tensor, v: Tensor, visible: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Keys and values (R, N, P + L, H), and who may see them: all see the prefix."""
    keys, values = prefix_2PNH.to(k.dtype).transpose(1, 2).unsqueeze(1).expand(-1, len(k), -1, -1, -1)
    if visible is not None:
        visible = F.pad(visible, (prefix_2PNH.shape[1], 0), value=True)
    return torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2), visible


def plain_attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None, dropout: float) -> Tensor:
    """The definition, softmax(q·kᵀ / √H)·v, on (R, N, L, H)."""
    scores_RNLL = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if visible is not None:
        scores_RNLL = scores_RNLL.masked_fill(~visible, -torch.inf)
    shares_RNLL = scores_RNLL.softmax(-1)
    return drop(shares_RNLL, dropout) @ v


def fused_attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None, dropout: float) -> Tensor:
    """The same in torch's fused kernels, which never hold the (L, L) scores."""
    return F.scaled_dot_product_attention(q, k, v, visible, dropout_p=dropout)
