"""What may be asked of a panel by somebody who is not there to mend a file: checked before any work, refused in one sentence."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from foundation.core.errors import UserError
from foundation.serving.config import ServeConfig
from foundation.serving.panel import Panel
from foundation.task.answer import Inputs, input_names

# What each task is asked, row by row.
Asked: TypeAlias = dict[str, list[Inputs]]
Fields: TypeAlias = Mapping[str, str | list[str]]
# Inputs that may be lists; each choice is a row of its own for the model.
CHOICES = ("choices", "candidates")
LISTS = ("words", *CHOICES)


def check_rows(panel: Panel, rows: Sequence[Fields], tasks: Sequence[str] | None, cfg: ServeConfig) -> Asked:
    """The rows as each task takes them. Raises UserError for a task nobody knows, or a row that cannot be asked."""
    if len(rows) > cfg.rows:
        raise UserError(f"there are {len(rows):,} rows, and at most {cfg.rows:,} go into a request: send several")
    for number, row in enumerate(rows):
        for name, value in row.items():
            _check_text(name, f"a name in rows[{number}]", cfg.text_chars)
            place = f"rows[{number}].{name}"
            if name in CHOICES and not 0 < len(value) <= cfg.rows:
                raise UserError(f"{place} has {len(value):,} entries: give between 1 and {cfg.rows:,}")
            _check_text(value if isinstance(value, str) else " ".join(value), place, cfg.text_chars)
    if tasks is None:
        tasks = [name for name in panel.models if not _missing(panel, name, rows[0])]
        if not tasks:
            raise UserError(
                f"no task here takes rows of {', '.join(rows[0]) or 'nothing'}: /tasks says what each takes"
            )
    if unknown := [name for name in tasks if name not in panel.models]:
        raise UserError(f"there is no task {unknown[0]!r} here: choose among {', '.join(panel.models)}")
    return {name: [_inputs(panel, name, row, number) for number, row in enumerate(rows)] for name in tasks}


def _check_text(text: str, place: str, limit: int) -> None:
    if len(text) > limit:
        raise UserError(f"{place} has {len(text):,} characters, and at most {limit:,} are read: send a shorter text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{place} holds half of a surrogate pair at character {error.start}: that is no text") from None


def _missing(panel: Panel, name: str, row: Fields) -> list[str]:
    return [key for key in input_names(panel.models[name].how.task) if key not in row]


def _inputs(panel: Panel, name: str, row: Fields, number: int) -> Inputs:
    """What of the row the task needs."""
    if missing := _missing(panel, name, row):
        raise UserError(f"rows[{number}] has no {missing[0]}, and task {name} asks for it")
    found = {}
    for key in input_names(panel.models[name].how.task):
        value = row[key]
        if not isinstance(value, str) and key not in LISTS:
            raise UserError(f"rows[{number}].{key} must be one text, not a list, for task {name}")
        # As a file has it: a list in a field is written as JSON.
        found[key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found


def describe_tasks(panel: Panel, cfg: ServeConfig) -> dict[str, Any]:
    """For /tasks and the page: what each task takes and gives, and which tasks have the same encoder."""
    place_of = {name: place for place, names in enumerate(panel.encoders) for name in names}
    return {
        "tasks": [
            {
                "name": name,
                "kind": model.how.task.kind.value,
                "inputs": list(input_names(model.how.task)),
                "labels": model.how.labels,
                "tokens": model.how.seq_len,
                "encoder": place_of[name],
            }
            for name, model in panel.models.items()
        ],
        "parameters": panel.held,
        "parameters_alone": panel.held_alone,
        "limits": {"rows": cfg.rows, "text_chars": cfg.text_chars, "body_bytes": cfg.body_bytes},
    }
