"""The encoder: ids in, hidden states out. It knows neither what is learnt nor who asks.

Letters: T tokens of all sequences, laid end to end without padding · M some of them · D width · V vocabulary
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundation.model import native
from foundation.model.attention import Attention, Layout, picked
from foundation.model.config import ModelConfig, ShareLayers
from foundation.model.dropout import Dropout
from foundation.model.fusion import fused
from foundation.model.rotary import Rotation, rotation
from foundation.model.shapes import GPU_TOKEN_MULTIPLE, token_multiple


class Norm(nn.LayerNorm):
    """Layer normalisation (Ba et al. 2016)."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Any shape whose last size is the width."""
        return native.sum_and_norm(hidden, None, self)[1]

    def after_sum(self, stream_TD: Tensor, branch_TD: Tensor, dropout: float) -> tuple[Tensor, Tensor]:
        """stream + dropout(branch), and that normed: one pass where it can be."""
        return native.sum_and_norm(stream_TD, branch_TD, self, dropout)


def make_norm(cfg: ModelConfig) -> Norm:
    """Layer normalisation as the family has it."""
    return Norm(cfg.width, eps=cfg.norm_eps, bias=cfg.norm_bias)


class FeedForwardNet(nn.Module):
    """Position-wise: gelu(x·W1)·W2, or gated (gelu(x·W1) ∘ x·W2)·W3, the first two in one matrix. GELU is the exact one (erf)."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.gated = cfg.is_gated
        self.into = nn.Linear(cfg.width, cfg.ffn_width * (2 if self.gated else 1), bias=cfg.linear_bias)
        self.out = nn.Linear(cfg.ffn_width, cfg.width, bias=cfg.linear_bias)

    def forward(self, hidden_TD: Tensor) -> Tensor:
        """(T, D) -> (T, D)."""
        if self.gated and torch.compiler.is_compiling() and type(self.into) is nn.Linear:
            # Two products: the gradient of a product cut in two is joined again, in a pass twice as long as both. What a way of
            # sharing has put in the matrix's place knows one product only.
            biases = (None, None) if self.into.bias is None else self.into.bias.chunk(2)
            signal, gate = (F.linear(hidden_TD, *part) for part in zip(self.into.weight.chunk(2), biases, strict=True))
            inner = F.gelu(signal) * gate
        else:
            inner = self.into(hidden_TD)
            inner = native.geglu(inner) if self.gated else native.gelu(inner)
        out: Tensor = self.out(inner)
        return out


class Residual(NamedTuple):
    """The residual stream between two layers, and what is to be added to it still: with norms in front of its sub-layers a layer
    leaves its last sum to the next one's norm, which does both in one pass. After a norm behind the sum there is nothing.
    """

    stream_TD: Tensor
    branch_TD: Tensor | None = None

    def total(self) -> Tensor:
        """(T, D): the layer's output as the papers have it, without dropout."""
        return self.stream_TD if self.branch_TD is None else self.stream_TD + self.branch_TD


class Layer(nn.Module):
    """Attention, then feed-forward, each with its residual sum and its norm before or after."""

    attention: Attention
    attention_norm: nn.Module
    feed_forward: FeedForwardNet
    feed_forward_norm: Norm

    def __init__(self, cfg: ModelConfig, layer: int) -> None:
        super().__init__()
        self.is_pre_norm = cfg.is_pre_norm
        self.attention = Attention(cfg, layer)
        # ModernBERT norms the embeddings, so a norm before the first attention would come twice (Warner et al. 2024, 2.1).
        self.attention_norm = nn.Identity() if self.is_pre_norm and layer == 0 else make_norm(cfg)
        self.feed_forward = FeedForwardNet(cfg)
        self.feed_forward_norm = make_norm(cfg)
        self.dropout = cfg.dropout

    def borrow(self, part: str, owner: "Layer") -> None:
        """Compute with another layer's part, which stays that layer's: weights are named, saved and counted there, once."""
        delattr(self, part)
        # Past nn.Module.__setattr__, which would make it a part of this layer as well.
        self.__dict__[part] = getattr(owner, part)

    @fused
    def forward(
        self,
        stream_TD: Tensor,
        branch_TD: Tensor | None,
        layout: Layout,
        turn: Rotation | None,
        at_M: Tensor | None = None,
    ) -> Residual:
        """(T, D) -> (T, D), or (M, D): of the tokens at these positions alone, behind attention."""
        dropout = self.dropout if self.training else 0.0
        inner_TD = stream_TD
        if branch_TD is not None:
            assert isinstance(self.attention_norm, Norm)
            stream_TD, inner_TD = self.attention_norm.after_sum(stream_TD, branch_TD, dropout)
        mixed_MD = self.attention(inner_TD, layout, turn, at_M)
        stream_MD = picked(stream_TD, at_M)
        if self.is_pre_norm:
            stream_MD, normed_MD = self.feed_forward_norm.after_sum(stream_MD, mixed_MD, dropout)
            return Residual(stream_MD, self.feed_forward(normed_MD))
        assert isinstance(self.attention_norm, Norm)
        _, stream_MD = self.attention_norm.after_sum(stream_MD, mixed_MD, dropout)
        _, stream_MD = self.feed_forward_norm.after_sum(stream_MD, self.feed_forward(stream_MD), dropout)
        return Residual(stream_MD)


# What layers have in common, by the setting that says so.
_SHARED_PARTS = {
    ShareLayers.none: (),
    ShareLayers.all: ("attention", "attention_norm", "feed_forward", "feed_forward_norm"),
    ShareLayers.attention: ("attention",),
    ShareLayers.feed_forward: ("feed_forward",),
}


def make_layers(cfg: ModelConfig) -> list[Layer]:
    """All layers; shared parts are those of the first layer that has them."""
    layers = [Layer(cfg, number) for number in range(cfg.layers)]
    for part in _SHARED_PARTS[cfg.share_layers]:
        # With pre-norm the first layer has no norm before its attention.
        having = [layer for layer in layers if not isinstance(getattr(layer, part), nn.Identity)]
        for layer in having[1:]:
            layer.borrow(part, having[0])
    return layers


class Encoder(nn.Module):
    """A Transformer encoder (Vaswani et al. 2017) in the families of Devlin et al. 2019 and Warner et al. 2024.

    Who may attend to whom comes with the layout, at each call.
    """

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        cfg.check()
        self.cfg = cfg
        self.token_embedding = nn.Embedding(cfg.vocab_size, cfg.width)
        self.position_embedding = nn.Embedding(cfg.max_seq_len, cfg.width) if not cfg.is_rotary else None
        self.segment_embedding = nn.Embedding(cfg.segments, cfg.width) if cfg.segments else None
        self.embedding_norm = make_norm(cfg)
        self.dropout = Dropout(cfg.dropout)
        self.layers = nn.ModuleList(make_layers(cfg))
        self.final_norm = make_norm(cfg) if cfg.is_pre_norm else nn.Identity()

    def forward(self, ids_T: Tensor, segments_T: Tensor, layout: Layout, at_M: Tensor | None = None) -> Tensor:
        """Token ids and segment numbers (int64, each (T,)) -> hidden states (T, D).

        at_M: the positions that are read, int64; then (M, D). The last layer's work behind attention is done for them alone: the
        same states, and at 15 % of the tokens some 60 % of a layer less.
        """
        n_tokens = len(ids_T)
        multiple = token_multiple(n_tokens) if ids_T.device.type == "cpu" else GPU_TOKEN_MULTIPLE
        if filler := -n_tokens % multiple:
            layout = layout.filled_up(multiple, min(self.cfg.max_seq_len, layout.longest))
            ids_T, segments_T = F.pad(ids_T, (0, filler)), F.pad(segments_T, (0, filler))
        hidden = Residual(self.embed(ids_T, segments_T, layout))
        turns = self._rotations(layout)
        for number, layer in enumerate(self.layers):
            turn = turns[self.cfg.is_local(number)] if turns else None
            hidden = layer(*hidden, layout, turn, at_M if number == self.cfg.layers - 1 else None)
        stream_TD, branch_TD = hidden
        if branch_TD is not None:
            assert isinstance(self.final_norm, Norm)
            _, stream_TD = self.final_norm.after_sum(stream_TD, branch_TD, self.cfg.dropout if self.training else 0.0)
        return stream_TD if at_M is not None else stream_TD[:n_tokens]

    @fused
    def embed(self, ids_T: Tensor, segments_T: Tensor, layout: Layout) -> Tensor:
        """(T, D), normed; in autocast's type where it is on, so that the residual stream is as narrow as the products."""
        hidden_TD = self.token_embedding(ids_T)
        if self.segment_embedding is not None:
            hidden_TD = hidden_TD + self.segment_embedding(segments_T)
        if self.position_embedding is not None:
            hidden_TD = hidden_TD + self.position_embedding(layout.positions)
        hidden_TD = self.dropout(self.embedding_norm(hidden_TD))
        kind = hidden_TD.device.type
        if torch.is_autocast_enabled(kind):
            hidden_TD = hidden_TD.to(torch.get_autocast_dtype(kind))
        return hidden_TD

    def _rotations(self, layout: Layout) -> dict[bool, Rotation]:
        """The angles of global (False) and local (True) layers; empty without rotary positions."""
        if not self.cfg.is_rotary:
            return {}
        thetas = {False: self.cfg.rope_theta_global, True: self.cfg.rope_theta_local}
        local_layers = {self.cfg.is_local(number) for number in range(self.cfg.layers)}
        head_width = self.cfg.width // self.cfg.heads
        return {is_local: rotation(layout.positions, head_width, thetas[is_local]) for is_local in local_layers}


def init_weights(module: nn.Module, cfg: ModelConfig) -> None:
    """Truncated normal for matrices (Devlin et al. 2019), biases 0, norms 1; call under a fixed torch seed.

    With pre-norm, matrices that write into the residual stream are divided by √(2·layers): the stream's variance then does
    not grow with depth (Radford et al. 2019, 2.3).
    """
    shrink = 1 / math.sqrt(2 * cfg.layers) if cfg.is_pre_norm else 1.0
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.trunc_normal_(part.weight, std=cfg.init_std, a=-2 * cfg.init_std, b=2 * cfg.init_std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
        if isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, Attention | FeedForwardNet):
            with torch.no_grad():
                part.out.weight.mul_(shrink)


def parameter_count(module: nn.Module) -> int:
    """Trainable and frozen parameters, shared ones once."""
    return sum(p.numel() for p in module.parameters())
