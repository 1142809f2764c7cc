"""Where a fine-tuning begins: an encoder's weights, or random ones of the same shape; and where its results go."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from foundation.core.errors import UserError
from foundation.core.files import fingerprint, hash_file
from foundation.core.plain import to_plain
from foundation.core.randomness import torch_seed
from foundation.core.run import CONFIG_FILE
from foundation.model.config import ModelConfig
from foundation.model.encoder import Encoder, init_weights
from foundation.model.sharing.apply import refuse_shared_layers, share
from foundation.model.sharing.config import SharingConfig, SharingMethod
from foundation.task.heads import TaskObjective
from foundation.task.kinds.build import build_kind
from foundation.task.study_config import SCRATCH, FinetuneConfig
from foundation.train.checkpoint import KeyReport, weights_fingerprint
from foundation.train.config import AdamWConfig
from foundation.train.foundation import Foundation, find_foundation, home_of, load_foundation


@dataclass(frozen=True, slots=True)
class Beginning:
    """A model before its first step.

    foundation: fingerprint of the encoder's weights as they were taken. weights: where from; its shape only, for scratch.
    """

    objective: TaskObjective
    keys: KeyReport | None
    foundation: str
    weights: Foundation


@dataclass(frozen=True, slots=True)
class Start:
    """One arm. folder: of its seeds. foundation: gives shape and tokenizer also where its weights are not taken.

    parent: the arm of another task whose fine-tuned encoders are taken in its place, a seed for each seed.
    """

    name: str
    folder: Path
    foundation: Foundation
    is_scratch: bool
    parent: Path | None = None

    @property
    def identity(self) -> str:
        """What stands for the start in an arm's settings: two arms with the same one begin alike."""
        if self.is_scratch:
            return f"scratch-{fingerprint([to_plain(self.foundation.model), self.foundation.tokenizer.fingerprint])}"
        if self.parent is not None:
            return f"{self.foundation.fingerprint}-after-{hash_file(self.parent / CONFIG_FILE)}"
        return self.foundation.fingerprint

    @property
    def group(self) -> str:
        """What a foundation and all that comes of it have in common in wandb; known before its weights are."""
        return str(self.foundation.info.get("foundation_id", self.foundation.fingerprint))

    @property
    def seq_len(self) -> int:
        """Most tokens of a row: no more than pretraining showed, since positions beyond were never trained."""
        return min(self.foundation.model.max_seq_len, int(self.foundation.info.get("seq_len", 1 << 30)))

    def weights(self, seed: int) -> Foundation:
        """The foundation, or the parent's encoder of this seed; where the parent has fewer seeds, they take turns."""
        if self.parent is None:
            return self.foundation
        seeds = _finished(self.parent)
        return load_foundation(seeds.get(seed, list(seeds.values())[seed % len(seeds)]))

    def begin(self, cfg: FinetuneConfig, n_out: int, seed: int) -> Beginning:
        """A fresh head on the start's encoder, shared as asked, or on one of random weights; a function of the seed."""
        torch.manual_seed(torch_seed(seed, "init"))
        weights = self.weights(seed)
        shape = replace(self.foundation.model, dropout=cfg.dropout, attention_dropout=cfg.dropout)
        head = build_kind(cfg.task).head()
        objective = TaskObjective(shape, n_out=n_out, pooling=cfg.pooling, dropout=cfg.dropout, head=head)
        keys = None if self.is_scratch else weights.load_encoder(objective.encoder)
        taken = {f"encoder.{name}": tensor for name, tensor in objective.encoder.state_dict().items()}
        fingerprint_taken = weights_fingerprint(taken)
        if cfg.reinit_layers:
            refuse_shared_layers(objective.encoder, f"reinit_layers={cfg.reinit_layers}")
            for layer in objective.encoder.layers[-cfg.reinit_layers :]:
                init_weights(layer, shape)
        objective.encoder = share(objective.encoder, cfg.sharing)
        return Beginning(objective, keys, fingerprint_taken, weights)


def adds_weights(model: ModelConfig, sharing: SharingConfig) -> bool:
    """Whether a task that shares an encoder of this shape so puts weights into it that others do not have."""
    encoder = Encoder(model)
    own = set(encoder.state_dict())
    return not share(encoder, sharing).state_dict().keys() <= own


def rate_scale(cfg: FinetuneConfig, n_layers: int, name: str) -> float:
    """What a parameter's rate is multiplied by: sharing's scale, and a decay for each layer below the head."""
    depth = 0
    if name.startswith("encoder.layers."):
        depth = n_layers - int(name.split(".")[2])
    elif name.startswith("encoder.") and not name.startswith("encoder.final_norm."):
        depth = n_layers + 1
    return float(cfg.sharing.lr_scale * cfg.layer_lr_decay**depth)


def arm_config(
    cfg: FinetuneConfig, settings: dict[str, Any], *, is_scratch: bool
) -> tuple[FinetuneConfig, dict[str, Any]]:
    """The settings as an arm has them: from random weights every weight is trained, plainly, at a rate
    of its own where it has one; there is nothing to share."""
    if not is_scratch:
        return cfg, settings
    if cfg.scratch_lr is not None:
        assert isinstance(cfg.optim, AdamWConfig), "checked with the settings"
        cfg = replace(cfg, optim=replace(cfg.optim, lr=cfg.scratch_lr))
        settings = {**settings, "optim": to_plain(cfg.optim)}
    plain: dict[str, Any] = {"reinit_layers": 0, "layer_lr_decay": 1.0, "scratch_lr": None}
    sharing = SharingConfig(method=SharingMethod.full)
    return replace(cfg, sharing=sharing, **plain), {**settings, **plain, "sharing": to_plain(sharing)}


def find_start(spec: str, cfg: FinetuneConfig) -> Start:
    """The arm of `foundation=` or `compare=`. Raises UserError, with the command that makes it, where there is none.

    Also where it has fewer layers than are to start anew.
    """
    is_scratch = spec == SCRATCH
    final = find_foundation(
        cfg.shape_of_scratch if is_scratch else spec, Path(cfg.runs_dir), "like" if is_scratch else "foundation"
    )
    foundation = _loaded(final, tuple(path.stat().st_mtime_ns for path in sorted(final.iterdir())))
    n_layers = foundation.model.layers
    if cfg.reinit_layers > n_layers and not is_scratch:
        raise UserError(
            f"reinit_layers={cfg.reinit_layers} are more than the foundation's {n_layers} layers: choose fewer"
        )
    home = home_of(final, Path(cfg.runs_dir))
    method = cfg.sharing.method.value
    variant = f"{cfg.name}-{method}" if cfg.name and cfg.methods else cfg.name or method
    if is_scratch:
        variant = f"{cfg.name}-{SCRATCH}" if cfg.name else SCRATCH
    parent = None if is_scratch or cfg.parent is None else _parent_folder(cfg.parent, home)
    if parent is not None:
        variant += f"-after-{parent.parent.name}"
    if cfg.shard is not None:
        variant += f"-shard-{cfg.shard.replace('/', '-of-')}"
    folder = home / "finetune" / cfg.task.name / variant
    return Start(f"{home.name}/{variant}", folder, foundation, is_scratch, parent)


# The foundation, and what it is compared with.
@lru_cache(maxsize=2)
def _loaded(final: Path, written: tuple[int, ...]) -> Foundation:
    """Read once, since every arm of a few-shot curve asks; `written`, when its files were, tells one that is made anew."""
    return load_foundation(final)


def _parent_folder(spec: str, home: Path) -> Path:
    """The arm of another task, by the task's name or its folder."""
    candidates = [home / "finetune" / spec / SharingMethod.full.value, Path(spec)]
    for folder in candidates:
        if _finished(folder):
            return folder
    raise UserError(
        f"there is no finished fine-tune {spec} to start from: neither {candidates[0]} nor {candidates[1]} is one; make it "
        f"with  python -m foundation.finetune task={spec} foundation={home.name}"
    )


def _finished(arm: Path) -> dict[int, Path]:
    """The models of an arm's seeds, by seed."""
    found = {int(path.parent.parent.name[5:]): path.parent for path in arm.glob("seed-*/final/config.json")}
    return dict(sorted(found.items()))
