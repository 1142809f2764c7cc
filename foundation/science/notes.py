"""What a reader has to know of the models behind a table, beside the table."""

from collections import Counter
from collections.abc import Iterable

from foundation.science.conditions import Condition


def unbalanced(found: Iterable[Condition]) -> list[str]:
    """A note for each condition in which foundations share seeds and some foundation lacks one."""
    return [note for condition in found if (note := _lacking(condition))]


def _lacking(condition: Condition) -> str | None:
    seeds: dict[str, set[int]] = {}
    for model in condition.models:
        seeds.setdefault(model.foundation, set()).add(model.seed)
    names = dict(zip(condition.foundations, condition.names, strict=True))
    shared_by = Counter(seed for own in seeds.values() for seed in own)
    lacking = [f"{names[f]} has no seed {s}" for f, own in seeds.items() for s in sorted(shared_by.keys() - own)]
    if not lacking or max(shared_by.values()) < 2 or max(map(len, seeds.values())) < 2:
        return None
    unequal = len(set(map(len, seeds.values()))) > 1
    without = ", and has no row in the table of variance" if unequal else ""
    return f"{condition.task.name}, {condition.label}: the grid is unbalanced{without}: {', '.join(lacking)}"
