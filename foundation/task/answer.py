"""Asking a fine-tuned model: inputs by name in, plain JSON values out; labels are never needed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.task.batches import TokenRows
from foundation.task.config import TaskConfig
from foundation.task.examples import Examples
from foundation.task.finetuned import FineTuned
from foundation.task.kinds.build import build_kind
from foundation.task.results import SCORES_FILE
from foundation.task.row import Row

# One row: its texts under the names that input_names gives.
Inputs: TypeAlias = Mapping[str, str]


def find_model(run: Path) -> Path:
    """The `final` of a seed's folder, of a task's folder (its first seed), or the folder itself."""
    seeds = sorted(run.glob("seed-*"), key=lambda path: (len(path.name), path.name))
    finished = [seed for seed in seeds if (seed / SCORES_FILE).is_file()]
    for folder in (run, run / "final", *(seed / "final" for seed in finished[:1])):
        if (folder / "config.json").is_file():
            return folder
    raise UserError(
        f"there is no fine-tuned model in {run}: make one with  python -m foundation.finetune task=sst2  "
        "and name its folder, as in  run=runs/small/finetune/sst2/full"
    )


def input_names(task: TaskConfig) -> tuple[str, ...]:
    """What a row of the task consists of, whatever the columns are called in its files."""
    return tuple(build_kind(task).asks())


def examples_of(model: FineTuned, rows: Sequence[Inputs], places: Sequence[str] | None = None) -> Examples:
    """What is asked. Raises UserError, with its place, for a row that cannot be.

    An input that is missing is our mistake: check at the border. places: none: the rows' numbers, from 1.
    """
    columns = model.kind.asks()
    places = places or [f"row {number}" for number in range(1, len(rows) + 1)]
    as_read = [
        Row({column: row[name] for name, column in columns.items()}, place)
        for row, place in zip(rows, places, strict=True)
    ]
    examples: Examples = model.kind.inputs([str(number) for number in range(len(rows))], as_read)
    return examples


def json_answers(
    model: FineTuned, examples: Examples, tokens: TokenRows, outputs: NDArray[np.float32]
) -> list[dict[str, Any]]:
    """For each row what its kind of task has to say."""
    return list(model.kind.describe(examples, model.kind.answer(outputs, tokens, model.how), model.how))
