"""From a folder of transformers' to a foundation of ours, with its card and its place among the runs."""

import shlex
from pathlib import Path
from typing import Any

from foundation.core.distributed import command_line
from foundation.core.errors import UserError
from foundation.core.files import fingerprint, hash_file
from foundation.core.plain import to_plain
from foundation.core.run import open_run
from foundation.exchange.config import ImportConfig
from foundation.exchange.from_stock import Arrival, read_stock
from foundation.exchange.tokenizer import read_tokenizer
from foundation.objective.config import MaskingConfig, ObjectiveConfig, SentenceTask
from foundation.train.foundation import save_foundation


def import_folder(cfg: ImportConfig, settings: dict[str, Any]) -> Path:
    """Write <runs_dir>/<name>/final and return it. Raises UserError for what cannot be held here, leaving nothing behind."""
    folder, path = Path(cfg.folder), Path(cfg.runs_dir) / cfg.name
    arrival = read_stock(folder, encoder_only=cfg.encoder_only)
    tokenizer, notes = read_tokenizer(folder)
    if tokenizer.vocab_size > arrival.model.vocab_size:
        raise UserError(
            f"the tokenizer of {folder} has {tokenizer.vocab_size} entries and its model {arrival.model.vocab_size}: "
            "they do not belong together"
        )
    if arrival.left:
        notes.append(f"Left behind: {', '.join(arrival.left)}.")
    info = _info(cfg, arrival, folder) | {"tokenizer": tokenizer.fingerprint}
    command = command_line("import_hf")
    with open_run(path, settings, resume=False, speed_only=frozenset(), command=command) as run:
        card = _card(info, notes)
        own = save_foundation(path / "final", arrival.tensors, arrival.model, tokenizer, info, card)
        run.update(fingerprints={"tokenizer": tokenizer.fingerprint, "foundation": own})
    print(f"{folder} ({arrival.architecture}) is a foundation now: {path / 'final'}")
    for note in notes:
        print(f"  {note}")
    print(f"  next        python -m foundation.finetune task=sst2 {shlex.quote(f'foundation={cfg.name}')}")
    return path / "final"


def _info(cfg: ImportConfig, arrival: Arrival, folder: Path) -> dict[str, Any]:
    """config.json beyond the shape. What it was trained on is not in the folder, so nothing is said of it."""
    hashes = {path.name: hash_file(path) for path in sorted(folder.glob("*.safetensors"))}
    origin = {"architecture": arrival.architecture, "config": hash_file(folder / "config.json"), "weights": hashes}
    info = {
        "name": cfg.name,
        "foundation_id": fingerprint(origin),
        "imported": origin,
        "seq_len": arrival.model.max_seq_len,
    }
    if arrival.has("mlm"):
        task = SentenceTask.nsp if arrival.has("pair") else SentenceTask.none
        info["objective"] = to_plain(ObjectiveConfig(masking=MaskingConfig(), sentence_task=task))
    return info


def _card(info: dict[str, Any], notes: list[str]) -> str:
    """Markdown; save_foundation puts the fingerprint in."""
    told = "".join(f"- {note}\n" for note in notes)
    return f"""# {info["name"]}

A {info["imported"]["architecture"]} of transformers, taken in as a foundation. Encoder: `{{fingerprint}}`. Tokenizer:
`{info["tokenizer"]}`. What it was trained on, and how, is not in its folder: see where it came from.

{told}"""
