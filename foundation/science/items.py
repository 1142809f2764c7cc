"""What the items of a task are: their texts, read again from the task's own data, and the groups they belong to.

The store holds no texts: a run folder is no second copy of a data set.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foundation.core.errors import UserError
from foundation.core.plain import from_plain
from foundation.science.records import TaskAnswers
from foundation.task.config import TaskConfig
from foundation.task.examples import TaskData
from foundation.task.load import load_task
from foundation.task.readers import read_rows

# Upper ends, in words, of the bins of text length (Bommasani et al. 2022 use these, and shorter ones).
_LENGTHS = (5, 10, 20, 50, 100)
_GROUP_KEYS = ("task", "item_id")


@dataclass(frozen=True, slots=True)
class Items:
    """Of one task, in the order of its answers. texts: empty where the data could not be found. groups: by grouping."""

    texts: list[str]
    groups: dict[str, list[str]]


def items_of(task: TaskAnswers, runs_dir: Path, extra: dict[str, dict[str, dict[str, str]]], notes: list[str]) -> Items:
    """Texts and groups: the label, bins of text length, and those of `extra`: grouping → task → item → group."""
    texts = _texts(task, runs_dir, notes)
    groups: dict[str, list[str]] = {}
    if task.labels:
        groups["label"] = [task.labels[int(number)] for number in task.gold_N]
    if any(texts):
        groups["length"] = [length_bin(text) if text else "no text" for text in texts]
    for grouping, by_task in extra.items():
        if own := by_task.get(task.name):
            if lacking := [item for item in task.item_ids if item not in own]:
                raise UserError(
                    f"grouping {grouping} says nothing of {len(lacking)} items of task {task.name}, {lacking[0]} among them: "
                    "give every item a row, or leave the task out"
                )
            groups[grouping] = [own[item] for item in task.item_ids]
    return Items(texts, groups)


def length_bin(text: str) -> str:
    """Words, in bins whose names sort in order."""
    n_words = len(text.split())
    place = int(np.searchsorted(_LENGTHS, n_words))
    low = _LENGTHS[place - 1] + 1 if place else 1
    return f"{low:>3}–{_LENGTHS[place]} words" if place < len(_LENGTHS) else f"{low:>3}+ words"


def read_groups(path: str) -> dict[str, dict[str, dict[str, str]]]:
    """grouping → task → item → group, from a table with the columns task, item_id, and one for each grouping."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for row in read_rows(path):
        if missing := [key for key in _GROUP_KEYS if key not in row.fields]:
            raise UserError(f"{row.place}: groups need the columns task and item_id, and {missing[0]} is missing")
        for name, value in row.fields.items():
            if name not in _GROUP_KEYS:
                found.setdefault(name, {}).setdefault(row.fields["task"], {})[row.fields["item_id"]] = str(value)
    return found


def _texts(task: TaskAnswers, runs_dir: Path, notes: list[str]) -> list[str]:
    """Of every item; empty ones, with a note, where the data are gone or are no longer those that were answered."""
    described = task.summary.get("config", {}).get("task")
    if described is None:
        notes.append(f"{task.name}: there is no scores.json beside its predictions, so texts are not shown")
        return [""] * len(task.item_ids)
    try:
        data = load_task(from_plain(TaskConfig, described, f"{task.name}'s scores.json"), runs_dir)
    except UserError as error:
        notes.append(f"{task.name}: texts are not shown ({error})")
        return [""] * len(task.item_ids)
    if data.fingerprint() != task.summary.get("fingerprints", {}).get("data"):
        notes.append(f"{task.name}: its data have changed since it was fine-tuned, so texts are not shown")
        return [""] * len(task.item_ids)
    texts = _matched(task, data)
    if lacking := texts.count(""):
        notes.append(
            f"{task.name}: no text is shown for {lacking:,} of {len(texts):,} items: its data have none for them"
        )
    return texts


def _matched(task: TaskAnswers, data: TaskData) -> list[str]:
    """The text of an item; of a word or of one label of several, the text that it belongs to."""
    pairs = data.dev.text_pair or [""] * len(data.dev)
    by_id = {
        item: f"{text} ⁄ {pair}" if pair else text
        for item, text, pair in zip(data.dev.ids, data.dev.text, pairs, strict=True)
    }
    groups = [task.clusters[number] for number in task.cluster_N]
    return [by_id.get(item) or by_id.get(group, "") for item, group in zip(task.item_ids, groups, strict=True)]
