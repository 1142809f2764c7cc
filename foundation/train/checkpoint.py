"""Checkpoints: weights, optimizer, step. safetensors and JSON, whole or absent, verified by hash; nothing is ever unpickled."""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from foundation.core.errors import UserError
from foundation.core.files import folder_in_progress, hash_file, read_json, write_json

_NAME = re.compile(r"step-(\d+)")


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors and flush them to the disk; the caller sees to the atomicity."""
    whole = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    save_file(whole, path, metadata)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors; a damaged file raises UserError."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"no weights at {path}") from None
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}): restore it from a copy or make it again") from None


@dataclass(frozen=True, slots=True)
class KeyReport:
    """How the tensors of a file met a module: names in both, only in the module, only in the file."""

    loaded: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def load_into(module: nn.Module, tensors: dict[str, Tensor], source: str) -> KeyReport:
    """Copy tensors into a module, name by name. Raises UserError where a name is missing or a shape differs."""
    own = module.state_dict()
    report = KeyReport(
        len(own.keys() & tensors.keys()),
        tuple(sorted(own.keys() - tensors.keys())),
        tuple(sorted(tensors.keys() - own.keys())),
    )
    if report.missing:
        raise UserError(
            f"{source} lacks {len(report.missing)} of {len(own)} weights, among them {report.missing[0]}: it is of another model"
        )
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            shapes = f"has shape {tuple(tensors[name].shape)} there and {tuple(tensor.shape)} here"
            raise UserError(f"{source} is of another model: {name} {shapes}")
    module.load_state_dict({name: tensors[name] for name in own})
    return report


class Checkpoints:
    """The checkpoints of a run, `step-00000100/{model.safetensors, optim.safetensors, state.json}`; the last `keep` stay."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(int(match[1]) for path in self.folder.iterdir() if (match := _NAME.fullmatch(path.name)))

    def path(self, step: int) -> Path:
        """Folder of one checkpoint."""
        return self.folder / f"step-{step:08d}"

    def save(self, step: int, model: dict[str, Tensor], optim: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Write a checkpoint and drop the oldest beyond `keep`; when the disk is full the earlier ones stay as they are."""
        if step in self.steps():
            return
        try:
            with folder_in_progress(self.path(step)) as folder:
                save_tensors(folder / "model.safetensors", model)
                save_tensors(folder / "optim.safetensors", optim)
                hashes = {name: hash_file(folder / name) for name in ("model.safetensors", "optim.safetensors")}
                write_json(folder / "state.json", {**state, "step": step, "hashes": hashes})
        except (OSError, SafetensorError) as error:
            kept = self.steps()
            good = (
                f"the checkpoint of step {kept[-1]} is untouched: resume=true goes on from it"
                if kept
                else "there is no earlier one"
            )
            raise UserError(
                f"could not save the checkpoint of step {step} in {self.folder} ({error}); {good}"
            ) from error
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self.path(old))

    def load_last(self) -> "LoadedCheckpoint":
        """The newest checkpoint, every file checked against its hash. Raises UserError if there is none, or it is damaged."""
        steps = self.steps()
        if not steps:
            raise UserError(
                f"no checkpoint in {self.folder}: there is nothing to resume; start again under another name="
            )
        folder = self.path(steps[-1])
        earlier = f"; remove that folder to go on from step {steps[-2]}" if len(steps) > 1 else ""
        state = read_json(folder / "state.json")
        for name, expected in state["hashes"].items():
            path = folder / name
            if not path.is_file() or hash_file(path) != expected:
                raise UserError(
                    f"{path} is damaged: its content does not match the hash taken when it was saved{earlier}"
                )
        return LoadedCheckpoint(
            state, load_tensors(folder / "model.safetensors"), load_tensors(folder / "optim.safetensors")
        )


@dataclass(frozen=True, slots=True)
class LoadedCheckpoint:
    """state: step, and whatever the run put beside it. model, optim: tensors by name, on the CPU."""

    state: dict[str, Any]
    model: dict[str, Tensor]
    optim: dict[str, Tensor]


def weights_fingerprint(tensors: dict[str, Tensor]) -> str:
    """Content hash of named tensors, 32 hex digits: the same weights give the same one, wherever they are stored."""
    import hashlib

    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
