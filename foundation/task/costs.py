"""What sharing costs and keeps, measured on the tensors and files themselves; and that what was frozen is what it was."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from torch import Tensor, nn

from foundation.core.files import read_json, write_json
from foundation.train.checkpoint import weights_fingerprint
from foundation.train.foundation import Foundation

TENSORS_FILE = "tensors.json"
# (parameters, content hash) of every tensor that a model answers with, by name.
Manifest: TypeAlias = dict[str, tuple[int, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Of one task's model.

    parameters: at inference, encoder and head. trainable: of them, with a gradient in training. shared_share: of them, the
    share that is bit for bit the foundation's. stored_bytes: of the task's folder; None where no model is kept.
    """

    parameters: int
    trainable: int
    shared_share: float
    stored_bytes: int | None


def manifest_of(state: dict[str, Tensor]) -> Manifest:
    """Size and content hash of each tensor."""
    return {name: (tensor.numel(), weights_fingerprint({name: tensor})) for name, tensor in state.items()}


def write_manifest(path: Path, manifest: Manifest) -> None:
    """As JSON, atomically."""
    write_json(path, {name: list(entry) for name, entry in manifest.items()})


def read_manifest(path: Path) -> Manifest:
    """What write_manifest wrote."""
    return {name: (int(size), str(content)) for name, (size, content) in read_json(path).items()}


def measure(module: nn.Module, manifest: Manifest, foundation: Foundation, final: Path | None) -> Costs:
    """Costs of a trained model; `final`: its folder."""
    theirs = manifest_of(foundation.encoder_tensors)
    return Costs(
        parameters=sum(size for size, _ in manifest.values()),
        trainable=sum(p.numel() for p in module.parameters() if p.requires_grad),
        shared_share=sharing_degree([manifest, theirs])[0],
        stored_bytes=None if final is None else folder_bytes(final),
    )


def sharing_degree(manifests: list[Manifest]) -> list[float]:
    """For each model the share of its parameters whose bytes are the same in all of them, name by name."""
    common = set(manifests[0].items()).intersection(*(manifest.items() for manifest in manifests[1:]))
    shared = sum(size for _, (size, _) in common)
    return [shared / sum(size for size, _ in manifest.values()) for manifest in manifests]


def folder_bytes(folder: Path) -> int:
    """Of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def verify_frozen(module: nn.Module, foundation: Foundation) -> int:
    """How many tensors have no gradient and are, bit for bit, the foundation's: all that have none must be.

    Raises RuntimeError, naming the first, where one is not: an encoder that others share has then been changed.
    """
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    state, theirs = module.state_dict(), foundation.encoder_tensors
    frozen = [name for name in state if name in theirs and name not in trained]
    for name in frozen:
        if weights_fingerprint({name: state[name]}) != weights_fingerprint({name: theirs[name]}):
            raise RuntimeError(f"{name} was frozen and is no longer what it is in {foundation.path}: nothing is saved")
    return len(frozen)
