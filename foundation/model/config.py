"""The encoder's shape and its orthogonal switches. `bert` and `modern` are two settings of them, not two classes."""

from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from foundation.core.errors import UserError


class NormPlace(str, Enum):
    """post: after each residual sum (Devlin et al. 2019). pre: before each sub-layer, and once at the end (Xiong et al. 2020)."""

    post = "post"
    pre = "pre"


class Positions(str, Enum):
    """learned: a vector a position, added at the input. rotary: queries and keys are turned (Su et al. 2021)."""

    learned = "learned"
    rotary = "rotary"


class FeedForward(str, Enum):
    """gelu: two matrices (Devlin et al. 2019). geglu: gated, three (Shazeer 2020)."""

    gelu = "gelu"
    geglu = "geglu"


class ShareLayers(str, Enum):
    """Which weights all layers have in common: none; all, norms included; those of attention; those of the feed-forward."""

    none = "none"
    all = "all"
    attention = "attention"
    feed_forward = "feed_forward"


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    """One encoder.

    ffn_width is the width between the feed-forward matrices, after gating. local_window counts the tokens a local layer sees,
    half on each side; 0 means that every layer sees the whole sequence. Layers 0, global_every, 2·global_every … see it all.
    share_layers: cross-layer sharing (Lan et al. 2020, ALBERT, 3.1): fewer weights, as many operations.
    """

    width: int
    layers: int
    heads: int
    ffn_width: int
    vocab_size: int
    max_seq_len: int

    norm_place: NormPlace
    positions: Positions
    feed_forward: FeedForward
    segments: int
    linear_bias: bool
    norm_bias: bool
    norm_eps: float
    local_window: int = 0
    global_every: int = 3
    rope_theta_global: float = 160_000.0
    rope_theta_local: float = 10_000.0
    dropout: float = 0.0
    attention_dropout: float = 0.0
    init_std: float = 0.02
    share_layers: ShareLayers = ShareLayers.none

    # Each choice is read in one place, where mypy tells of a value that has no case.

    @property
    def is_pre_norm(self) -> bool:
        """Whether norms stand in front of the sub-layers."""
        match self.norm_place:
            case NormPlace.pre:
                return True
            case NormPlace.post:
                return False
        assert_never(self.norm_place)

    @property
    def is_rotary(self) -> bool:
        """Whether positions turn queries and keys, instead of being added at the input."""
        match self.positions:
            case Positions.rotary:
                return True
            case Positions.learned:
                return False
        assert_never(self.positions)

    @property
    def is_gated(self) -> bool:
        """Whether the feed-forward has a gate, and so three matrices instead of two."""
        match self.feed_forward:
            case FeedForward.geglu:
                return True
            case FeedForward.gelu:
                return False
        assert_never(self.feed_forward)

    def is_local(self, layer: int) -> bool:
        """Whether this layer sees only local_window tokens."""
        return self.local_window > 0 and layer % self.global_every != 0

    def problems(self) -> list[str]:
        """What cannot work, one sentence each."""
        found = [
            f"model.{name}={getattr(self, name)} must be at least 1"
            for name in ("width", "layers", "heads", "ffn_width", "vocab_size", "max_seq_len")
            if getattr(self, name) < 1
        ]
        if self.heads > 0 and self.width % self.heads:
            step = 2 if self.is_rotary else 1
            allowed = [n for n in range(1, self.width + 1) if self.width % n == 0 and self.width // n % step == 0]
            found.append(f"model.heads={self.heads} does not divide model.width={self.width}: choose one of {allowed}")
        elif self.heads > 0 and self.is_rotary and self.width // self.heads % 2:
            found.append(
                f"rotary positions turn pairs: model.width/model.heads={self.width // self.heads} must be even"
            )
        for name in ("segments", "init_std"):
            if getattr(self, name) < 0:
                found.append(f"model.{name}={getattr(self, name)} must be at least 0")
        if self.global_every < 1:
            found.append(
                f"model.global_every={self.global_every} must be at least 1: every so many layers one is global"
            )
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                found.append(f"model.{name}={getattr(self, name)} must be in [0, 1)")
        if self.local_window and (self.local_window % 2 or self.local_window < 0):
            found.append(
                f"model.local_window={self.local_window} must be even: half of it lies on each side of a token"
            )
        if self.local_window and self.share_layers in (ShareLayers.all, ShareLayers.attention):
            found.append(
                f"model.share_layers={self.share_layers.value} makes one attention of all layers, which cannot be local in some "
                "and global in others: set model.local_window=0, or share feed_forward only"
            )
        return found

    def check(self) -> None:
        """Raise UserError with every problem at once."""
        if found := self.problems():
            raise UserError("; ".join(found))
