"""An epoch of SST-2 from one foundation in transformers, beside ours: the same accuracy, and in how many seconds?

    python experiments/2026-11-27-finetune-parity/run.py peer --model exported/parity --seeds 3
    python experiments/2026-11-27-finetune-parity/run.py report

The peer's answers stand in results/peer.json; `report` reads ours from the fine-tune's own folder, and writes results/report.md.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from foundation.core.errors import UserError
from foundation.core.files import read_json, write_atomically, write_json
from foundation.core.memory import keep_freed_memory
from foundation.core.plain import from_plain
from foundation.core.provenance import machine, versions
from foundation.task.config import TaskConfig
from foundation.task.examples import Examples
from foundation.task.interval import resampled_differences, weighted_mean
from foundation.task.load import load_task
from foundation.task.predictions import read_predictions

HERE = Path(__file__).parent
# The recipe of both sides; ours is given it on the command line.
ROWS, WARMUP_SHARE, WEIGHT_DECAY, BETAS, EPS, CLIP_NORM, MAX_LENGTH = 32, 0.1, 0.01, (0.9, 0.999), 1e-6, 1.0, 128


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=["peer", "report"])
    parser.add_argument("--model", type=Path, default=Path("exported/parity"), help="what foundation.export wrote")
    parser.add_argument("--ours", type=Path, default=Path("runs/parity/finetune/sst2/full"), help="folder of our arm")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--data", type=Path, default=Path("data/glue/SST-2"), help="folder of train.tsv and dev.tsv")
    chosen = parser.parse_args()
    try:
        if chosen.what == "peer":
            run_peer(chosen)
        else:
            print(report(chosen.ours, chosen.results))
    except UserError as error:
        sys.exit(f"error: {error}")
    return 0


def run_peer(chosen: argparse.Namespace) -> None:
    """Every seed that has no result yet; written after each."""
    keep_freed_memory()
    task = Path("conf/task/sst2.yaml")
    asked = {**yaml.safe_load(task.read_text()), "local": [str(chosen.data)]}
    data = load_task(from_plain(TaskConfig, asked, str(task)), Path("runs"))
    path = chosen.results / "peer.json"
    settings = {"lr": chosen.lr, "train_rows": len(data.train)}
    found: dict[str, Any] = {"settings": settings, "machine": machine(), "versions": versions(), "runs": {}}
    if path.is_file() and (found := read_json(path))["settings"] != settings:
        raise UserError(f"{path} has results of {found['settings']}, asked are {settings}: give another --results")
    for seed in range(chosen.seeds):
        if str(seed) not in found["runs"]:
            found["runs"][str(seed)] = run = one_seed(chosen.model, data.train, data.dev, seed, chosen.lr)
            write_json(path, found)
            print(
                f"peer, seed {seed}: accuracy {np.mean(run['right']):.4f}, {run['seconds']:.0f} s of training",
                flush=True,
            )


def one_seed(folder: Path, train: Examples, dev: Examples, seed: int, lr: float) -> dict[str, Any]:
    """An epoch as run_glue.py does it, but without the Trainer, in bf16 and padded per batch; the clock runs from tokens on."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2).train()
    ids = tokenizer(train.text, truncation=True, max_length=MAX_LENGTH)["input_ids"]
    plain = [weights for weights in model.parameters() if weights.ndim < 2]
    groups = [
        {"params": [weights for weights in model.parameters() if weights.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=BETAS, eps=EPS, fused=True)
    batches = [rows.tolist() for rows in torch.randperm(len(ids)).split(ROWS)]
    schedule = get_linear_schedule_with_warmup(optimizer, int(WARMUP_SHARE * len(batches)), len(batches))
    start = time.perf_counter()
    for rows in batches:
        padded = tokenizer.pad({"input_ids": [ids[row] for row in rows]}, return_tensors="pt")
        labels = torch.from_numpy(train.labels[rows])
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**padded, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "right": answers_right(model.eval(), tokenizer, dev)}


def answers_right(model: Any, tokenizer: Any, dev: Examples) -> list[bool]:
    """Of every dev row, in order."""
    right: list[bool] = []
    for first in range(0, len(dev), ROWS):
        text, labels = dev.text[first : first + ROWS], dev.labels[first : first + ROWS]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            inputs = tokenizer(text, truncation=True, max_length=MAX_LENGTH, padding=True, return_tensors="pt")
            logits = model(**inputs).logits
        right += (logits.argmax(-1).numpy() == labels).tolist()
    return right


def report(ours: Path, results: Path) -> str:
    """Both sides' accuracy over seeds, the paired difference with its interval, and the seconds."""
    peer = list(read_json(results / "peer.json")["runs"].values())
    runs = read_predictions(ours / "predictions.parquet")
    seconds = [read_json(path)["seconds"] for path in sorted(ours.glob("seed-*/scores.json"))]
    right = {
        "transformers": [np.array(run["right"], dtype=np.float64) for run in peer],
        "foundation": [(run.gold == run.predicted).astype(np.float64) for run in runs],
    }
    spent = {"transformers": [run["seconds"] for run in peer], "foundation": seconds}
    weighted = {side: [weighted_mean(row) for row in rows] for side, rows in right.items()}
    found = resampled_differences(
        weighted["transformers"], weighted["foundation"], n_groups=len(right["foundation"][0]), seed=0
    )
    lines = ["| | accuracy of each seed | mean ± sd | seconds of training, median |", "|---|---|---|---|"]
    for side, rows in right.items():
        means = [float(row.mean()) for row in rows]
        lines.append(
            f"| {side} | {', '.join(f'{mean:.4f}' for mean in means)} | {statistics.fmean(means):.4f} ± "
            f"{statistics.stdev(means):.4f} | {statistics.median(spent[side]):.0f} |"
        )
    ratio = statistics.median(spent["transformers"]) / statistics.median(spent["foundation"])
    between = found.interval
    lines += [
        "",
        f"Ours minus theirs {between.difference:+.4f}, 95 % interval [{between.low:+.4f}, {between.high:+.4f}] over items and "
        f"seeds; theirs takes {ratio:.2f} times as long.",
        "Our seconds hold the examination, the saving and the reading back; theirs are those of the training loop alone.",
    ]
    text = "\n".join(lines)
    with write_atomically(results / "report.md") as file:
        file.write(f"{text}\n".encode())
    return text


if __name__ == "__main__":
    sys.exit(main())
