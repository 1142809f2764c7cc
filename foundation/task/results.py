"""What the seeds of an arm, and the arms of a study, say together; and how a terminal shows it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foundation.task.interval import RESAMPLES, Interval
from foundation.task.predictions import Predictions


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
    difference: Interval | None


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
        f"{first['task']}: {first['metric']} on {first['rows']['dev']:,} items, "
        f"after {first['rows']['train']:,} training rows; a constant answer has {first['baseline']:.3f}",
        f"  {'arm':<{width}}  mean ± sd       median  max     collapsed  seeds",
        *(_arm_line(arm, width) for arm in study.arms),
    ]
    if study.difference is not None:
        lines += _difference_lines(study.difference, study.arms)
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
