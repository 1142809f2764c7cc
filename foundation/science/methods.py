"""Ways of sharing held against each other: the same foundations fine-tuned in another way, and no pretraining at all."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.science.answers import Answers
from foundation.science.conditions import DISJOINT, Condition
from foundation.science.contrast import pair_tables
from foundation.science.inference import FEWEST_FOUNDATIONS, arm_table, estimate, holm, multibootstrap
from foundation.science.tables import Table, plain, spread, with_ends
from foundation.science.within_tasks import KEYS, SIZES, keys, sizes_of

Floats: TypeAlias = NDArray[np.float64]

FULL = "full"


def methods_table(found: list[Condition], notes: list[str]) -> Table:
    """Every way of sharing against full fine-tuning of the same foundations, and against no pretraining.

    Args:
        notes: is told which foundations and rows are left out.
    """
    rows: list[list[Any]] = []
    for each in found:
        base = _reference(each, found)
        if base is not None and not each.is_scratch and not base.is_scratch:
            rows += _paired_rows(each, base, notes)
        scratch = next((o for o in found if o.is_scratch and _same_data(o, each)), None)
        if scratch is not None and not each.is_scratch and each.answers.n_labels:
            rows += _score_rows(each, scratch, notes)
    # p stands before the sizes, and the adjusted one goes between.
    place = -len(SIZES)
    adjusted = holm([float("nan") if row[place - 1] is None else row[place - 1] for row in rows])
    rows = [[*row[:place], p, *row[place:]] for row, p in zip(rows, adjusted, strict=True)]
    return Table(
        "methods",
        "Does the way of sharing matter?",
        "Row − reference: paired by foundation and item where both begin at the same foundations (two-way jackknife, t "
        "test), else multibootstrap (Sellam et al. 2022) with its percentile interval. Holm over this table. No p below"
        " three foundations.",
        [*KEYS, "reference", "measure", *with_ends("difference"), "p", "p Holm", *SIZES],
        plain(rows),
    )


def _same_data(one: Condition, other: Condition) -> bool:
    return one.task.name == other.task.name and one.data == other.data


def _reference(each: Condition, found: list[Condition]) -> Condition | None:
    """Full fine-tuning on the same data; for a disjoint condition, the same sharing on one shard."""
    for other in found:
        if other is each or other.task.name != each.task.name:
            continue
        is_shard = each.data == DISJOINT and "/" in other.data and other.variant == each.variant
        if is_shard or (each.data != DISJOINT and other.variant == FULL and other.data == each.data):
            return other
    return None


def _paired_rows(each: Condition, base: Condition, notes: list[str]) -> list[list[Any]]:
    """Over the foundations that both have."""
    where = f"{each.task.name}, {each.label} − {base.label}"
    common = set(each.foundations) & set(base.foundations)
    if not common:
        notes.append(f"{where}: not compared, since they have no foundation in common")
        return []
    names = dict(zip([*each.foundations, *base.foundations], [*each.names, *base.names], strict=True))
    if alone := sorted(name for foundation, name in names.items() if foundation not in common):
        notes.append(f"{where}: compared over the foundations that both have, without {', '.join(alone)}")
    each, base = each.of_foundations(common), base.of_foundations(common)
    first, second = each.answers, base.answers
    sample = first.design.sample(len(first.gold_N))
    tables = {}
    if first.n_labels:
        arms = [_by_foundation(answers) for answers in (first, second)]
        tables["accuracy"] = arm_table(arms[0], first.blocks_N) - arm_table(arms[1], first.blocks_N)
    kappa = "error consistency" if first.n_labels else "residual correlation"
    own, other = pair_tables(first)[kappa], pair_tables(second)[kappa]
    for side, label in enumerate(("shared", "control")):
        one, two = own[side], other[side]
        if one is not None and two is not None:
            tables[f"{kappa}, {label}"] = one - two
    reference = f"{base.variant}, {base.data}"
    found = []
    for name, table in tables.items():
        difference = estimate(table, sample)
        p = difference.p_value() if difference.about_procedure else None
        found.append([*keys(each), reference, name, *spread(difference), p, *sizes_of(each)])
    return found


def _score_rows(each: Condition, scratch: Condition, notes: list[str]) -> list[list[Any]]:
    arms = [_by_foundation(one.answers) for one in (each, scratch)]
    try:
        found = multibootstrap(*arms, paired=False, blocks_N=each.answers.blocks_N)
    except UserError:
        notes.append(
            f"{each.task.name}, {each.label} − scratch: not compared with fewer than {FEWEST_FOUNDATIONS} of each"
        )
        return []
    row = [*keys(each), "scratch", "accuracy", found.difference, found.low, found.high, found.p]
    return [[*row, *sizes_of(each)]]


def _by_foundation(answers: Answers) -> list[Floats]:
    right = (~answers.failed_MN).astype(np.float64)
    return [right[answers.design.foundation_M == p] for p in range(answers.design.n_foundations)]
