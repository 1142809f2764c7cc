"""What the seeds of an arm, and the arms of a study, say together; and how a terminal shows it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foundation.task.interval import RESAMPLES, Differences, Interval
from foundation.task.predictions import Predictions

# Of an arm, and of each of its seeds in a folder of its own. The scores come last: a folder with them is complete.
SCORES_FILE, PREDICTIONS_FILE = "scores.json", "predictions.parquet"


@dataclass(frozen=True, slots=True)
class ArmResult:
    """An arm's scores.json as it stands, and its predictions, a run a seed."""

    name: str
    folder: Path
    summary: dict[str, Any]
    predictions: list[Predictions]


@dataclass(frozen=True, slots=True)
class StudyResult:
    """All arms, and how the first differs from the second where there are two."""

    arms: list[ArmResult]
    difference: Differences | None


def summarize(values: list[float]) -> dict[str, float | None]:
    """Mean, median, maximum, and the standard deviation over seeds (n − 1 below), which one seed does not have."""
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "median": float(np.median(values)),
        "max": max(values),
    }


def study_table(study: StudyResult) -> str:
    """Every arm with its mean, spread and seeds; the difference with its interval; where the results lie."""
    first = study.arms[0].summary
    width = max(len(arm.name) for arm in study.arms)
    lines = [
        "",
        f"{first['task']}: {first['metric']} on {first['rows']['dev']:,} rows, "
        f"after {first['rows']['train']:,} training rows; a constant answer has {first['baseline']:.3f}",
        f"  {'arm':<{width}}  mean ± sd       median  max     collapsed  seeds",
        *(_arm_line(arm, width) for arm in study.arms),
    ]
    if study.difference is not None:
        lines += _difference_lines(study.difference.interval, study.arms)
    lines += [f"  {arm.name:<{width}}  {cost_line(arm)}" for arm in study.arms]
    lines += [f"  {arm.name:<{width}}  {arm.folder}" for arm in study.arms]
    return "\n".join(lines)


def _arm_line(arm: ArmResult, width: int) -> str:
    summary = arm.summary
    spread = "       " if summary["std"] is None else f"± {summary['std']:.3f}"
    values = " ".join(f"{seed['value']:.3f}{'!' if seed['collapsed'] else ''}" for seed in summary["seeds"])
    collapsed = f"{summary['collapsed']} of {len(summary['seeds'])}"
    return (
        f"  {arm.name:<{width}}  {summary['mean']:.3f} {spread}   {summary['median']:.3f}   {summary['max']:.3f}   "
        f"{collapsed:<9}  {values}"
    )


def _difference_lines(difference: Interval, arms: list[ArmResult]) -> list[str]:
    return [
        f"  {arms[0].name} − {arms[1].name}: {difference.difference:+.3f}, 95 % interval "
        f"[{difference.low:+.3f}, {difference.high:+.3f}]",
        f"  ({RESAMPLES:,} resamples of items, paired, and of seeds: about these foundations, not about how they are made)",
    ]


@dataclass(frozen=True, slots=True)
class ArmCosts:
    """Means over an arm's seeds; None where it was not measured. shared_share: as in costs.Costs."""

    trainable: float
    parameters: float
    shared_share: float
    stored_bytes: float | None
    training_memory_bytes: float | None
    seconds: float


def arm_costs(arm: ArmResult) -> ArmCosts:
    """What an arm costs for one task and one seed."""
    seeds = arm.summary["seeds"]

    def mean(values: list[float | None]) -> float | None:
        there = [value for value in values if value is not None]
        return float(np.mean(there)) if there else None

    costs: dict[str, Any] = {name: mean([seed["costs"][name] for seed in seeds]) for name in seeds[0]["costs"]}
    whole: dict[str, Any] = {
        name: mean([seed[name] for seed in seeds]) for name in ("training_memory_bytes", "seconds")
    }
    return ArmCosts(**costs, **whole)


def cost_line(arm: ArmResult) -> str:
    """For the terminal: what is trained, kept and needed."""
    costs = arm_costs(arm)
    return (
        f"{costs.trainable:,.0f} of {costs.parameters:,.0f} parameters trained, {in_megabytes(costs.stored_bytes)} a task, "
        f"{costs.shared_share:.2%} as in the foundation, {in_megabytes(costs.training_memory_bytes)} to train, "
        f"{costs.seconds:.0f} s"
    )


def in_megabytes(n_bytes: float | None) -> str:
    """n_bytes as a terminal shows it."""
    return "– MB" if n_bytes is None else f"{n_bytes / 1e6:,.2f} MB"
