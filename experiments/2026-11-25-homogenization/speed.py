"""What the whole analysis of 200 models × 10,000 items takes:  python experiments/2026-11-25-homogenization/speed.py FOLDER."""

import resource
import sys
import time
from pathlib import Path

import numpy as np
from scipy.special import expit

from foundation.core.config import LoggerConfig, WandbMode
from foundation.science.config import HomogenizeConfig
from foundation.science.report import make_report, write_report
from foundation.task.predictions import Predictions, write_predictions

N_FOUNDATIONS, N_SEEDS, N_ITEMS = 40, 5, 10_000
LABELS = ["no", "maybe", "yes"]


def lay(folder: Path) -> None:
    """Planted models, a file a foundation."""
    draws = np.random.default_rng(0)
    difficulty = draws.normal(-1.5, 2, N_ITEMS)
    gold = draws.integers(len(LABELS), size=N_ITEMS)
    for p in range(N_FOUNDATIONS):
        chance = expit(difficulty + draws.normal(0, 0.8, N_ITEMS))
        runs = []
        for seed in range(N_SEEDS):
            failed = draws.random(N_ITEMS) < chance
            predicted = np.where(failed, (gold + draws.integers(1, len(LABELS), N_ITEMS)) % len(LABELS), gold)
            logits = draws.normal(0, 0.5, (N_ITEMS, len(LABELS))) + 3 * np.eye(len(LABELS))[predicted]
            predicted, powers = logits.argmax(axis=1), np.exp(logits)
            runs.append(
                Predictions(
                    task="planted", split="dev", seed=seed, foundation=f"f{p:02}", sharing="full", arm=f"f{p:02}/full",
                    labels=LABELS, item_ids=[f"dev-{n}" for n in range(N_ITEMS)], gold=gold.astype(float),
                    predicted=predicted.astype(float), logits=logits.astype(np.float32),
                    probabilities=powers / powers.sum(axis=1, keepdims=True),
                )
            )  # fmt: skip
        write_predictions(folder / f"f{p:02}/finetune/planted/full/predictions.parquet", runs)


def main(folder: Path) -> None:
    """Lay the store in another process first: its memory is not the analysis's."""
    runs = folder / "runs"
    if not runs.is_dir():
        lay(runs)
        print(f"laid {N_FOUNDATIONS * N_SEEDS} models × {N_ITEMS:,} items; run again to measure")
        return
    cfg = HomogenizeConfig(
        runs=[str(runs)], output=str(folder / "report"), logger=LoggerConfig(wandb=WandbMode.disabled)
    )
    started, cpu = time.perf_counter(), time.process_time()
    write_report(folder / "report", make_report(cfg), {})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{time.perf_counter() - started:.1f} s, {time.process_time() - cpu:.1f} s of processor time, peak {peak:.2f} GiB"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
