"""In what the models of a condition differ that are taken for repetitions of each other: settings beside the seed."""

from collections.abc import Iterable, Sequence
from typing import Any

from foundation.core.run_settings import is_within, leaves
from foundation.science.conditions import Condition

# What a repetition may have of its own: its seed, its name, where it lies, and how it is computed.
_OF_A_FOUNDATION = frozenset({"seed", "name", "folder", "runs_dir", "resume", "trainer", "logger"})
_OF_A_FINETUNE = frozenset(
    {"seed", "seeds", "name", "foundation", "compare", "like", "start", "runs_dir", "task.local", "trainer", "logger"}
    | {"shard", "methods", "n_train", "n_subsets", "keep_models", "jobs"}
)
_NAMED, _LONGEST = 5, 40


def unlike_foundations(condition: Condition) -> list[str]:
    """Settings in which the foundations differ beside their seed, as in `steps (300, 1200)`; of random weights, their shape."""
    recipes = [model.recipe for model in condition.models]
    if condition.is_scratch:
        recipes = [{"model": recipe["model"]} for recipe in recipes if "model" in recipe]
    return _differing(recipes, _OF_A_FOUNDATION)


def unlike_finetunes(condition: Condition) -> list[str]:
    """Settings in which the fine-tunes differ beside their seed, their foundation, and their part of the data."""
    return _differing([model.settings for model in condition.models], _OF_A_FINETUNE)


def named(differing: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(differing) - _NAMED} more" if len(differing) > _NAMED else ""
    return f"{', '.join(differing[:_NAMED])}{more}"


def unlike(found: Iterable[Condition]) -> list[str]:
    """A note for each condition whose models are no repetitions of each other."""
    notes = []
    for condition in found:
        where = f"{condition.task.name}, {condition.label}"
        if differing := unlike_foundations(condition):
            notes.append(
                f"{where}: its foundations differ in more than their seed, and differences between them are of that too: "
                f"{named(differing)}"
            )
        if differing := unlike_finetunes(condition):
            notes.append(f"{where}: its fine-tunes were not made alike: {named(differing)}")
    return notes


def _differing(settings: Iterable[dict[str, Any]], own: frozenset[str]) -> list[str]:
    """Models of which nothing is known are passed over. Shapes come first: they say most."""
    known = [leaves(each) for each in settings if each]
    keys = {key for each in known for key in each if not is_within(key, own)}
    found = []
    for key in sorted(keys, key=lambda key: (not key.startswith("model."), key)):
        # repr: True is not 1.
        values = sorted({repr(each[key]) if key in each else "none" for each in known}, key=lambda v: (len(v), v))
        if len(values) > 1:
            shown = ", ".join(value.strip("'") for value in values)
            found.append(f"{key} ({shown})" if len(shown) <= _LONGEST else key)
    return found
