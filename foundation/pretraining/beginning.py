"""Pretraining that begins with the weights of a foundation that is there, its shape and its tokenizer, instead of fresh ones.

For a second stage of longer rows (Devlin et al. 2019, A.2), or to go on with text of one domain (Gururangan et al. 2020).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from foundation.core.errors import UserError
from foundation.core.plain import to_plain
from foundation.data.corpus import TOKENIZER
from foundation.objective.base import Objective
from foundation.train.checkpoint import load_into
from foundation.train.foundation import Foundation, find_foundation, load_foundation
from foundation.train.pretrain_config import PretrainConfig


def begun_with(
    cfg: PretrainConfig, settings: dict[str, Any]
) -> tuple[PretrainConfig, dict[str, Any], Foundation | None]:
    """The settings with shape and tokenizer of the foundation that `init` names, dropout as asked; and that foundation."""
    if cfg.init is None:
        return cfg, settings, None
    foundation = load_foundation(find_foundation(cfg.init, Path(cfg.runs_dir), "init"))
    own_tokenizer = foundation.path / TOKENIZER
    if not own_tokenizer.is_file():
        raise UserError(f"init={cfg.init} holds a part of a model: name a foundation, or a fine-tune with sharing=full")
    asked = cfg.model
    model = replace(foundation.model, dropout=asked.dropout, attention_dropout=asked.attention_dropout)
    tokenizer = replace(cfg.tokenizer, path=str(own_tokenizer), vocab_size=model.vocab_size)
    cfg = replace(cfg, model=model, tokenizer=tokenizer)
    cfg.check()
    return cfg, {**settings, "model": to_plain(model), "tokenizer": to_plain(tokenizer)}, foundation


def load_beginning(objective: Objective, foundation: Foundation) -> list[str]:
    """Copy the encoder and the heads that are there; returns the names of heads that stay as drawn."""
    drawn = {
        name: tensor
        for name, tensor in objective.state_dict().items()
        if name.startswith("heads.") and name not in foundation.tensors
    }
    load_into(objective, foundation.tensors | drawn, str(foundation.path))
    return sorted({name.split(".")[1] for name in drawn})
