"""One model, one foundation: each counts once. Stores in which they count twice, under whatever names, are refused."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.science.records import Model, TaskAnswers


def refuse_doubles(task: str, models: list[Model]) -> None:
    """A model is what began at a foundation, in a way, with a seed, on a part of the data."""
    seen: dict[tuple[Any, ...], Model] = {}
    for model in models:
        key = (model.foundation, model.variant, model.seed, model.data_shard)
        if (other := seen.setdefault(key, model)) is not model:
            raise UserError(
                f"task {task}: {model} is there twice, in {other.folder} and in {model.folder}"
                + (
                    f", as {other.name} and as {model.name}: one foundation counts once"
                    if other.name != model.name
                    else ""
                )
            )


def refuse_identical(task: str, models: list[Model], logits_MNK: NDArray[np.float32]) -> None:
    """Two foundations cannot give the same logits to the last bit; a copy under another fingerprint would."""
    seen: dict[bytes, Model] = {}
    for model, logits in zip(models, logits_MNK, strict=True):
        other = seen.setdefault(logits.tobytes(), model)
        if other.foundation != model.foundation and len(logits) > 1:
            raise UserError(
                f"task {task}: {other} ({other.foundation}) and {model} ({model.foundation}) gave the same logits for every "
                "item: one foundation counted twice under two names; leave one of them out"
            )


def refuse_renamed_foundations(tasks: Iterable[TaskAnswers]) -> None:
    """One fingerprint has one name, and one name one fingerprint, over all tasks; random weights have none of their own."""
    names: dict[str, Model] = {}
    fingerprints: dict[str, Model] = {}
    for model in (model for task in tasks for model in task.models if not model.is_scratch):
        other = names.setdefault(model.foundation, model)
        if other.name != model.name:
            raise UserError(
                f"foundation {model.foundation} is counted twice, as {other.name} ({other.folder}) and as {model.name} "
                f"({model.folder}): leave one of them out"
            )
        other = fingerprints.setdefault(model.name, model)
        if other.foundation != model.foundation:
            raise UserError(
                f"{model.name} is two foundations, {other.foundation} in {other.folder} and {model.foundation} in "
                f"{model.folder}: fine-tune again whichever is outdated"
            )


def refuse_unknown_specialists(tasks: dict[str, TaskAnswers], specialists: dict[str, str]) -> None:
    """specialists: task → beginning of foundations' names. Both have to be there."""
    for task, beginning in specialists.items():
        if task not in tasks:
            raise UserError(f"specialists has {task}, and there is only {', '.join(sorted(tasks))}")
        names = sorted({model.name for model in tasks[task].models})
        if not any(name.startswith(beginning) for name in names):
            raise UserError(
                f"specialists.{task}={beginning}: no foundation begins so, among those of {task}: {', '.join(names)}"
            )
