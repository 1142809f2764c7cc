"""The foundation: what pretraining leaves and every task takes. `final/` = weights, shape, tokenizer, card."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foundation.core.errors import UserError
from foundation.core.files import folder_in_progress, hash_file, read_json, write_json
from foundation.core.plain import from_plain, to_plain
from foundation.data.tokenizer import Tokenizer
from foundation.model.config import ModelConfig
from foundation.model.encoder import Encoder
from foundation.train.checkpoint import KeyReport, load_into, load_tensors, save_tensors, weights_fingerprint

_ENCODER = "encoder."
_MOST_NAMED = 12  # foundations, in a message
# In config.json of a folder that holds only a part of the weights: where the others are.
_SHARES = "shares"


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

    @property
    def encoder_tensors(self) -> dict[str, Tensor]:
        """The encoder's weights, under the names they have in an objective."""
        return {name: tensor for name, tensor in self.tensors.items() if name.startswith(_ENCODER)}

    def __reduce__(self) -> tuple[Callable[[Path], "Foundation"], tuple[Path]]:
        """In another process it is read again: its files are small beside what a pipe would carry."""
        return load_foundation, (self.path,)

    def load_encoder(self, encoder: Encoder) -> KeyReport:
        """Copy the weights into an encoder of the same shape. Heads count as unexpected; a missing weight raises UserError.

        So does a weight that a task has added to its encoder: without it, it would be another encoder.
        """
        own = {n.removeprefix(_ENCODER) if n.startswith(_ENCODER) else n: t for n, t in self.tensors.items()}
        added = {name.removeprefix(_ENCODER) for name in self.encoder_tensors} - encoder.state_dict().keys()
        if added:
            raise UserError(
                f"{self.path} has {len(added)} weights that a task has added to its encoder, among them {min(added)}: "
                "start from a fine-tune with sharing=full or sharing=top_k, or from the foundation itself"
            )
        return load_into(encoder, own, str(self.path))


def save_foundation(
    folder: Path, state: dict[str, Tensor], model: ModelConfig, tokenizer: Tokenizer, info: dict[str, Any], card: str
) -> str:
    """Write `folder` whole or not at all, in place of one that is there; returns the encoder's fingerprint."""
    fingerprint = _encoder_fingerprint(state)
    content = {"model": to_plain(model), "fingerprint": fingerprint, **info}
    _write(folder, state, tokenizer, content, card)
    return fingerprint


def save_part(
    folder: Path, state: dict[str, Tensor], parent: Foundation, model: ModelConfig, info: dict[str, Any], card: str
) -> str:
    """Write of `state` only what is not, bit for bit, `parent`'s, and where the rest is; returns the encoder's fingerprint.

    The way to the parent is kept relative to `folder`: both may move together.
    """
    shared = parent.encoder_tensors
    own = {name: t for name, t in state.items() if name not in shared or not torch.equal(t.cpu(), shared[name])}
    fingerprint = _encoder_fingerprint(state)
    where = os.path.relpath(parent.path.resolve(), folder.resolve())
    content = {
        "model": to_plain(model),
        "fingerprint": fingerprint,
        **info,
        _SHARES: {"path": where, "fingerprint": parent.fingerprint, "tensors": len(state) - len(own)},
    }
    _write(folder, own, None, content, card)
    return fingerprint


def _encoder_fingerprint(state: dict[str, Tensor]) -> str:
    return weights_fingerprint({name: tensor for name, tensor in state.items() if name.startswith(_ENCODER)})


def _write(
    folder: Path, state: dict[str, Tensor], tokenizer: Tokenizer | None, content: dict[str, Any], card: str
) -> None:
    try:
        with folder_in_progress(folder, replace=True) as partial:
            save_tensors(partial / "model.safetensors", state)
            if tokenizer is not None:
                tokenizer.save(partial / "tokenizer.json")
            (partial / "card.md").write_text(card.replace("{fingerprint}", content["fingerprint"]), encoding="utf-8")
            content = {**content, "weights_hash": hash_file(partial / "model.safetensors")}
            write_json(partial / "config.json", content)
    except OSError as error:
        raise UserError(
            f"could not write {folder} ({error.strerror}): make room there and give the same command again; a pretraining "
            "goes on from its last checkpoint, with resume=true"
        ) from error


def load_foundation(folder: Path) -> Foundation:
    """Read and verify `final/`, with what it shares with another. Raises UserError when it is absent or damaged."""
    if not (folder / "config.json").is_file():
        raise UserError(f"no foundation at {folder}: make one with  python -m foundation.pretrain +exp=small")
    info = read_json(folder / "config.json")
    path = folder / "model.safetensors"
    if not path.is_file() or hash_file(path) != info.get("weights_hash"):
        raise UserError(
            f"{path} is damaged: its content does not match the hash in config.json; make it again or restore a copy"
        )
    model = from_plain(ModelConfig, info["model"], str(folder / "config.json"))
    if _SHARES in info:
        return _with_parent(folder, model, info, load_tensors(path))
    return Foundation(folder, model, Tokenizer.load(folder / "tokenizer.json"), load_tensors(path), info)


def _with_parent(folder: Path, model: ModelConfig, info: dict[str, Any], own: dict[str, Tensor]) -> Foundation:
    """A task's own weights, and around them those of the foundation that it shares, both verified."""
    shares = info[_SHARES]
    place = Path(os.path.normpath(folder.resolve() / shares["path"]))
    if not (place / "config.json").is_file():
        raise UserError(
            f"{folder} holds only what its task has changed in the foundation {shares['fingerprint']}, and that is not "
            f"at {place}: put it back there"
        )
    parent = load_foundation(place)
    tensors = parent.encoder_tensors | own
    if parent.fingerprint != shares["fingerprint"] or _encoder_fingerprint(tensors) != info["fingerprint"]:
        raise UserError(
            f"{place} is {parent.fingerprint} now, and {folder} was made for the foundation {shares['fingerprint']}: "
            "put that one back, or fine-tune again"
        )
    return Foundation(folder, model, parent.tokenizer, tensors, info)


def find_foundation(spec: str, runs_dir: Path, setting: str = "foundation") -> Path:
    """The `final/` that a user means by NAME (of <runs_dir>/NAME/final), a run folder, or the folder itself.

    Raises UserError, with the command that makes one, where there is none. setting: what the user gave it as.
    """
    candidates = [runs_dir / spec / "final", Path(spec), Path(spec) / "final"]
    for folder in candidates:
        if (folder / "config.json").is_file():
            return folder
    found = sorted(path.parents[1].name for path in runs_dir.glob("*/final/config.json"))[:_MOST_NAMED]
    there = f" ({runs_dir} has {', '.join(found)})" if found else ""
    raise UserError(
        f"there is no foundation {spec}: neither {candidates[0]} nor {candidates[1]} is one; make the small one with  "
        f"python -m foundation.pretrain +exp=small  or name another with  {setting}=NAME or FOLDER{there}"
    )


def home_of(final: Path, runs_dir: Path) -> Path:
    """The run folder that results of a foundation go below: its own if it is in runs_dir, else one of its name."""
    run = final.parent if final.name == "final" else final
    if run.resolve().is_relative_to(runs_dir.resolve()):
        return runs_dir / run.resolve().relative_to(runs_dir.resolve())
    return runs_dir / run.resolve().name
