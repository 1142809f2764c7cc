"""Run folders as fine-tuning leaves them, filled with the answers of planted models."""

from pathlib import Path

import numpy as np
import yaml

from foundation.core.files import read_json, write_json
from foundation.core.plain import to_plain
from foundation.task.config import TaskConfig
from foundation.task.predictions import Predictions, read_predictions, write_predictions
from tests.science import planted


def lay_arm(
    runs: Path,
    name: str,
    failed_SN: np.ndarray,
    *,
    task: str = "toy",
    variant: str = "full",
    foundation: str | None = None,
    with_scores: bool = True,
    **changed: object,
) -> Path:
    """One foundation's fine-tunes of a task with two labels; `changed`: fields of Predictions. Returns the arm's folder."""
    folder = runs / name / "finetune" / task / variant
    n_seeds, n_items = failed_SN.shape
    gold = np.arange(n_items) % 2
    # Any two models differ in the last digits of their logits, as real ones do.
    draws = np.random.default_rng([len(name), *name.encode(), *task.encode(), *variant.encode()])
    found = []
    for seed in range(n_seeds):
        predicted = np.where(failed_SN[seed], 1 - gold, gold)
        sure = draws.uniform(0.5, 3, n_items)
        logits = np.stack([np.where(predicted == 0, sure, 0), np.where(predicted == 1, sure, 0)], axis=1)
        powers = np.exp(logits)
        content: dict[str, object] = {
            "task": task, "split": "dev", "seed": seed, "foundation": foundation or f"fp-{name}", "sharing": variant,
            "arm": f"{name}/{variant}", "labels": ["no", "yes"], "item_ids": [f"dev-{n}" for n in range(n_items)],
            "gold": gold.astype(float), "predicted": predicted.astype(float), "logits": logits.astype(np.float32),
            "probabilities": powers / powers.sum(axis=1, keepdims=True),
        }  # fmt: skip
        found.append(Predictions(**(content | changed)))
    write_predictions(folder / "predictions.parquet", found)
    if with_scores:
        costs = {"parameters": 1000, "trainable": 1000 if variant == "full" else 20, "stored_bytes": 4000}
        costs["shared_share"] = 0.0 if variant == "full" else 0.97
        seeds = [
            {"seed": s, "value": float(1 - row.mean()), "seconds": 5.0, "costs": costs, "training_memory_bytes": 1e6}
            | {"collapsed": bool(row.mean() >= 0.5)}
            for s, row in enumerate(failed_SN)
        ]
        start = f"scratch-{name}" if variant == "scratch" else foundation or f"fp-{name}"
        summary = {
            "metric": "accuracy",
            "baseline": 0.5,
            "seeds": seeds,
            "fingerprints": {"start": start},
            "config": {},
        }
        write_json(folder / "scores.json", summary)
    return folder


def interrupt(arm: Path, task: TaskConfig) -> None:
    """Leave what is there of an arm that is stopped after its last seed: the seeds and the settings, nothing collected."""
    summary = read_json(arm / "scores.json")
    for run, seed in zip(read_predictions(arm / "predictions.parquet"), summary["seeds"], strict=True):
        write_predictions(arm / f"seed-{run.seed}/predictions.parquet", [run])
        write_json(arm / f"seed-{run.seed}/scores.json", seed)
    settings = {"task": to_plain(task), "start": summary["fingerprints"]["start"], "examples": "0"}
    (arm / "config.yaml").write_text(yaml.safe_dump(settings))
    for name in ("scores.json", "predictions.parquet"):
        (arm / name).unlink()


def lay_study(
    runs: Path,
    *,
    n: tuple[int, int, int] = (4, 3, 120),
    tasks: tuple[str, ...] = ("first", "second"),
    variants: tuple[str, ...] = ("full", "probe", "scratch"),
) -> None:
    """Foundations × seeds × items of some tasks, in full and as probes, and models of random weights."""
    for number, task in enumerate(tasks):
        for variant, defect in (("full", 1.0), ("probe", 2.0)):
            if variant not in variants:
                continue
            draws = np.random.default_rng([number, len(variant)])
            for p, failed_SN in enumerate(planted.failures(draws, n, defect=defect)):
                lay_arm(runs, f"foundation{p}", failed_SN, task=task, variant=variant)
        scratch = planted.failures(np.random.default_rng([number, 9]), (3, 1, n[2]), defect=0.0)[:, 0]
        for seed, failed_N in enumerate(scratch if "scratch" in variants else []):
            lay_arm(runs, f"random{seed}", failed_N[None], task=task, variant="scratch", foundation=f"random-{seed}")
