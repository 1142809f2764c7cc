"""What a suite's studies say together, as a terminal and as a spreadsheet show it."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from foundation.core.files import write_atomically
from foundation.task.interval import RESAMPLES, Differences, macro_differences
from foundation.task.results import ArmResult, StudyResult, arm_costs, in_megabytes


def suite_table(title: str, studies: dict[str, StudyResult], left_out: dict[str, str]) -> str:
    """A line a task with every arm's mean, spread and collapsed runs and the difference; the macro average below."""
    names = [arm.name for arm in next(iter(studies.values())).arms]
    has_difference = len(names) == 2
    header = ["task", "metric", "train", "dev", *names, *([f"{names[0]} − {names[1]}"] if has_difference else [])]
    lines = [_task_line(task, study) for task, study in studies.items()]
    lines.append(_macro_line(list(studies.values())))
    notes = ["! a seed no better than a constant answer"]
    if has_difference:
        notes.append(
            f"[95 % intervals: {RESAMPLES:,} resamples of items, paired, and of seeds; of the average, of each task's own. "
            "About these foundations and tasks]"
        )
    notes += [f"left out: {task} ({reason})" for task, reason in left_out.items()]
    return "\n".join(["", title, *aligned([header, *lines]), *(f"  {note}" for note in notes)])


def _task_line(task: str, study: StudyResult) -> list[str]:
    first = study.arms[0].summary
    cells = [task, first["metric"], f"{first['rows']['train']:,}", f"{first['rows']['dev']:,}"]
    cells += [_mean(arm) for arm in study.arms]
    return [*cells, _interval(study.difference)] if study.difference is not None else cells


def _macro_line(studies: list[StudyResult]) -> list[str]:
    n_arms = len(studies[0].arms)
    means = [macro_mean(studies, arm) for arm in range(n_arms)]
    cells = [f"average of {len(studies)}", "", "", "", *(f"{mean:.3f}" for mean in means)]
    found = [study.difference for study in studies if study.difference is not None]
    return [*cells, _interval(macro_differences(found))] if found else cells


def macro_mean(studies: list[StudyResult], arm: int) -> float:
    """Mean over tasks of the mean over seeds of each task's own metric."""
    return float(np.mean([study.arms[arm].summary["mean"] for study in studies]))


def _mean(arm: ArmResult) -> str:
    summary = arm.summary
    spread = "" if summary["std"] is None else f" ± {summary['std']:.3f}"
    return f"{summary['mean']:.3f}{spread}{' ' + '!' * summary['collapsed'] if summary['collapsed'] else ''}"


def _interval(differences: Differences) -> str:
    found = differences.interval
    return f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def degrees_table(studies: dict[str, dict[str, StudyResult]], degrees: dict[str, float]) -> str:
    """A line a method: scores, and what it costs a task."""
    tasks = list(next(iter(studies.values())))
    header = [*("sharing", *tasks, "average", "trained", "of", "stored a task", "shared", "memory to train", "seconds")]
    lines = []
    for method, of in studies.items():
        costs = [arm_costs(study.arms[0]) for study in of.values()]
        trained, parameters, seconds = (
            float(np.mean([getattr(cost, name) for cost in costs])) for name in ("trainable", "parameters", "seconds")
        )
        lines.append(
            [
                method,
                *(_mean(study.arms[0]) for study in of.values()),
                f"{macro_mean(list(of.values()), 0):.3f}",
                f"{trained:,.0f}",
                f"{parameters:,.0f}",
                in_megabytes(_mean_of([cost.stored_bytes for cost in costs])),
                f"{degrees[method]:.4f}" if method in degrees else "–",
                in_megabytes(_mean_of([cost.training_memory_bytes for cost in costs])),
                f"{seconds:.0f}",
            ]
        )
    notes = [
        "trained, of: parameters. stored a task: files on disk. shared: the share of a model's parameters whose bytes are the",
        "same in the models of all tasks, by hash. memory: resident memory (GPU: tensors) that training added at its height.",
    ]
    return "\n".join(["", *aligned([header, *lines]), *(f"  {note}" for note in notes)])


def _mean_of(values: list[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


def aligned(rows: list[list[str]]) -> list[str]:
    """Cells in columns, two spaces apart, two from the edge."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def rows_of(method: str, studies: dict[str, StudyResult]) -> list[dict[str, Any]]:
    """A row a task and arm, for files; an arm that every weight of is trained says so itself."""
    rows = []
    for task, study in studies.items():
        for arm in study.arms:
            costs, summary = arm_costs(arm), arm.summary
            row = {"sharing": method, "task": task, "arm": arm.name, "metric": summary["metric"]}
            row |= {key: summary[key] for key in ("mean", "std", "median", "max", "collapsed", "baseline")}
            row |= {"seeds": len(summary["seeds"]), "train_rows": summary["rows"]["train"]}
            row |= {"dev_rows": summary["rows"]["dev"], "trained_parameters": costs.trainable}
            row |= {"parameters": costs.parameters, "stored_bytes": costs.stored_bytes}
            row |= {"share_of_the_foundation": costs.shared_share, "training_memory_bytes": costs.training_memory_bytes}
            rows.append(row | {"seconds": costs.seconds})
    return rows


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """All rows, with a header, atomically."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    with write_atomically(path) as file:
        file.write(text.getvalue().encode())
