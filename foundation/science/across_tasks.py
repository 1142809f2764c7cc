"""What one foundation does to several tasks at once: scores that move together, groups that lose everywhere."""

from itertools import permutations, product
from math import perm
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from foundation.core.errors import UserError
from foundation.core.randomness import rng
from foundation.science.conditions import Condition
from foundation.science.failures import outcome_homogenization
from foundation.science.items import Items
from foundation.science.tables import Table, plain, with_ends
from foundation.science.variance import inheritance, specificity_gap, spread_over_tasks

Floats: TypeAlias = NDArray[np.float64]

_MOST_ASSIGNMENTS = 500


def scores_by_kind(found: list[Condition]) -> dict[tuple[str, str], dict[str, Floats]]:
    """(sharing, data) → task → (P, S) normalised scores of the foundations that all its tasks have, in one order.

    The floor is the constant answer's score, the ceiling 1: metrics whose best is another number are not normalised so.
    """
    tables: dict[tuple[str, str], dict[str, Floats]] = {}
    for kind, members in _by_kind([c for c in found if c.normalised() is not None]).items():
        kept, foundations = largest_grid(members)
        tables[kind] = {condition.task.name: _normalised(condition, foundations) for condition in kept}
    return tables


def _by_kind(found: list[Condition]) -> dict[tuple[str, str], list[Condition]]:
    kinds: dict[tuple[str, str], list[Condition]] = {}
    for condition in found:
        kinds.setdefault((condition.variant, condition.data), []).append(condition)
    return kinds


def largest_grid(members: list[Condition]) -> tuple[list[Condition], list[str]]:
    """Tasks and foundations that all have each other: two tasks if there can be, then the most cells, then foundations."""
    own = [frozenset(member.foundations) for member in members]

    def size(foundations: frozenset[str]) -> tuple[int, int, int]:
        n_tasks = sum(foundations <= theirs for theirs in own)
        return min(n_tasks, 2), n_tasks * len(foundations), len(foundations)

    chosen = max([*own, frozenset.intersection(*own)], key=lambda f: size(f) if f else (0, 0, 0))
    kept = [member for member, theirs in zip(members, own, strict=True) if chosen <= theirs]
    return kept, [foundation for foundation in kept[0].foundations if foundation in chosen]


def _normalised(condition: Condition, foundations: list[str]) -> Floats:
    scores = condition.normalised()
    assert scores is not None
    return scores[[condition.foundations.index(f) for f in foundations]]


def left_out(found: list[Condition]) -> list[str]:
    """What the tables across tasks are without, a note each."""
    if len({condition.task.name for condition in found}) < 2:
        return []
    notes = []
    for condition in found:
        if condition.normalised() is None:
            notes.append(
                f"across tasks, {condition.label}: without {condition.task.name}, of which a model has no scores.json or no arm "
                "was finished"
            )
    for members in _by_kind([c for c in found if c.normalised() is not None]).values():
        kept, foundations = largest_grid(members)
        where = f"across tasks, {members[0].label}"
        names = {f: name for member in members for f, name in zip(member.foundations, member.names, strict=True)}
        for member in members:
            if not any(member is other for other in kept):
                lack = sorted(names[f] for f in set(foundations) - set(member.foundations))
                notes.append(f"{where}: without {member.task.name}, which {', '.join(lack)} did not do")
        if lacking := sorted(name for f, name in names.items() if f not in foundations):
            notes.append(f"{where}: without {', '.join(lacking)}, which did not do every task")
        if len(kept) > 1 and not (enough_P := _seeds([_normalised(c, foundations) for c in kept])[1]).all():
            single = [names[f] for f, enough in zip(foundations, enough_P, strict=True) if not enough]
            notes.append(f"{where}: without {', '.join(single)}, which has one seed where others have more")
    return notes


def scores_table(found: list[Condition]) -> Table:
    """Every foundation's normalised score on every task."""
    rows: list[list[Any]] = []
    for (variant, data), tasks in scores_by_kind(found).items():
        for task, scores in tasks.items():
            for number, seeds in enumerate(scores):
                rows += [[variant, data, task, number, seed, z] for seed, z in enumerate(seeds) if np.isfinite(z)]
    return Table(
        "scores",
        "Normalised scores, every seed",
        "z = (score − constant answer) / (1 − constant answer): 0 is the constant answer, 1 perfect. The same number in "
        "the same row kind is the same foundation on every task.",
        ["sharing", "data", "task", "foundation", "seed", "z"],
        plain(rows),
    )


def convergence_table(found: list[Condition]) -> Table:
    """Do scores converge over tasks, and is a foundation that is bad bad everywhere?"""
    rows: list[list[Any]] = []
    for (variant, data), tasks in scores_by_kind(found).items():
        if len(tasks) < 2:
            continue
        n_seeds, enough_P = _seeds(list(tasks.values()))
        scores_QPS = np.stack([scores[enough_P, :n_seeds] for scores in tasks.values()])
        spread_P = spread_over_tasks(scores_QPS.mean(axis=2))
        row = [variant, data, scores_QPS.mean(), *_mean_interval(spread_P)]
        try:
            one = inheritance(scores_QPS)
            row += [one.index, one.low, one.high, one.foundation, one.interaction, one.seed, one.correlation]
        except UserError:
            row += [None] * 7
        rows.append([*row, *scores_QPS.shape])
    return Table(
        "across_tasks",
        "Across tasks: do scores move together?",
        "Spread: standard deviation over tasks of a foundation's z, mean over foundations with Student's interval. Inheritance "
        "index σ²_φ/(σ²_φ + σ²_τφ): 1, a foundation that is bad is bad on every task; 0, its effect belongs to the task. Its "
        "interval is Weerahandi's generalised one. Correlation: of foundations' scores over task pairs, from 5 foundations. "
        "Only tasks and foundations that all have each other count, and as many seeds as all have.",
        ["sharing", "data", "mean z", *with_ends("spread over tasks", "inheritance"), "σ² foundation",
         "σ² task × foundation", "σ² seed", "correlation", "tasks", "foundations", "seeds"],
        plain(rows),
    )  # fmt: skip


def _seeds(scores_QPS: list[Floats]) -> tuple[int, NDArray[np.bool_]]:
    """How many seeds of each foundation count, and which foundations have them; one seed only where nobody has two."""
    n_seeds_P = np.min([np.isfinite(scores).sum(axis=1) for scores in scores_QPS], axis=0)
    n_seeds = int(min(n_seeds_P[n_seeds_P > 1], default=1))
    return n_seeds, n_seeds_P >= n_seeds


def _mean_interval(values: Floats) -> list[float]:
    mean = float(values.mean())
    if len(values) < 3:
        return [mean, np.nan, np.nan]
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    return [mean, mean - half, mean + half]


def specificity_table(found: list[Condition], specialists: dict[str, str]) -> Table:
    """Foundations made for a task against those that all tasks share.

    Args:
        specialists: task → beginning of the names of the foundations made for it.
    """
    rows: list[list[Any]] = []
    for condition in found:
        prefix = specialists.get(condition.task.name)
        scores = condition.normalised()
        if prefix is None or scores is None or condition.is_scratch:
            continue
        z_P = np.nanmean(scores, axis=1)
        special = np.array([name.startswith(prefix) for name in condition.names])
        if special.any() and not special.all():
            gap = specificity_gap(z_P[special], z_P[~special])
            row = [condition.task.name, condition.variant, condition.data, gap.difference, gap.low, gap.high]
            rows.append([*row, int(special.sum()), int((~special).sum())])
    return Table(
        "specificity",
        "Is a foundation made for the task ahead of the shared ones?",
        "Difference of normalised scores, seeds averaged, Welch's interval over foundations.",
        ["task", "sharing", "data", *with_ends("gap"), "specialised", "shared foundations"],
        plain(rows),
    )


def group_outcomes_table(found: list[Condition], items: dict[str, Items]) -> Table:
    """Outcome homogenization with tasks as deployments: the same foundation behind all of them, or another for each."""
    rows: list[list[Any]] = []
    for (variant, data), there in _by_kind([c for c in found if c.answers.n_labels]).items():
        members, common = largest_grid(there)
        if len(members) < 2 or len(common) < 2:
            continue
        for grouping in sorted(set.intersection(*(set(items[c.task.name].groups) for c in members))):
            if grouping == "label":  # labels of different tasks are different things
                continue
            tables = [
                _group_counts(condition, items[condition.task.name].groups[grouping], common) for condition in members
            ]
            names = sorted(set.union(*(set(names) for names, _, _ in tables)))
            shared, control = _assignments(len(common), len(members))
            of_shared, of_control = (_mean_outcome(tables, names, chosen) for chosen in (shared, control))
            if of_shared is None or of_control is None:
                continue
            rows.append([variant, data, grouping, *of_shared, *of_control, len(members), len(common)])
    return Table(
        "group_outcomes",
        "Do the same groups lose on every task?",
        "Bommasani et al. 2022, tasks as deployments: systemic failure of groups over what independent deployments would have. "
        "Shared: one foundation behind all tasks. Control: another behind each. Only the difference speaks of sharing: groups "
        "differ in difficulty, which alone lifts both above 1.",
        ["sharing", "data", "groups by", "H_avg shared", "H_unif shared", "H_worst shared", "H_avg control",
         "H_unif control", "H_worst control", "tasks", "foundations"],
        plain(rows),
    )  # fmt: skip


def _group_counts(condition: Condition, groups: list[str], common: list[str]) -> tuple[list[str], Floats, Floats]:
    """Names; (P, R) mean failures over a foundation's seeds; (R,) items."""
    names, codes = np.unique(groups, return_inverse=True)
    answers, design = condition.answers, condition.answers.design
    fails = np.stack([np.bincount(codes, row, minlength=len(names)) for row in answers.failed_MN])
    places = [condition.foundations.index(f) for f in common]
    means = np.stack([fails[design.foundation_M == p].mean(axis=0) for p in places])
    return [str(name) for name in names], means, np.bincount(codes).astype(np.float64)


def _assignments(n_foundations: int, n_tasks: int) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Which foundation is behind which task: one behind all; or all different where there are enough, else not all one.

    Of the second kind all, or _MOST_ASSIGNMENTS drawn at random.
    """
    shared = [(p,) * n_tasks for p in range(n_foundations)]
    are_enough = n_foundations >= n_tasks
    n_control = perm(n_foundations, n_tasks) if are_enough else n_foundations**n_tasks - n_foundations
    if n_control <= _MOST_ASSIGNMENTS:
        listed = (
            permutations(range(n_foundations), n_tasks) if are_enough else product(range(n_foundations), repeat=n_tasks)
        )
        return shared, [chosen for chosen in listed if len(set(chosen)) > 1]
    draws, control = rng(0, "assignments"), set[tuple[int, ...]]()
    while len(control) < _MOST_ASSIGNMENTS:
        drawn = (
            draws.permutation(n_foundations)[:n_tasks] if are_enough else draws.integers(n_foundations, size=n_tasks)
        )
        if np.ptp(drawn) > 0:
            control.add(tuple(drawn.tolist()))
    return shared, sorted(control)


def _mean_outcome(
    tables: list[tuple[list[str], Floats, Floats]], names: list[str], assignments: list[tuple[int, ...]]
) -> list[float] | None:
    """Means of H_avg, H_unif, H_worst over assignments; None where no task ever fails or no group is in all."""
    place = {name: number for number, name in enumerate(names)}
    counts = np.zeros((len(tables), len(names)))
    fails = np.zeros((len(tables), tables[0][1].shape[0], len(names)))
    for j, (own, failed, there) in enumerate(tables):
        columns = [place[name] for name in own]
        counts[j, columns], fails[j][:, columns] = there, failed
    try:
        found = [
            outcome_homogenization(np.stack([fails[j, p] for j, p in enumerate(chosen)]), counts.astype(np.int64))
            for chosen in assignments
        ]
    except UserError:
        return None
    return np.mean([[one.average, one.uniform, one.worst] for one in found], axis=0).tolist()
