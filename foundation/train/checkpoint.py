"""Checkpoints: weights, optimizer, step. safetensors and JSON, whole or absent, verified by checksum; nothing is ever unpickled.

Training waits for a copy in memory; a thread writes it to the disk while it goes on.
"""

import errno
import os
import re
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from foundation.core.errors import UserError
from foundation.core.files import checksum_file, folder_in_progress, read_json, write_json

_NAME = re.compile(r"step-(\d+)")


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors and flush them to the disk; the caller sees to the atomicity. Raises OSError where the disk refuses."""
    whole = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    path.touch()
    mode = path.stat().st_mode  # what the user's umask allows: the library's own files can be read by nobody else
    try:
        save_file(whole, path, metadata)
    except SafetensorError as error:
        # The system's error, as the library tells it: "I/O error: No space left on device (os error 28)".
        code = re.search(r"\(os error (\d+)\)", str(error))
        number = int(code[1]) if code else errno.EIO
        raise OSError(number, os.strerror(number) if code else str(error), str(path)) from None
    path.chmod(mode)
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
    """The checkpoints of a run, `step-00000100/{model.safetensors, optim.safetensors, state.json}`; the last `keep` stay, 0: all.

    As a context manager it waits for what is being written.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._writing: Future[None] | None = None
        self._copies: dict[str, dict[str, Tensor]] = {}  # kept for the next: fresh memory costs more than the copy

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(int(match[1]) for path in self.folder.iterdir() if (match := _NAME.fullmatch(path.name)))

    def path(self, step: int) -> Path:
        """Folder of one checkpoint."""
        return self.folder / f"step-{step:08d}"

    def save(self, step: int, model: dict[str, Tensor], optim: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Copy it all, and begin to write a checkpoint; raises UserError where the one before could not be written."""
        self.wait()
        if step in self.steps():
            return
        self._copies = {part: self._copied(part, tensors) for part, tensors in (("model", model), ("optim", optim))}
        self._writing = self._writer.submit(self._write, step, self._copies, dict(state))

    def _copied(self, part: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """On the CPU, in the memory of the last copies where they have the same shapes."""
        there = self._copies.get(part, {})
        copies = {}
        for name, tensor in tensors.items():
            copy = there.get(name)
            if copy is None or (copy.shape, copy.dtype) != (tensor.shape, tensor.dtype):
                copy = torch.empty(tensor.shape, dtype=tensor.dtype)
            copies[name] = copy.copy_(tensor.detach())
        return copies

    def wait(self) -> None:
        """Until the last checkpoint is on the disk; raises UserError where it could not be written."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.shutdown()
        if kind is None:  # else that is what the user should hear of
            self.wait()

    def _write(self, step: int, copies: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
        """Write a checkpoint and drop the oldest beyond `keep`; when the disk is full the earlier ones stay as they are."""
        try:
            with folder_in_progress(self.path(step)) as folder:
                checksums = {}
                for part, tensors in copies.items():
                    path = folder / f"{part}.safetensors"
                    save_tensors(path, tensors)
                    checksums[path.name] = checksum_file(path)
                write_json(folder / "state.json", {**state, "step": step, "checksums": checksums})
        except OSError as error:
            kept = self.steps()
            good = (
                f"the checkpoint of step {kept[-1]} is untouched: resume=true goes on from it"
                if kept
                else "there is no earlier one"
            )
            raise UserError(
                f"could not save the checkpoint of step {step} in {self.folder} ({error.strerror}); {good}"
            ) from error
        for old in self.steps()[: -self.keep] if self.keep else []:
            shutil.rmtree(self.path(old))

    def load_last(self) -> "LoadedCheckpoint":
        """The newest checkpoint, every file checked against its checksum. Raises UserError if there is none, or it is damaged."""
        steps = self.steps()
        if not steps:
            raise UserError(
                f"no checkpoint in {self.folder}: there is nothing to resume; start again under another name="
            )
        folder = self.path(steps[-1])
        earlier = f"; remove that folder to go on from step {steps[-2]}" if len(steps) > 1 else ""
        state = read_json(folder / "state.json")
        if "checksums" not in state:
            raise UserError(
                f"{folder} was saved by another version, without checksums, and cannot be verified{earlier}"
            )
        for name, expected in state["checksums"].items():
            path = folder / name
            if not path.is_file() or checksum_file(path) != expected:
                raise UserError(
                    f"{path} is damaged: its content does not match the checksum taken when it was saved{earlier}"
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
