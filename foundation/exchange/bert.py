"""BERT (Devlin et al. 2019) as transformers' Bert… classes have it."""

from typing import Any

import torch
from torch import Tensor

from foundation.data.tokenizer import SpecialIds
from foundation.exchange.family import Family, refuse_other, with_biases
from foundation.exchange.names import NameTable
from foundation.model.config import FeedForward, ModelConfig, NormPlace, Positions

_LAYER = "bert.encoder.layer.{n}"
_ENCODER = {
    "encoder.token_embedding": "bert.embeddings.word_embeddings",
    "encoder.position_embedding": "bert.embeddings.position_embeddings",
    "encoder.segment_embedding": "bert.embeddings.token_type_embeddings",
    "encoder.embedding_norm": "bert.embeddings.LayerNorm",
    **{
        f"encoder.layers.{{n}}.attention.{part}": f"{_LAYER}.attention.self.{part}"
        for part in ("query", "key", "value")
    },
    "encoder.layers.{n}.attention.out": f"{_LAYER}.attention.output.dense",
    "encoder.layers.{n}.attention_norm": f"{_LAYER}.attention.output.LayerNorm",
    "encoder.layers.{n}.feed_forward.into": f"{_LAYER}.intermediate.dense",
    "encoder.layers.{n}.feed_forward.out": f"{_LAYER}.output.dense",
    "encoder.layers.{n}.feed_forward_norm": f"{_LAYER}.output.LayerNorm",
}
# In old checkpoints the norms still have the names of their TensorFlow days.
OLD_KINDS = {"gamma": "weight", "beta": "bias"}


class Bert(Family):
    """Post-norm, learned positions, GELU, a bias everywhere."""

    model_type = "bert"
    classes = "Bert"
    prefix = "bert."
    encoder = NameTable(_ENCODER, splits_qkv=True)
    mlm = NameTable(
        {
            "heads.mlm.dense": "cls.predictions.transform.dense",
            "heads.mlm.norm": "cls.predictions.transform.LayerNorm",
            "heads.mlm": "cls.predictions",
        }
    )
    pair = NameTable({"heads.pair.pool": "bert.pooler.dense", "heads.pair.classify": "cls.seq_relationship"})
    sequence = NameTable({"heads.dense": "bert.pooler.dense", "heads.out": "classifier"})
    token = NameTable({"heads.out": "classifier"})
    span = NameTable({"heads.out": "qa_outputs"})
    inputs = ("input_ids", "token_type_ids", "attention_mask")

    def misfits(self, model: ModelConfig) -> list[str]:
        """What differs from BERT's arithmetic."""
        found = []
        if model.is_rotary:
            found.append(f"model.positions={model.positions.value} (with model.norm_place=post it must be learned)")
        if model.is_gated:
            found.append(f"model.feed_forward={model.feed_forward.value} (must be gelu)")
        if model.local_window:
            found.append(f"model.local_window={model.local_window} (must be 0)")
        return found

    def config(self, model: ModelConfig, specials: SpecialIds, completed: dict[str, Tensor]) -> dict[str, Any]:
        """As BertConfig has it."""
        return super().config(model, specials, completed) | {
            "hidden_act": "gelu",
            "type_vocab_size": model.segments or 2,
            "layer_norm_eps": model.norm_eps,
            "hidden_dropout_prob": model.dropout,
            "attention_probs_dropout_prob": model.attention_dropout,
        }

    def completed(self, ours: dict[str, Tensor], model: ModelConfig) -> dict[str, Tensor]:
        """Biases and segment embeddings that the model does without, as zeros."""
        whole = with_biases(ours, lambda module: not module.endswith("_embedding"))
        whole.setdefault("encoder.segment_embedding.weight", torch.zeros(2, model.width))
        return whole

    def model_config(self, config: dict[str, Any]) -> ModelConfig:
        """Only what is BERT's own arithmetic."""
        wanted = {
            "hidden_act": "gelu",
            "position_embedding_type": "absolute",
            "is_decoder": False,
            "add_cross_attention": False,
        }
        refuse_other(config, {key: (value,) for key, value in wanted.items()})
        return ModelConfig(
            width=config.get("hidden_size", 768),
            layers=config.get("num_hidden_layers", 12),
            heads=config.get("num_attention_heads", 12),
            ffn_width=config.get("intermediate_size", 3072),
            vocab_size=config.get("vocab_size", 30522),
            max_seq_len=config.get("max_position_embeddings", 512),
            norm_place=NormPlace.post,
            positions=Positions.learned,
            feed_forward=FeedForward.gelu,
            segments=config.get("type_vocab_size", 2),
            linear_bias=True,
            norm_bias=True,
            norm_eps=config.get("layer_norm_eps", 1e-12),
            dropout=config.get("hidden_dropout_prob", 0.1),
            attention_dropout=config.get("attention_probs_dropout_prob", 0.1),
            init_std=config.get("initializer_range", 0.02),
        )

    def refuse_mlm(self, config: dict[str, Any]) -> None:
        """Nothing: its activation is the encoder's."""

    def spare(self, config: dict[str, Any], model: ModelConfig) -> set[str]:
        """None: BERT has every bias."""
        return set()
