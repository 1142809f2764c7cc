"""The foundation: what pretraining leaves and every task takes. `final/` = weights, shape, tokenizer, card."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from foundation.core.errors import UserError
from foundation.core.files import folder_in_progress, hash_file, read_json, write_json
from foundation.core.plain import from_plain, to_plain
from foundation.data.tokenizer import Tokenizer
from foundation.model.config import ModelConfig
from foundation.model.encoder import Encoder
from foundation.train.checkpoint import KeyReport, load_into, load_tensors, save_tensors, weights_fingerprint

_ENCODER = "encoder."


@dataclass(frozen=True, slots=True)
class Foundation:
    """A pretrained encoder as files. tensors: `encoder.*` and `heads.*`. info: config.json, fingerprints included."""

    path: Path
    model: ModelConfig
    tokenizer: Tokenizer
    tensors: dict[str, Tensor]
    info: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """Content hash of the encoder's weights."""
        return str(self.info["fingerprint"])

    def load_encoder(self, encoder: Encoder) -> KeyReport:
        """Copy the weights into an encoder of the same shape. Heads count as unexpected; a missing weight raises UserError."""
        own = {n.removeprefix(_ENCODER) if n.startswith(_ENCODER) else n: t for n, t in self.tensors.items()}
        return load_into(encoder, own, str(self.path))


def save_foundation(
    folder: Path, state: dict[str, Tensor], model: ModelConfig, tokenizer: Tokenizer, info: dict[str, Any], card: str
) -> str:
    """Write `folder` whole or not at all, in place of one that is there; returns the encoder's fingerprint."""
    encoder = {name: tensor for name, tensor in state.items() if name.startswith(_ENCODER)}
    fingerprint = weights_fingerprint(encoder)
    if folder.exists():
        shutil.rmtree(folder)
    try:
        with folder_in_progress(folder) as partial:
            save_tensors(partial / "model.safetensors", state)
            tokenizer.save(partial / "tokenizer.json")
            (partial / "card.md").write_text(card.replace("{fingerprint}", fingerprint), encoding="utf-8")
            content = {"model": to_plain(model), "fingerprint": fingerprint, **info}
            content["weights_hash"] = hash_file(partial / "model.safetensors")
            write_json(partial / "config.json", content)
    except OSError as error:
        raise UserError(
            f"could not write {folder} ({os.strerror(error.errno or 0)}); the checkpoints are untouched: resume=true tries again"
        ) from error
    return fingerprint


def load_foundation(folder: Path) -> Foundation:
    """Read and verify `final/`. Raises UserError when it is absent or damaged."""
    if not (folder / "config.json").is_file():
        raise UserError(f"no foundation at {folder}: make one with  python -m foundation.pretrain +exp=small")
    info = read_json(folder / "config.json")
    path = folder / "model.safetensors"
    if not path.is_file() or hash_file(path) != info.get("weights_hash"):
        raise UserError(
            f"{path} is damaged: its content does not match the hash in config.json; make it again or restore a copy"
        )
    model = from_plain(ModelConfig, info["model"], str(folder / "config.json"))
    return Foundation(folder, model, Tokenizer.load(folder / "tokenizer.json"), load_tensors(path), info)


def find_foundation(spec: str, runs_dir: Path, setting: str = "foundation") -> Path:
    """The `final/` that a user means by NAME (of <runs_dir>/NAME/final), a run folder, or the folder itself.

    Raises UserError, with the command that makes one, where there is none. setting: what the user gave it as.
    """
    candidates = [runs_dir / spec / "final", Path(spec), Path(spec) / "final"]
    for folder in candidates:
        if (folder / "config.json").is_file():
            return folder
    raise UserError(
        f"there is no foundation {spec}: neither {candidates[0]} nor {candidates[1]} is one; make the small one with  "
        f"python -m foundation.pretrain +exp=small  or name another with  {setting}=NAME or FOLDER"
    )


def home_of(final: Path, runs_dir: Path) -> Path:
    """The run folder that results of a foundation go below: its own if it is in runs_dir, else one of its name."""
    run = final.parent if final.name == "final" else final
    if run.resolve().is_relative_to(runs_dir.resolve()):
        return runs_dir / run.resolve().relative_to(runs_dir.resolve())
    return runs_dir / run.resolve().name
