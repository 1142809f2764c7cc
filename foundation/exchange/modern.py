"""ModernBERT (Warner et al. 2024) as transformers' ModernBert… classes have it."""

import re
from typing import Any

from torch import Tensor

from foundation.core.errors import UserError
from foundation.data.tokenizer import SpecialIds
from foundation.exchange.family import Family, refuse_other, with_biases
from foundation.exchange.names import NameTable
from foundation.model.config import FeedForward, ModelConfig, NormPlace, Positions

_ENCODER = {
    "encoder.token_embedding": "model.embeddings.tok_embeddings",
    "encoder.embedding_norm": "model.embeddings.norm",
    "encoder.layers.{n}.attention.qkv": "model.layers.{n}.attn.Wqkv",
    "encoder.layers.{n}.attention.out": "model.layers.{n}.attn.Wo",
    "encoder.layers.{n}.attention_norm": "model.layers.{n}.attn_norm",
    "encoder.layers.{n}.feed_forward.into": "model.layers.{n}.mlp.Wi",
    "encoder.layers.{n}.feed_forward.out": "model.layers.{n}.mlp.Wo",
    "encoder.layers.{n}.feed_forward_norm": "model.layers.{n}.mlp_norm",
    "encoder.final_norm": "model.final_norm",
}
# Switch of config.json -> the biases that it stands for, by our names.
_BIASES = {
    "norm_bias": re.compile(r"norm\.bias$"),
    "attention_bias": re.compile(r"\.attention\.(qkv|out)\.bias$"),
    "mlp_bias": re.compile(r"\.feed_forward\.(into|out)\.bias$"),
    "classifier_bias": re.compile(r"^heads\.(mlm\.)?dense\.bias$"),
}
# Where config.json is silent, as ModernBertConfig has it.
_EVERY, _WINDOW, _THETA_GLOBAL, _THETA_LOCAL = 3, 128, 160_000.0, 10_000.0


class Modern(Family):
    """Pre-norm, rotary positions, GeGLU, layers that see a window."""

    model_type = "modernbert"
    classes = "ModernBert"
    prefix = "model."
    encoder = NameTable(_ENCODER, splits_qkv=False)
    mlm = NameTable({"heads.mlm.dense": "head.dense", "heads.mlm.norm": "head.norm", "heads.mlm": "decoder"})
    # No ModernBert… class has a head for pairs of sentences.
    pair = NameTable({})
    sequence = NameTable({"heads.dense": "head.dense", "heads.norm": "head.norm", "heads.out": "classifier"})
    token = span = sequence
    inputs = ("input_ids", "attention_mask")

    def misfits(self, model: ModelConfig) -> list[str]:
        """What differs from ModernBERT's arithmetic; segments are another matter, since they can be folded."""
        found = []
        if not model.is_rotary:
            found.append(f"model.positions={model.positions.value} (with model.norm_place=pre it must be rotary)")
        if not model.is_gated:
            found.append(f"model.feed_forward={model.feed_forward.value} (must be geglu)")
        return found

    def completed(self, ours: dict[str, Tensor], model: ModelConfig) -> dict[str, Tensor]:
        """One switch stands for the biases of many modules: where some have one, all get one."""
        on = [modules for modules in _BIASES.values() if any(modules.search(name) for name in ours)]
        return with_biases(ours, lambda module: any(modules.search(f"{module}.bias") for modules in on))

    def config(self, model: ModelConfig, specials: SpecialIds, completed: dict[str, Tensor]) -> dict[str, Any]:
        """As ModernBertConfig has it, in the keys of the published models, which old and new versions read."""
        return super().config(model, specials, completed) | {
            "hidden_activation": "gelu",
            "norm_eps": model.norm_eps,
            **{switch: any(modules.search(name) for name in completed) for switch, modules in _BIASES.items()},
            "decoder_bias": True,
            "classifier_activation": "gelu",
            "global_attn_every_n_layers": model.global_every if model.local_window else 1,
            "local_attention": model.local_window or _WINDOW,
            "global_rope_theta": model.rope_theta_global,
            "local_rope_theta": model.rope_theta_local,
            "embedding_dropout": model.dropout,
            "mlp_dropout": model.dropout,
            "attention_dropout": model.attention_dropout,
            "cls_token_id": specials.cls,
            "bos_token_id": specials.cls,
            "sep_token_id": specials.sep,
            "eos_token_id": specials.sep,
        }

    def model_config(self, config: dict[str, Any]) -> ModelConfig:
        """Only what is ModernBERT's own arithmetic."""
        refuse_other(config, {"hidden_activation": ("gelu",)})
        layers = config.get("num_hidden_layers", 22)
        every = _global_every(config, layers)
        return ModelConfig(
            width=config.get("hidden_size", 768),
            layers=layers,
            heads=config.get("num_attention_heads", 12),
            ffn_width=config.get("intermediate_size", 1152),
            vocab_size=config.get("vocab_size", 50368),
            max_seq_len=config.get("max_position_embeddings", 8192),
            norm_place=NormPlace.pre,
            positions=Positions.rotary,
            feed_forward=FeedForward.geglu,
            segments=0,
            linear_bias=any(config.get(key, False) for key in ("attention_bias", "mlp_bias", "classifier_bias")),
            norm_bias=config.get("norm_bias", False),
            norm_eps=config.get("norm_eps", 1e-5),
            # Theirs is halved to so many tokens on each side, an odd one rounded down.
            local_window=0 if every == 1 else config.get("local_attention", _WINDOW) // 2 * 2,
            global_every=_EVERY if every == 1 else every,
            rope_theta_global=_theta(config, "full_attention", "global_rope_theta", _THETA_GLOBAL),
            rope_theta_local=_theta(config, "sliding_attention", "local_rope_theta", _THETA_LOCAL),
            dropout=config.get("mlp_dropout", 0.0),
            attention_dropout=config.get("attention_dropout", 0.0),
            init_std=config.get("initializer_range", 0.02),
        )

    def refuse_mlm(self, config: dict[str, Any]) -> None:
        """The head's activation has a setting of its own."""
        refuse_other(config, {"classifier_activation": ("gelu",)})

    def spare(self, config: dict[str, Any], model: ModelConfig) -> set[str]:
        """Each kind of bias has its own switch there; here one switch stands for all of them."""
        numbers = range(model.layers)
        parts = {
            "attention_bias": [f"encoder.layers.{n}.attention.{part}" for n in numbers for part in ("qkv", "out")],
            "mlp_bias": [f"encoder.layers.{n}.feed_forward.{part}" for n in numbers for part in ("into", "out")],
            "classifier_bias": ["heads.mlm.dense"],
            "decoder_bias": ["heads.mlm"],
        }
        off = {key for key in parts if not config.get(key, key == "decoder_bias")}
        return {f"{module}.bias" for key in off for module in parts[key]}


def _global_every(config: dict[str, Any], layers: int) -> int:
    """Of how many layers the first sees everything; 1 where all do."""
    kinds = config.get("layer_types")
    if kinds is None:
        return int(config.get("global_attn_every_n_layers", _EVERY))
    for every in range(1, layers + 1):
        if kinds == ["sliding_attention" if n % every else "full_attention" for n in range(layers)]:
            return every
    raise UserError(
        f"config.json has layer_types={kinds}: here the first of every so many layers sees everything and the rest a window"
    )


def _theta(config: dict[str, Any], kind: str, old_key: str, default: float) -> float:
    """The base of the rotary angles of a kind of layer, from new keys or old ones."""
    new = (config.get("rope_parameters") or {}).get(kind) or {}
    scaling = config.get("rope_scaling")
    if new.get("rope_type", "default") != "default" or scaling:
        raise UserError(f"config.json stretches the rotary positions ({scaling or new}): only plain ones can be held")
    return float(new.get("rope_theta") or config.get(old_key) or default)
