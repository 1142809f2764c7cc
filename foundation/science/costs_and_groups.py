"""What sharing saves, beside what it does to errors; and on which groups of items everyone fails."""

from typing import Any

import numpy as np

from foundation.core.files import read_json
from foundation.science.conditions import Condition
from foundation.science.design import MOST_TUPLES, at_most
from foundation.science.failures import tuple_failures
from foundation.science.items import Items
from foundation.science.tables import Table, plain, spread, with_ends
from foundation.science.within_tasks import KEYS, SIZES, Analysed, keys, sizes_of

# Fewer items than this make a group's rate an anecdote.
_FEWEST_ITEMS = 10


def sharing_table(found: list[Analysed]) -> Table:
    """Sharing degree, likeness of errors, score, and costs: one row a condition."""
    rows: list[list[Any]] = []
    for each in found:
        condition = each.condition
        kappa = each.contrast("error consistency") or each.contrast("residual correlation")
        values = condition.values()
        score = None if values is None else np.nanmean(values)
        arms = [None, None] if kappa is None else [kappa.shared, kappa.control]
        row = [*keys(condition), mean_cost(condition, "shared_share"), *spread(arms[0]), *spread(arms[1]), score]
        row += [mean_cost(condition, name) for name in ("trainable", "stored_bytes")]
        seconds = mean_seed(condition, "seconds")
        row += [seconds, mean_seed(condition, "training_memory_bytes"), _pretraining_seconds(condition)]
        rows.append([*row, _break_even(each, found), *sizes_of(condition)])
    return Table(
        "sharing",
        "What sharing keeps, and what it costs and saves",
        "Sharing degree: the share of the parameters used at inference whose bytes are the foundation's, by hashing tensors. "
        "κ: error consistency (residual correlation where labels are numbers) of seeds of one foundation (shared) and of "
        "different ones (control). T*: tasks after which sharing has paid for the pretraining in seconds, where the row scores "
        "at least what scratch does on the same data and a task takes less time than from scratch.",
        [*KEYS, "sharing degree", *with_ends("κ shared", "κ control"), "score", "trained parameters", "bytes a task",
         "seconds a task", "training memory, bytes", "pretraining seconds", "T*", *SIZES],
        plain(rows),
    )  # fmt: skip


def mean_cost(condition: Condition, name: str) -> float | None:
    """Of the models' measured costs; None where none was measured."""
    found = [model.scores.get("costs", {}).get(name) for model in condition.models]
    there = [value for value in found if value is not None]
    return float(np.mean(there)) if there else None


def mean_seed(condition: Condition, name: str) -> float | None:
    """Of a number in the seeds' records."""
    there = [model.scores[name] for model in condition.models if model.scores.get(name) is not None]
    return float(np.mean(there)) if there else None


def _pretraining_seconds(condition: Condition) -> float | None:
    """Of one foundation, on average, from its run folder: <foundation>/finetune/<task>/<arm>."""
    seconds = []
    for model in {model.name: model for model in condition.models if not model.is_scratch}.values():
        path = model.folder.parent.parent.parent / "run.json"
        if path.is_file() and (result := read_json(path).get("result")):
            seconds.append(float(result["training_seconds"]))
    return float(np.mean(seconds)) if seconds else None


def _break_even(each: Analysed, found: list[Analysed]) -> float | None:
    """T* = C_pre / (C_scratch − C_task), at matched quality and on the same data only."""
    candidates = [other.condition for other in found if other.condition.is_scratch]
    # What was trained on more data takes longer and scores more.
    scratch = next((c for c in candidates if c.task is each.condition.task and c.data == each.condition.data), None)
    pretraining, own = _pretraining_seconds(each.condition), mean_seed(each.condition, "seconds")
    if scratch is None or pretraining is None or own is None or each.condition.is_scratch:
        return None
    values, theirs, cost = each.condition.values(), scratch.values(), mean_seed(scratch, "seconds")
    if values is None or theirs is None or cost is None or np.nanmean(values) < np.nanmean(theirs) or cost <= own:
        return None
    return pretraining / (cost - own)


def groups_table(found: list[Analysed], items: dict[str, Items], size: int) -> Table:
    """Error rate and systemic failure by group, in both arms; and how far apart the groups are."""
    rows: list[list[Any]] = []
    for each in found:
        condition, answers = each.condition, each.condition.answers
        if not answers.n_labels or not each.systemic:
            continue
        k = max((one.size for one in each.systemic if one.size <= size), default=each.systemic[0].size)
        sides = [at_most(MOST_TUPLES, side) for side in (answers.design.shared(k), answers.design.control(k))]
        together = [tuple_failures(answers.failed_MN, side).mean(axis=0) if len(side) else None for side in sides]
        rates = [answers.failed_MN.mean(axis=0), *together]
        for grouping, groups in items[condition.task.name].groups.items():
            rows += [[*keys(condition), grouping, *row] for row in _by_group(groups, rates, k)]
    return Table(
        "groups",
        "On which groups do models fail together?",
        f"Groups of {_FEWEST_ITEMS} items or more. The rows named gap are the largest group's rate minus the smallest's.",
        [*KEYS, "groups by", "group", "items", "error rate", "k", "all k fail, shared", "all k fail, control"],
        plain(rows),
    )


def _by_group(groups: list[str], rates: list[Any], size: int) -> list[list[Any]]:
    names, codes = np.unique(groups, return_inverse=True)
    counts = np.bincount(codes)
    kept = counts >= _FEWEST_ITEMS
    if kept.sum() < 2:
        return []
    means = [None if rate is None else (np.bincount(codes, rate) / counts)[kept] for rate in rates]
    cells = [[None] * int(kept.sum()) if mean is None else mean.tolist() for mean in means]
    rows = [
        [str(name), int(count), error, size, shared, control]
        for name, count, error, shared, control in zip(names[kept], counts[kept], *cells, strict=True)
    ]
    gaps = [None if mean is None else float(np.ptp(mean)) for mean in means]
    return [*rows, ["gap", int(counts[kept].sum()), gaps[0], size, *gaps[1:]]]
