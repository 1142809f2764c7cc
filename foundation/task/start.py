"""Where a fine-tuning begins: a foundation's weights, or random ones of the same shape; and where its results go."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from foundation.core.files import fingerprint
from foundation.core.plain import to_plain
from foundation.core.randomness import torch_seed
from foundation.task.config import SCRATCH, FinetuneConfig
from foundation.task.heads import TaskObjective
from foundation.train.checkpoint import KeyReport, weights_fingerprint
from foundation.train.foundation import Foundation, find_foundation, home_of, load_foundation


@dataclass(frozen=True, slots=True)
class Beginning:
    """A model before its first step. foundation: fingerprint of the encoder's weights as they are now."""

    objective: TaskObjective
    keys: KeyReport | None
    foundation: str


@dataclass(frozen=True, slots=True)
class Start:
    """One arm. folder: of its seeds. foundation: gives shape and tokenizer also where its weights are not taken."""

    name: str
    folder: Path
    foundation: Foundation
    is_scratch: bool

    @property
    def identity(self) -> str:
        """What stands for the start in an arm's settings: two arms with the same one begin alike."""
        if not self.is_scratch:
            return self.foundation.fingerprint
        return f"scratch-{fingerprint([to_plain(self.foundation.model), self.foundation.tokenizer.fingerprint])}"

    @property
    def group(self) -> str:
        """What a foundation and all that comes of it have in common in wandb; known before its weights are."""
        return str(self.foundation.info.get("foundation_id", self.foundation.fingerprint))

    @property
    def seq_len(self) -> int:
        """Most tokens of a row: no more than pretraining showed, since positions beyond were never trained."""
        return min(self.foundation.model.max_seq_len, int(self.foundation.info.get("seq_len", 1 << 30)))

    def begin(self, cfg: FinetuneConfig, n_out: int, seed: int) -> Beginning:
        """A fresh head on the foundation's encoder, or on one of random weights; a function of the seed."""
        torch.manual_seed(torch_seed(seed, "init"))
        shape = replace(self.foundation.model, dropout=cfg.dropout, attention_dropout=cfg.dropout)
        objective = TaskObjective(shape, n_out=n_out, pooling=cfg.pooling, dropout=cfg.dropout)
        keys = None if self.is_scratch else self.foundation.load_encoder(objective.encoder)
        weights = {f"encoder.{name}": tensor for name, tensor in objective.encoder.state_dict().items()}
        return Beginning(objective, keys, weights_fingerprint(weights))


def find_start(spec: str, cfg: FinetuneConfig) -> Start:
    """The arm of `foundation=` or `compare=`. Raises UserError, with the command that makes it, where there is none."""
    is_scratch = spec == SCRATCH
    final = find_foundation(
        cfg.like if is_scratch else spec, Path(cfg.runs_dir), "like" if is_scratch else "foundation"
    )
    home = home_of(final, Path(cfg.runs_dir))
    variant = cfg.name or cfg.sharing.method.value
    if is_scratch:
        variant = f"{cfg.name}-{SCRATCH}" if cfg.name else SCRATCH
    folder = home / "finetune" / cfg.task.name / variant
    return Start(f"{home.name}/{variant}", folder, load_foundation(final), is_scratch)
