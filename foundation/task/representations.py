"""What models make of texts, layer by layer, stored for statistics that never load a model.

Letters: L layers, of which the first is the embeddings · N texts · T tokens · D width
"""

from collections.abc import Iterator
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from foundation.core.device import choose_device
from foundation.core.errors import UserError
from foundation.core.files import fingerprint, read_json, write_atomically, write_json
from foundation.core.plain import from_plain
from foundation.core.randomness import torch_seed
from foundation.data.batches import assemble
from foundation.data.tokenizer import Tokenizer
from foundation.model.encoder import Encoder, Layer, Residual, init_weights
from foundation.objective.base import clean_example
from foundation.task.config import TaskConfig
from foundation.task.finetuned import load_finetuned
from foundation.task.load import load_task
from foundation.task.readers import read_rows
from foundation.task.represent_config import RepresentConfig
from foundation.train.config import Precision
from foundation.train.foundation import Foundation, load_foundation

INDEX_FILE = "index.json"
# Untrained encoders of each shape, for the anchor: they make one pair.
_RANDOM_ENCODERS = 2


@dataclass(frozen=True, slots=True)
class _Tuned:
    """A fine-tuned model's folder, <foundation>/finetune/<task>/<variant>/seed-<n>/final, and its foundation's."""

    final: Path
    foundation: Path

    @property
    def names(self) -> tuple[str, str, int]:
        """Task, variant, seed."""
        seed = self.final.parent
        return seed.parent.parent.name, seed.parent.name, int(seed.name.removeprefix("seed-"))


def represent(cfg: RepresentConfig) -> Path:
    """Store every model's representations of the same texts; those that are there already are not computed again.

    Writes <output>/*.npy, each (L, N, D) float32, means over tokens, and index.json, which says what they are.

    Raises:
        UserError: no fine-tuned model is there, or no texts can be had.
    """
    device = choose_device(cfg.trainer.device)
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    tuned = find_tuned(cfg.runs)
    texts = _texts(cfg, tuned[0].final)
    folder = Path(cfg.output)
    entries: list[dict[str, Any]] = []
    homes = {one.foundation: load_foundation(one.foundation) for one in tuned}
    for entry, make in tqdm(list(_work(tuned, homes, cfg, device)), desc="representing", unit="model", disable=None):
        entry["file"] = f"{fingerprint([entry, texts])}.npy"
        if not (folder / entry["file"]).is_file():
            encoder, tokenizer, seq_len = make()
            values = hidden_means(encoder.to(device), tokenizer, texts, seq_len=seq_len, batch_rows=cfg.batch_rows)
            with write_atomically(folder / entry["file"]) as file:
                np.save(file, values)
        entries.append({name: value for name, value in entry.items() if name != "weights"})
    write_json(folder / INDEX_FILE, {"entries": entries, "texts": len(texts)})
    print(f"{len(entries)} representations of {len(texts):,} texts in {folder}")
    return folder


def _work(
    tuned: list[_Tuned], homes: dict[Path, Foundation], cfg: RepresentConfig, device: torch.device
) -> Iterator[Any]:
    """What is to be stored, and how to get the encoder, its tokenizer and its longest row."""

    def load(final: Path) -> tuple[Encoder, Tokenizer, int]:
        model = load_finetuned(final, device, batch_rows=cfg.batch_rows, precision=Precision.fp32)
        return encoder_in(model.objective), model.tokenizer, model.how.seq_len

    def pretrained(home: Foundation) -> tuple[Encoder, Tokenizer, int]:
        encoder = Encoder(home.model)
        home.load_encoder(encoder)
        return encoder, home.tokenizer, _seq_len(home)

    def untrained(home: Foundation, number: int) -> tuple[Encoder, Tokenizer, int]:
        torch.manual_seed(torch_seed(number, "init"))
        encoder = Encoder(home.model)
        init_weights(encoder, home.model)
        return encoder, home.tokenizer, _seq_len(home)

    entry: dict[str, Any]
    for home in homes.values():
        entry = {"kind": "foundation", "foundation": home.fingerprint, "weights": home.fingerprint}
        yield entry, lambda home=home: pretrained(home)
    first = next(iter(homes.values()))
    for number in range(_RANDOM_ENCODERS):
        entry = {"kind": "random", "foundation": f"random-{number}", "weights": fingerprint(str(first.model))}
        yield entry, lambda number=number: untrained(first, number)
    for one in tuned:
        task, variant, seed = one.names
        names: dict[str, Any] = {
            "foundation": homes[one.foundation].fingerprint,
            "task": task,
            "variant": variant,
            "seed": seed,
        }
        entry = {"kind": "finetuned", **names, "weights": read_json(one.final / "config.json")["weights_hash"]}
        yield entry, lambda one=one: load(one.final)


def find_tuned(runs: list[str]) -> list[_Tuned]:
    """Fine-tuned models that began at a foundation which is still there; those of random weights have none."""
    finals = sorted(
        {path for run in runs for start in glob(run, recursive=True) for path in Path(start).rglob("seed-*/final")}
    )
    found = []
    for final in finals:
        home = final.parents[4] / "final"
        if (home / "config.json").is_file() and (final / "config.json").is_file():
            began = read_json(final / "config.json").get("parent")
            if began == read_json(home / "config.json")["fingerprint"]:
                found.append(_Tuned(final, home))
    if not found:
        raise UserError(
            f"no fine-tuned model of a foundation below {', '.join(runs)}: make one with  "
            "python -m foundation.finetune task=sst2"
        )
    return found


def _seq_len(home: Foundation) -> int:
    return min(home.model.max_seq_len, int(home.info.get("seq_len", home.model.max_seq_len)))


def _texts(cfg: RepresentConfig, final: Path) -> list[str]:
    if cfg.input is not None:
        lines = [row.get("text") for row in read_rows(cfg.input, file_format="txt")]
        texts = [line for line in lines if line.strip()]
    else:
        described = read_json(final / "config.json")["task"]
        texts = load_task(from_plain(TaskConfig, described, str(final)), Path(cfg.runs_dir)).dev.text
    if len(texts) < 4:
        raise UserError(f"CKA needs four texts or more, and there are {len(texts)}")
    return texts[: cfg.n_texts]


def encoder_in(module: nn.Module) -> Encoder:
    """The encoder inside whatever a way of sharing has put around it."""
    return next(part for part in module.modules() if isinstance(part, Encoder))


def _states(output: Tensor | Residual) -> Tensor:
    return output.total() if isinstance(output, Residual) else output


@torch.no_grad()
def hidden_means(
    encoder: Encoder, tokenizer: Tokenizer, texts: list[str], *, seq_len: int, batch_rows: int
) -> NDArray[np.float32]:
    """(L, N, D): means over a text's tokens of the embeddings and of every layer's output, without dropout."""
    encoder.eval()
    seen: list[Tensor] = []
    watched = [
        encoder.embedding_norm,
        *{id(part): part for part in encoder.modules() if isinstance(part, Layer)}.values(),
    ]
    # Layers that share their weights are one module, called again and again: the order of calls is that of layers.
    handles = [
        part.register_forward_hook(lambda _module, _inputs, output: seen.append(_states(output))) for part in watched
    ]
    rows = [ids[: seq_len - 2] for ids in tokenizer.encode_batch(texts)]
    parts = []
    try:
        for first in range(0, len(rows), batch_rows):
            batch = assemble([(row,) for row in rows[first : first + batch_rows]], tokenizer.specials, None, first)
            example = clean_example(batch).to(encoder.token_embedding.weight.device)
            seen.clear()
            encoder(example.ids, example.segments, example.layout())
            lengths = torch.tensor(example.lengths, device=example.device)
            means = [
                torch.segment_reduce(each[: example.n_tokens].float(), "mean", lengths=lengths, axis=0) for each in seen
            ]
            parts.append(torch.stack(means).cpu().numpy())
    finally:
        for handle in handles:
            handle.remove()
    return np.concatenate(parts, axis=1)
