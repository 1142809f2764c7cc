"""By hand: texts a second of foundation.predict beside transformers' text-classification pipeline, on the same exported model.

    python -m tests.serving.throughput runs/small/finetune/sst2/full texts.txt [--texts 2000] [--rounds 3] [--threads 2]

Both read the texts from memory and give every label's probability; loading is not counted. Contenders take turns.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers

from foundation.core.memory import keep_freed_memory
from foundation.exchange.config import ExportConfig
from foundation.exchange.exporting import export
from foundation.serving.panel import load_panel
from foundation.serving.predict import ahead, chunks
from foundation.train.config import Precision, TrainerConfig

CHUNK = 4096


def ours(run: str, precision: Precision, threads: int) -> Callable[[list[str]], list[dict[str, float]]]:
    """As foundation.predict does it: chunks, tokenised ahead by a thread."""
    panel = load_panel([run], TrainerConfig(device="cpu", precision=precision, threads=threads), batch_tokens=4096)
    (name,) = panel.models

    def answer(texts: list[str]) -> list[dict[str, float]]:
        def prepare(part: list[str]) -> object:
            return panel.prepare({name: [{"text": text} for text in part]})

        found = []
        for prepared in ahead(prepare, chunks(texts, CHUNK)):
            found += [one["probabilities"] for one in panel.answer(prepared)[name]]
        return found

    return answer


def theirs(folder: Path, rows: int, dtype: torch.dtype, seq_len: int) -> Callable[[list[str]], list[dict[str, float]]]:
    """The pipeline as its documentation has it."""
    pipe = transformers.pipeline("text-classification", model=str(folder), device="cpu", dtype=dtype)
    arguments = {"top_k": None, "batch_size": rows, "truncation": True, "max_length": seq_len}

    def answer(texts: list[str]) -> list[dict[str, float]]:
        return [{one["label"]: one["score"] for one in row} for row in pipe(texts, **arguments)]

    return answer


def main() -> None:
    """Measure, and say how far the answers are from each other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("texts", type=Path)
    parser.add_argument("--texts", dest="n", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    texts = [line.strip() for line in args.texts.read_text(encoding="utf-8").splitlines() if line.strip()][: args.n]
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "exported"
        export(ExportConfig(run=args.run, to=str(folder)))
        seq_len = json.loads((folder / "config.json").read_text())["max_position_embeddings"]
        (model,) = load_panel([args.run], TrainerConfig(device="cpu"), 4096).models.values()
        seq_len = min(seq_len, model.how.seq_len)
        contenders = {
            "foundation fp32": ours(args.run, Precision.fp32, args.threads),
            "foundation bf16": ours(args.run, Precision.bf16, args.threads),
            "pipeline fp32, 1 row (its default)": theirs(folder, 1, torch.float32, seq_len),
            "pipeline fp32, 32 rows": theirs(folder, 32, torch.float32, seq_len),
            "pipeline bf16, 32 rows": theirs(folder, 32, torch.bfloat16, seq_len),
        }
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        answers = {name: answer(texts) for name, answer in contenders.items()}  # warm
        for _ in range(args.rounds):
            for name, answer in contenders.items():
                started = time.perf_counter()
                answer(texts)
                rates[name].append(len(texts) / (time.perf_counter() - started))
    base = max(np.median(rates[name]) for name in rates if name.startswith("pipeline fp32"))
    reference = answers["pipeline fp32, 32 rows"]
    for name, found in rates.items():
        gap = max(abs(one[k] - other[k]) for one, other in zip(answers[name], reference, strict=True) for k in other)
        print(f"{name:36} {np.median(found):8.0f} texts/s ({min(found):.0f} to {max(found):.0f})  ", end="")
        print(f"{np.median(found) / base:5.2f} × the better fp32 pipeline; probabilities differ by up to {gap:.1e}")


if __name__ == "__main__":
    main()
