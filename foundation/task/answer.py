"""Asking a fine-tuned model: inputs by name in, plain JSON values out; labels are never needed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from foundation.core.errors import UserError
from foundation.task.batches import TokenRows
from foundation.task.cell import SCORES_FILE
from foundation.task.config import TaskConfig
from foundation.task.finetuned import FineTuned

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
    return ("text",) if task.text_pair is None else ("text", "text_pair")


def tokenize_inputs(model: FineTuned, rows: Sequence[Inputs]) -> TokenRows:
    """Rows as the model takes them; an input that is missing is our mistake: check them at the border."""
    text = [row["text"] for row in rows]
    pair = None if model.how.task.text_pair is None else [row["text_pair"] for row in rows]
    return model.tokenize(text, pair)


def json_answers(model: FineTuned, tokens: TokenRows) -> list[dict[str, Any]]:
    """For each row its label with the probabilities of all, or its value."""
    found = model.answer(tokens)
    if not model.how.labels:
        return [{"value": float(value)} for value in found.predicted]
    return [
        {"label": model.how.labels[int(number)], "probabilities": dict(zip(model.how.labels, shares, strict=True))}
        for number, shares in zip(found.predicted, found.probabilities.tolist(), strict=True)
    ]
